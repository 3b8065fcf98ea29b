#include "client/internal/retry.h"

#include <algorithm>
#include <optional>
#include <random>
#include <string>
#include <thread>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/time/time.h"
#include "proto/contract/errors.h"

namespace modelstore::internal {
namespace {

// A server that is away is to be found soon once it is back. One that answers that it
// is overloaded is there, and must not be asked by everybody at once.
constexpr int64_t kLongestBackoffMs = 2'000;
constexpr int64_t kLongestOverloadBackoffMs = 10'000;
constexpr absl::Duration kLongestDelay = absl::Hours(1);

int64_t RandomBetween(int64_t least, int64_t most) {
  thread_local std::minstd_rand random(std::random_device{}());
  return std::uniform_int_distribution<int64_t>(least, most)(random);
}

}  // namespace

Sleeper RealSleeper() {
  return [](std::chrono::milliseconds time) {
    std::this_thread::sleep_for(time);
    return true;
  };
}

bool IsTransient(const absl::Status& status) {
  if (absl::IsUnavailable(status) || absl::IsDeadlineExceeded(status)) return true;
  // A full disk does not pass by waiting. Older servers say so when they are overloaded.
  return absl::IsResourceExhausted(status) &&
         (RetryDelay(status).has_value() ||
          absl::StrContains(status.message(), "retry later"));
}

std::chrono::milliseconds Backoff::Next(const absl::Status& reason) {
  const std::optional<absl::Duration> asked = RetryDelay(reason);
  const bool overloaded = asked.has_value() || absl::IsResourceExhausted(reason);
  const int64_t least = absl::ToInt64Milliseconds(std::clamp(
      asked.value_or(absl::ZeroDuration()), absl::ZeroDuration(), kLongestDelay));
  // The clients that were refused together come back over as long a time as they waited.
  const int64_t longest = overloaded ? kLongestOverloadBackoffMs : kLongestBackoffMs;
  const int64_t current = std::min(current_ms_, longest);
  const int64_t wait = overloaded ? least + RandomBetween(0, std::max(current, least))
                                  : RandomBetween(current / 2, current);
  current_ms_ = std::min(current * 2, longest);
  return std::chrono::milliseconds(wait);
}

void RetryState::OnProgress() {
  backoff_.Reset();
  OnProgressElsewhere();
}

void RetryState::OnProgressElsewhere() { give_up_ = After(policy_.retry_timeout); }

absl::Status RetryState::OnFailure(const absl::Status& failure) {
  if (!IsTransient(failure)) return failure;
  const std::chrono::milliseconds wait = backoff_.Next(failure);
  if (After(wait) >= deadline_) {
    return absl::DeadlineExceededError(
        absl::StrCat("out of time; the last attempt: ", failure.message()));
  }
  if (After(wait) >= give_up_) {
    return Annotate(
        failure,
        absl::StrCat("given up after ", policy_.retry_timeout.count(), " ms of retries"));
  }
  if (!sleeper_(wait)) return absl::CancelledError("cancelled by the caller");
  return absl::OkStatus();
}

}  // namespace modelstore::internal
