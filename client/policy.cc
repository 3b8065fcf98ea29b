#include "modelstore/policy.h"

#include <atomic>
#include <cerrno>
#include <cmath>
#include <cstring>
#include <ctime>
#include <limits>
#include <utility>

#include "absl/strings/str_cat.h"
#include "proto/contract/errors.h"

namespace modelstore {
namespace {

using SteadyTime = std::chrono::steady_clock::time_point;

// Time of the request in nanoseconds of the steady clock; 0 if there is none.
std::atomic<int64_t> requested_at{0};
static_assert(std::atomic<int64_t>::is_always_lock_free, "a signal handler uses it");

// Whether a multiple of `every` lies in (before, now].
bool PassedMultiple(int64_t every, int64_t before, const std::optional<int64_t>& now) {
  return every > 0 && now.has_value() && *now / every > before / every;
}

}  // namespace

void RequestFinalSave() noexcept {
  // May run in a signal handler: clock_gettime() is async-signal-safe, and
  // CLOCK_MONOTONIC is the steady clock of libstdc++. Only the first request is recorded.
  timespec now{};
  clock_gettime(CLOCK_MONOTONIC, &now);
  int64_t none = 0;
  requested_at.compare_exchange_strong(none,
                                       int64_t{now.tv_sec} * 1'000'000'000 + now.tv_nsec);
}

bool FinalSaveRequested() noexcept { return requested_at.load() != 0; }

void WithdrawFinalSave() noexcept { requested_at.store(0); }

absl::Status RequestFinalSaveOnSignal(int signal) {
  struct sigaction action {};
  action.sa_handler = [](int) { RequestFinalSave(); };
  // Restarts system calls that the signal interrupts, so that other code sees no EINTR.
  action.sa_flags = SA_RESTART;
  if (sigaction(signal, &action, nullptr) == 0) return absl::OkStatus();
  return InvalidField("signal",
                      absl::StrCat(signal, " cannot be handled: ", std::strerror(errno)));
}

absl::StatusOr<CheckpointPolicy> CheckpointPolicy::Create(
    CheckpointPolicyOptions options) {
  const auto negative = [](absl::string_view field) {
    return InvalidField(field, "must not be negative");
  };
  if (options.every_epochs < 0) return negative("every_epochs");
  if (options.every_steps < 0) return negative("every_steps");
  if (options.every.count() < 0) return negative("every");
  if (options.final_save_within.count() < 0) return negative("final_save_within");
  if (!(options.min_improvement >= 0)) return negative("min_improvement");
  if (options.every_epochs == 0 && options.every_steps == 0 &&
      options.every.count() == 0 && options.metric.empty()) {
    return InvalidField("every_epochs",
                        "or every_steps, every or metric must be set: nothing would be "
                        "saved");
  }
  return CheckpointPolicy(std::move(options));
}

CheckpointPolicy::CheckpointPolicy(CheckpointPolicyOptions options)
    : options_(std::move(options)), saved_at_(Now()) {}

SteadyTime CheckpointPolicy::Now() const {
  return options_.now ? options_.now() : std::chrono::steady_clock::now();
}

SaveReason CheckpointPolicy::Decide(const CheckpointMetadata& state) {
  // Updates the best value whatever the reason for the save is.
  const bool improved = Improved(state);
  SaveReason reason = SaveReason::kNone;
  if (!FinalSaveRequested()) {
    final_save_done_ = false;
    reason = Due(state) ? SaveReason::kInterval
             : improved ? SaveReason::kImproved
                        : SaveReason::kNone;
  } else if (!final_save_done_) {
    final_save_done_ = true;
    reason = SaveReason::kFinal;
  }
  if (reason == SaveReason::kNone) return reason;
  saved_at_ = Now();
  saved_epoch_ = state.epoch.value_or(saved_epoch_);
  saved_step_ = state.step.value_or(saved_step_);
  return reason;
}

bool CheckpointPolicy::Improved(const CheckpointMetadata& state) {
  if (options_.metric.empty()) return false;
  std::optional<double> value;
  const auto it = state.metrics.find(options_.metric);
  if (it != state.metrics.end()) {
    value = it->second;
  } else if (options_.metric == "loss") {
    value = state.loss;
  }
  if (!value.has_value() || std::isnan(*value)) return false;
  const double sign = options_.higher_is_better ? 1 : -1;
  const double gain = best_.has_value() ? (*value - *best_) * sign
                                        : std::numeric_limits<double>::infinity();
  if (!(gain > options_.min_improvement)) return false;
  best_ = value;
  return true;
}

bool CheckpointPolicy::Due(const CheckpointMetadata& state) const {
  return PassedMultiple(options_.every_epochs, saved_epoch_, state.epoch) ||
         PassedMultiple(options_.every_steps, saved_step_, state.step) ||
         (options_.every.count() > 0 && Now() >= Later(saved_at_, options_.every));
}

void CheckpointPolicy::ResumeFrom(const CheckpointInfo& checkpoint) {
  saved_at_ = Now();
  saved_epoch_ = checkpoint.epoch.value_or(0);
  saved_step_ = checkpoint.step.value_or(0);
  (void)Improved({.loss = checkpoint.loss, .metrics = checkpoint.metrics});
}

Deadline CheckpointPolicy::FinalSaveDeadline() const {
  const int64_t at = requested_at.load();
  const SteadyTime from = at == 0 ? Now() : SteadyTime(std::chrono::nanoseconds(at));
  return Later(from, options_.final_save_within);
}

}  // namespace modelstore
