// What saving every epoch in the background costs a training loop that computes for
// two seconds an epoch, on the machine that the server runs on too.
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "modelstore/policy.h"
#include "tests/benchmarks/bench.h"
#include "tests/benchmarks/machine.h"
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
  double Epoch(CheckpointPolicy* policy) {
    Settle(settings_.touch_bytes);
    Stopwatch watch;
    std::vector<SaveHandle> save;
    if (policy != nullptr &&
        policy->Decide({.epoch = ++epoch_, .loss = 0.5}) != SaveReason::kNone) {
      save.push_back(state_.SaveAsync(client_, kModel));
    }
    for (int step = 0; step < kSteps; ++step) {
      state_.Multiply(per_step_);
      // Nothing may change before it is staged.
      if (step == 0 && !save.empty()) {
        OrDie(save.back().Staged(After(std::chrono::minutes(2))));
      }
      if (step == 0) state_.ChangeAll();
    }
    const double seconds = watch.seconds();
    for (SaveHandle& handle : save) {
      OrDie(handle.Durable(After(std::chrono::minutes(5))));
      if (++saved_ > 1) {
        OrDie(client_.DeleteCheckpoint(
            absl::StrCat(kModel, "/checkpoints/", saved_ - 1)));
      }
    }
    return seconds;
  }

  // The machine's speed drifts: after an epoch without a save, lets the next compute
  // for as long as they should.
  void Fit(double seconds) { per_step_ = per_step_ * kEpochSeconds / seconds; }

  ~Loop() { OrDie(server_.DeleteModel(kModel)); }

 private:
  const Settings& settings_;
  TrainingState state_;
  ServerProcess server_;
  Client client_;
  int64_t per_step_ = 1;
  int64_t epoch_ = 0;
  int saved_ = 0;
};

struct Overhead {
  std::vector<double> ratio, with, without;
};

Overhead Measure(const Settings& settings, int threads, int server_nice) {
  Loop loop(settings, threads, server_nice);
  CheckpointPolicy policy = OrDie(CheckpointPolicy::Create({.every_epochs = 1}));
  Overhead overhead;
  for (int round = 0; round <= settings.pairs; ++round) {
    double with = 0, without = 0;
    // In an order that turns, so that a drift of the machine favours neither.
    for (int i = 0; i < 2; ++i) {
      if ((i + round) % 2 == 0) {
        with = loop.Epoch(&policy);
      } else {
        without = loop.Epoch(nullptr);
      }
    }
    loop.Fit(without);
    // The first save allocates the staging pool.
    if (round == 0) continue;
    overhead.with.push_back(with);
    overhead.without.push_back(without);
    overhead.ratio.push_back(with / without);
  }
  return overhead;
}

}  // namespace

// With half of the cores computing, as where a GPU does it. Beside it, with a server
// that does not step back, and with all cores computing: then what saving costs is
// taken from the computing.
void MeasurePolicyOverhead(const Settings& settings, Report& report) {
  const int cores = TrainingState::Threads();
  const Overhead half = Measure(settings, std::max(1, cores / 2), kServerNice);
  const Overhead as_started = Measure(settings, std::max(1, cores / 2), 0);
  const Overhead all = Measure(settings, cores, kServerNice);
  report.Add({"policy_overhead",
              Median(half.ratio),
              "ratio",
              {{"epoch_s", Median(half.without)},
               {"epoch_with_save_s", Median(half.with)},
               {"server_not_nice_ratio", Median(as_started.ratio)},
               {"all_cores_ratio", Median(all.ratio)},
               {"gb", static_cast<double>(settings.state_bytes) / 1e9},
               {"pairs", static_cast<double>(half.ratio.size())}}});
}

}  // namespace modelstore::bench
