// What saving every epoch in the background costs a training loop that computes for
// two seconds an epoch, on the machine that the server runs on too.
#include <unistd.h>

#include <algorithm>
#include <map>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "modelstore/policy.h"
#include "tests/benchmarks/bench.h"
#include "tests/benchmarks/machine.h"
#include "tests/benchmarks/process.h"
#include "tests/benchmarks/server_process.h"
#include "tests/benchmarks/training_state.h"

namespace modelstore::bench {
namespace {

constexpr int kSteps = 20;
constexpr double kEpochSeconds = 2;
// The server steps back for the training, as server/README.md advises where both share a
// machine.
constexpr int kServerNice = 10;
constexpr char kModel[] = "models/policy-overhead";

// An epoch of steps that each compute and then change the parameters, as training
// does; most of them in the first, so that each save is of other bytes.
class Loop {
 public:
  Loop(const Settings& settings, int threads, int server_nice)
      : settings_(settings),
        state_(StateShape(settings.state_bytes)),
        server_(OrDie(ServerProcess::Start(settings.server_binary,
                                           settings.folder + "/server", server_nice))),
        client_(OrDie(Client::Connect(server_.address()))) {
    TrainingState::SetThreads(threads);
    // As many multiplications as fill the time.
    int64_t times = 1;
    for (double seconds = 0; seconds < kEpochSeconds / 10; times *= 2) {
      Stopwatch watch;
      state_.Multiply(times);
      seconds = watch.seconds();
      per_step_ = times / seconds * kEpochSeconds / kSteps;
    }
  }

  // Seconds of an epoch. Saved at its beginning, the parameters as the epoch before
  // left them.
  double EpochWithSave(CheckpointPolicy* policy) {
    FreePagesOfLastButOne();
    Begin();
    const double cpu = SaveCpuSeconds();
    const double core_wait = OrDie(CoreWaitSeconds());
    double staged_wait = 0;  // but for a core
    Stopwatch watch;
    std::vector<SaveHandle> save;
    if (policy->Decide({.epoch = ++epoch_, .loss = 0.5}) != SaveReason::kNone) {
      save.push_back(state_.SaveAsync(client_, kModel));
    }
    Steps([&] {
      // Nothing may change before it is staged.
      const double before = OrDie(CoreWaitSeconds());
      Stopwatch staged;
      for (SaveHandle& handle : save) {
        OrDie(handle.Staged(After(std::chrono::minutes(2))));
      }
      staged_wait = staged.seconds() - (OrDie(CoreWaitSeconds()) - before);
    });
    const double seconds = watch.seconds();
    waited_ = staged_wait + OrDie(CoreWaitSeconds()) - core_wait;
    for (SaveHandle& handle : save) {
      OrDie(handle.Durable(After(std::chrono::minutes(5))));
      save_cpu_ = SaveCpuSeconds() - cpu;
      ++saved_;
    }
    after_epoch_ = watch.seconds() - seconds;
    return seconds;
  }

  double Epoch() {
    Begin();
    const double core_wait = OrDie(CoreWaitSeconds());
    Stopwatch watch;
    Steps([] {});
    const double seconds = watch.seconds();
    waited_ = OrDie(CoreWaitSeconds()) - core_wait;
    return seconds;
  }

  // CPU seconds of the last save, at both ends.
  double save_cpu() const { return save_cpu_; }
  // How long the last save went on when its epoch was over: that part costs the epoch
  // nothing.
  double after_epoch() const { return after_epoch_; }
  // In the last of Epoch() and EpochWithSave(), how long this thread waited for a core,
  // and for Staged().
  double waited() const { return waited_; }

  // The machine's speed drifts: after an epoch without a save, lets the next compute
  // for as long as they should.
  void Fit(double seconds) { per_step_ = per_step_ * kEpochSeconds / seconds; }

  ~Loop() { OrDie(server_.DeleteModel(kModel)); }

 private:
  // The next save takes them: on a virtual machine the host takes free memory back
  // within seconds, and the first touch of a page that it took costs several times what
  // writing it does.
  void FreePagesOfLastButOne() {
    if (saved_ < 2) return;
    OrDie(client_.DeleteCheckpoint(absl::StrCat(kModel, "/checkpoints/", saved_ - 1)));
    OrDie(server_.CollectDeleted());
  }

  // As in training, one epoch follows another: a thread that has slept would at first
  // share its core with those that it starts.
  void Begin() {
    sync();
    state_.Multiply(per_step_);
  }

  template <typename F>
  void Steps(F&& before_change) {
    for (int step = 0; step < kSteps; ++step) {
      state_.Multiply(per_step_);
      if (step > 0) continue;
      before_change();
      state_.ChangeAll();
    }
  }

  // Of both processes but for this thread: of what it computes with others, too much.
  double SaveCpuSeconds() const {
    return CpuSeconds(0) - ThreadCpuSeconds() + CpuSeconds(server_.pid());
  }

  const Settings& settings_;
  TrainingState state_;
  ServerProcess server_;
  Client client_;
  int64_t per_step_ = 1;
  int64_t epoch_ = 0;
  int saved_ = 0;
  double save_cpu_ = 0;
  double after_epoch_ = 0;
  double waited_ = 0;
};

struct Overhead {
  std::vector<double> ratio, with, without, waited, save_cpu, after_epoch;
};

Overhead Measure(const Settings& settings, int pairs, int threads, int server_nice) {
  Loop loop(settings, threads, server_nice);
  CheckpointPolicy policy = OrDie(CheckpointPolicy::Create({.every_epochs = 1}));
  Overhead overhead;
  // The first save allocates the staging pool, the second writes to pages of its own.
  constexpr int kFirst = 2;
  for (int round = 0; round < kFirst + pairs; ++round) {
    double with = 0, without = 0, waited = 0;
    // In an order that turns, so that a drift of the machine favours neither.
    for (int i = 0; i < 2; ++i) {
      if ((i + round) % 2 == 0) {
        with = loop.EpochWithSave(&policy);
        waited += loop.waited();
      } else {
        without = loop.Epoch();
        waited -= loop.waited();
      }
    }
    loop.Fit(without);
    if (round < kFirst) continue;
    overhead.with.push_back(with);
    overhead.without.push_back(without);
    overhead.ratio.push_back(with / without);
    overhead.waited.push_back(waited);
    overhead.save_cpu.push_back(loop.save_cpu());
    overhead.after_epoch.push_back(loop.after_epoch());
  }
  return overhead;
}

}  // namespace

// With half of the cores computing, as where a GPU does it; then with a server that
// does not step back, and with all cores computing: what saving costs is taken from the
// computing there. On a shared machine epochs without any save differ by a fifth: the
// standard deviation of the median of 42 pairs is about 0.03.
//
// Where one thread computes, beside the ratio what the machine's drift does not touch:
// how much longer that thread waited in an epoch with a save, and what the save took.
void MeasurePolicyOverhead(const Settings& settings, Report& report) {
  const int cores = TrainingState::Threads();
  const int half_of_cores = std::max(1, cores / 2);
  const int few = settings.quick ? settings.pairs : 2 * settings.pairs;
  const int many = settings.quick ? settings.pairs : 6 * settings.pairs;
  const Overhead half = Measure(settings, many, half_of_cores, kServerNice);
  const Overhead as_started = Measure(settings, few, half_of_cores, 0);
  const Overhead all = Measure(settings, few, cores, kServerNice);
  std::map<std::string, double> details = {
      {"pairs", static_cast<double>(half.ratio.size())},
      {"epoch_s", Median(half.without)},
      {"epoch_with_save_s", Median(half.with)},
      {"save_after_epoch_s", Median(half.after_epoch)},
      {"gb", static_cast<double>(settings.state_bytes) / 1e9},
      {"server_not_nice_ratio", Median(as_started.ratio)},
      {"all_cores_ratio", Median(all.ratio)},
      {"pairs_of_these_two", static_cast<double>(all.ratio.size())}};
  if (half_of_cores == 1) {
    details.insert({{"save_cpu_s", Median(half.save_cpu)},
                    {"waited_s", Median(half.waited)},
                    {"server_not_nice_waited_s", Median(as_started.waited)}});
  }
  report.Add({"policy_overhead", Median(half.ratio), "ratio", std::move(details)});
}

}  // namespace modelstore::bench
