// What saving every epoch in the background costs a training loop that computes for
// two seconds an epoch, on the machine that the server runs on too.
#include <sys/resource.h>

#include <atomic>
#include <map>
#include <string>
#include <thread>
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
// The server steps back for the training, as the README advises where both share a
// machine.
constexpr int kServerNice = 10;
constexpr char kModel[] = "models/policy-overhead";

// Keeps a core busy for some CPU seconds as a save does that has stepped back, but
// touches no memory and hardly calls the kernel.
class Spinner {
 public:
  explicit Spinner(double cpu_seconds) : thread_([this, cpu_seconds] {
          setpriority(PRIO_PROCESS, 0, kServerNice);
          while (!stop_ && ThreadCpuSeconds() < cpu_seconds) {
            for (int i = 0; i < 100'000 && !stop_; ++i) {
            }
          }
        }) {}
  ~Spinner() {
    stop_ = true;
    thread_.join();
  }

 private:
  std::atomic<bool> stop_{false};
  std::thread thread_;
};

// An epoch of steps that each compute and then change the parameters, as training
// does; most of them in the first, so that each save is of other bytes.
class Loop {
 public:
  Loop(const Settings& settings, int threads, int server_nice)
      : settings_(settings),
        state_(StateShape(settings.state_bytes)),
        server_(OrDie(
            ServerProcess::Start(settings.server_binary, settings.folder + "/server",
                                 server_nice))),
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
    Settle(settings_.touch_bytes);
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
      if (++saved_ > 1) {
        OrDie(client_.DeleteCheckpoint(
            absl::StrCat(kModel, "/checkpoints/", saved_ - 1)));
      }
    }
    return seconds;
  }

  double Epoch() {
    Settle(settings_.touch_bytes);
    const double core_wait = OrDie(CoreWaitSeconds());
    Stopwatch watch;
    Steps([] {});
    const double seconds = watch.seconds();
    waited_ = OrDie(CoreWaitSeconds()) - core_wait;
    return seconds;
  }

  // Beside as much of another core's time as the last save took.
  double EpochBesideSpinner() {
    Settle(settings_.touch_bytes);
    Spinner spinner(save_cpu_);
    Stopwatch watch;
    Steps([] {});
    return watch.seconds();
  }

  // CPU seconds of the last save, at both ends.
  double save_cpu() const { return save_cpu_; }
  // In the last of Epoch() and EpochWithSave(), how long this thread waited for a core,
  // and for Staged().
  double waited() const { return waited_; }

  // The machine's speed drifts: after an epoch without a save, lets the next compute
  // for as long as they should.
  void Fit(double seconds) { per_step_ = per_step_ * kEpochSeconds / seconds; }

  ~Loop() { OrDie(server_.DeleteModel(kModel)); }

 private:
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
  double waited_ = 0;
};

struct Overhead {
  std::vector<double> ratio, with, without, waited, save_cpu, spinner_ratio;
};

Overhead Measure(const Settings& settings, int pairs, int threads, int server_nice,
                 bool spin) {
  Loop loop(settings, threads, server_nice);
  CheckpointPolicy policy = OrDie(CheckpointPolicy::Create({.every_epochs = 1}));
  Overhead overhead;
  for (int round = 0; round <= pairs; ++round) {
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
    const double beside_spinner = spin ? loop.EpochBesideSpinner() : 0;
    loop.Fit(without);
    // The first save allocates the staging pool.
    if (round == 0) continue;
    overhead.with.push_back(with);
    overhead.without.push_back(without);
    overhead.ratio.push_back(with / without);
    overhead.waited.push_back(waited);
    overhead.save_cpu.push_back(loop.save_cpu());
    if (spin) overhead.spinner_ratio.push_back(beside_spinner / without);
  }
  return overhead;
}

}  // namespace

// With half of the cores computing, as where a GPU does it; twice as many pairs, since
// epochs without any save differ by a fifth on a shared machine. Then with a server that
// does not step back, and with all cores computing: what saving costs is taken from the
// computing there.
//
// Where one thread computes, beside the ratio what the machine's drift does not touch: how
// much longer that thread waited in an epoch with a save; and what the machine takes for
// a second busy core, whatever keeps it busy.
void MeasurePolicyOverhead(const Settings& settings, Report& report) {
  const int cores = TrainingState::Threads();
  const int half_of_cores = std::max(1, cores / 2);
  const bool one = half_of_cores == 1;
  const Overhead half =
      Measure(settings, 2 * settings.pairs, half_of_cores, kServerNice, one);
  const Overhead as_started =
      Measure(settings, settings.pairs, half_of_cores, 0, /*spin=*/false);
  const Overhead all =
      Measure(settings, settings.pairs, cores, kServerNice, /*spin=*/false);
  std::map<std::string, double> details = {
      {"pairs", static_cast<double>(half.ratio.size())},
      {"epoch_s", Median(half.without)},
      {"epoch_with_save_s", Median(half.with)},
      {"gb", static_cast<double>(settings.state_bytes) / 1e9},
      {"server_not_nice_ratio", Median(as_started.ratio)},
      {"all_cores_ratio", Median(all.ratio)},
      {"pairs_of_these_two", static_cast<double>(all.ratio.size())}};
  if (one) {
    details.insert({{"waited_s", Median(half.waited)},
                    {"server_not_nice_waited_s", Median(as_started.waited)},
                    {"save_cpu_s", Median(half.save_cpu)},
                    {"beside_spinner_ratio", Median(half.spinner_ratio)}});
  }
  report.Add({"policy_overhead", Median(half.ratio), "ratio", std::move(details)});
}

}  // namespace modelstore::bench
