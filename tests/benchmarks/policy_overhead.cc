// What saving every epoch in the background costs a training loop that computes for
// two seconds an epoch, on the machine that the server runs on too.
#include <sys/resource.h>

#include <atomic>
#include <string>
#include <thread>
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

// Keeps a core busy for some CPU seconds as a save does that has stepped back, but
// touches no memory and calls nobody.
class Spinner {
 public:
  explicit Spinner(double cpu_seconds) : thread_([this, cpu_seconds] {
          setpriority(PRIO_PROCESS, 0, kServerNice);
          while (!stop_ && ThreadCpuSeconds() < cpu_seconds) {
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
constexpr char kModel[] = "models/policy-overhead";

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
    double staged_wait = 0;
    Stopwatch watch;
    std::vector<SaveHandle> save;
    if (policy->Decide({.epoch = ++epoch_, .loss = 0.5}) != SaveReason::kNone) {
      save.push_back(state_.SaveAsync(client_, kModel));
    }
    Steps([&] {
      // Nothing may change before it is staged.
      Stopwatch staged;
      for (SaveHandle& handle : save) {
        OrDie(handle.Staged(After(std::chrono::minutes(2))));
      }
      staged_wait = staged.seconds();
    });
    const double seconds = watch.seconds();
    waited_ = staged_wait + OrDie(CoreWaitSeconds()) - core_wait;
    for (SaveHandle& handle : save) {
      OrDie(handle.Durable(After(std::chrono::minutes(5))));
      if (++saved_ > 1) {
        OrDie(client_.DeleteCheckpoint(
            absl::StrCat(kModel, "/checkpoints/", saved_ - 1)));
      }
    }
    save_cpu_ = SaveCpuSeconds() - cpu;
    return seconds;
  }

  double Epoch() {
    Settle(settings_.touch_bytes);
    Stopwatch watch;
    Steps([] {});
    return watch.seconds();
  }

  // Beside as much of another core's time as the last save took.
  double EpochBesideSpinner() {
    Settle(settings_.touch_bytes);
    Spinner spinner(save_cpu_);
    Stopwatch watch;
    Steps([] {});
    return watch.seconds();
  }

  // Of the last save: CPU seconds at both ends, and how long the computing thread waited
  // for it: until Staged(), and for a core.
  double save_cpu() const { return save_cpu_; }
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

  // Of everything but the computing thread.
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

Overhead Measure(const Settings& settings, int pairs, int threads, int server_nice) {
  Loop loop(settings, threads, server_nice);
  CheckpointPolicy policy = OrDie(CheckpointPolicy::Create({.every_epochs = 1}));
  Overhead overhead;
  for (int round = 0; round <= pairs; ++round) {
    double with = 0, without = 0;
    // In an order that turns, so that a drift of the machine favours neither.
    for (int i = 0; i < 2; ++i) {
      if ((i + round) % 2 == 0) {
        with = loop.EpochWithSave(&policy);
      } else {
        without = loop.Epoch();
      }
    }
    const double spinner = loop.EpochBesideSpinner();
    loop.Fit(without);
    // The first save allocates the staging pool.
    if (round == 0) continue;
    overhead.with.push_back(with);
    overhead.without.push_back(without);
    overhead.ratio.push_back(with / without);
    overhead.waited.push_back(loop.waited());
    overhead.save_cpu.push_back(loop.save_cpu());
    overhead.spinner_ratio.push_back(spinner / without);
  }
  return overhead;
}

}  // namespace

// With half of the cores computing, as where a GPU does it; twice as many pairs,
// since epochs without any save differ by a fifth on a shared machine. Beside it what is
// free of that: how long the computing thread waited; and what the machine takes for a
// second busy core, whatever keeps it busy. Then with a server that does not step back,
// and with all cores computing: what saving costs is taken from the computing there.
void MeasurePolicyOverhead(const Settings& settings, Report& report) {
  const int cores = TrainingState::Threads();
  const int half_of_cores = std::max(1, cores / 2);
  const Overhead half =
      Measure(settings, 2 * settings.pairs, half_of_cores, kServerNice);
  const Overhead as_started = Measure(settings, settings.pairs, half_of_cores, 0);
  const Overhead all = Measure(settings, settings.pairs, cores, kServerNice);
  report.Add({"policy_overhead",
              Median(half.ratio),
              "ratio",
              {{"epoch_s", Median(half.without)},
               {"epoch_with_save_s", Median(half.with)},
               {"waited_s", Median(half.waited)},
               {"save_cpu_s", Median(half.save_cpu)},
               {"beside_spinner_ratio", Median(half.spinner_ratio)},
               {"server_not_nice_ratio", Median(as_started.ratio)},
               {"all_cores_ratio", Median(all.ratio)},
               {"gb", static_cast<double>(settings.state_bytes) / 1e9},
               {"pairs", static_cast<double>(half.ratio.size())}}});
}

}  // namespace modelstore::bench
