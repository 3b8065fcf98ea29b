// CheckpointPolicy decides when a training loop saves: at intervals of epochs, steps or
// time, when a metric improves, and a last time before the process ends.
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

// Rules for saving. A save is due if any rule applies. 0 or an empty name disables a
// rule.
struct CheckpointPolicyOptions {
  // Saves if a multiple was reached or passed since the last save, so that a loop may
  // call Decide() at any interval.
  int64_t every_epochs = 0;
  int64_t every_steps = 0;
  // Saves if this much time has passed since the last save or since Create().
  Timeout every{0};
  // Saves if this figure improves: `loss`, or the name of a metric.
  std::string metric = {};
  bool higher_is_better = false;
  // The metric must be better than the best value so far by more than this.
  double min_improvement = 0;
  // Time for a final save, from the request. See FinalSaveDeadline().
  Timeout final_save_within{30'000};
  // Replaces the steady clock in tests.
  std::function<std::chrono::steady_clock::time_point()> now = {};
};

enum class SaveReason : uint8_t {
  kNone,      // do not save
  kInterval,  // an interval of epochs, steps or time has passed
  kImproved,  // the metric is better than before
  kFinal,     // RequestFinalSave() was called
};

// Not thread-safe: use it in the thread of the training loop.
class CheckpointPolicy {
 public:
  // INVALID_ARGUMENT, naming the field, for a negative number, or if no rule is enabled.
  static absl::StatusOr<CheckpointPolicy> Create(CheckpointPolicyOptions options);

  // Call it after each epoch or step, with the current epoch, step, loss and metrics.
  // Returns why to save now, or kNone. Any other result counts as a save. A metric that
  // is absent or NaN is not an improvement. kFinal is returned once, before other
  // reasons.
  [[nodiscard]] SaveReason Decide(const CheckpointMetadata& state);

  // Sets the version that training resumes from. Intervals count from it, and its metric
  // becomes the best value unless a better one was seen.
  void ResumeFrom(const CheckpointInfo& checkpoint);

  // The best value of the metric so far.
  std::optional<double> best() const { return best_; }

  // The deadline of a final save, for SaveOptions and SaveHandle::Durable():
  // final_save_within after the request, or after now if none was made.
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

// Requests a final save from every policy of the process. Safe to call from a signal
// handler and from any thread. Calls after the first do not move the deadline.
void RequestFinalSave() noexcept;
// True if a final save was requested and not withdrawn.
bool FinalSaveRequested() noexcept;
// Withdraws the request, for a process that continues.
void WithdrawFinalSave() noexcept;
// Installs a handler that requests a final save when `signal` arrives. It replaces the
// present handler, which is not called. INVALID_ARGUMENT for a signal that cannot be
// handled.
[[nodiscard]] absl::Status RequestFinalSaveOnSignal(int signal = SIGTERM);

}  // namespace modelstore
