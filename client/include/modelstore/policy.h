// When a training loop saves: every so many epochs, steps or seconds, when a metric
// improves, and a last time when the process is told to go.
//
//   auto policy = modelstore::CheckpointPolicy::Create(
//       {.every_epochs = 5, .metric = "accuracy", .higher_is_better = true});
//   absl::Status s = modelstore::RequestFinalSaveOnSignal(SIGTERM);
//   for (int64_t epoch = 1; epoch <= epochs; ++epoch) {
//     ...
//     const modelstore::CheckpointMetadata state = {
//         .epoch = epoch, .metrics = {{"accuracy", accuracy}}};
//     const modelstore::SaveReason why = policy->Decide(state);
//     if (why == modelstore::SaveReason::kNone) continue;
//     save = modelstore::SaveCheckpointAsync(
//         client, "models/m", {.module = net.get(), .metadata = state});
//     if (why == modelstore::SaveReason::kFinal) break;
//   }
//
// PyTorch leaves all of this to the loop; the rules are those of the callbacks that
// people write around it.
#pragma once

#include <chrono>
#include <csignal>
#include <cstdint>
#include <functional>
#include <optional>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "modelstore/deadline.h"
#include "modelstore/resources.h"

namespace modelstore {

// Any of them saves. 0, and an empty name: not for this.
struct CheckpointPolicyOptions {
  // Whenever a multiple was reached since the last save, whatever the loop's own
  // stride is.
  int64_t every_epochs = 0;
  int64_t every_steps = 0;
  // Since the last save, or since the policy was made.
  Timeout every{0};
  // `loss`, or one of the metrics.
  std::string metric = {};
  bool higher_is_better = false;
  // By more than so much it must be better than the best so far.
  double min_improvement = 0;
  // How long a final save may take from the moment at which it is requested. A duration,
  // as is `every`: what it counts from is yet to come.
  Timeout final_save_within{30'000};
  // For tests; the steady clock where it is not set.
  std::function<std::chrono::steady_clock::time_point()> now = {};
};

enum class SaveReason : uint8_t {
  kNone,      // do not save
  kInterval,  // epochs, steps or time
  kImproved,  // the metric is the best so far
  kFinal,     // RequestFinalSave() was called
};

// Not thread-safe: it belongs to the training loop.
class CheckpointPolicy {
 public:
  // INVALID_ARGUMENT, naming the field, for a negative number, or if nothing would
  // ever be saved but a final version.
  static absl::StatusOr<CheckpointPolicy> Create(CheckpointPolicyOptions options);

  // To be asked after each epoch or each step, with where training is: epoch, step, loss
  // and metrics. What is not kNone counts as saved. A metric that is absent or NaN
  // improves nothing. kFinal is given once, and before any other reason.
  [[nodiscard]] SaveReason Decide(const CheckpointMetadata& state);

  // The version that training went on from: intervals count from there, and its
  // metric is the best so far unless a better one was seen.
  void ResumeFrom(const CheckpointInfo& checkpoint);

  // The best value of the metric so far.
  std::optional<double> best() const { return best_; }

  // When a final save must be durable, for its options and for Durable():
  // final_save_within after the request. After now while none is requested.
  Deadline FinalSaveDeadline() const;

 private:
  explicit CheckpointPolicy(CheckpointPolicyOptions options);
  bool Improved(const CheckpointMetadata& state);
  bool Due(const CheckpointMetadata& state) const;
  std::chrono::steady_clock::time_point Now() const;

  CheckpointPolicyOptions options_;
  std::chrono::steady_clock::time_point saved_at_;
  int64_t saved_epoch_ = 0;
  int64_t saved_step_ = 0;
  std::optional<double> best_;
  bool final_save_done_ = false;
};

// Of the whole process. Safe to call from a signal handler and from any thread; the
// first call counts.
void RequestFinalSave() noexcept;
bool FinalSaveRequested() noexcept;
// Takes the request back, if the process goes on after all.
void WithdrawFinalSave() noexcept;
// Makes `signal` request a final save instead of ending the process, from now on.
// What handled it before is not called. INVALID_ARGUMENT for a signal that cannot be
// handled.
[[nodiscard]] absl::Status RequestFinalSaveOnSignal(int signal = SIGTERM);

}  // namespace modelstore
