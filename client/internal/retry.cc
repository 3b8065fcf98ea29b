#include "client/internal/retry.h"

#include <algorithm>
#include <random>
#include <string>
#include <thread>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/time/time.h"
#include "proto/contract/errors.h"

namespace modelstore::internal {
namespace {

// Short while the server is unreachable, so that clients reconnect soon after it returns.
// Longer under overload, so that clients do not all return at once.
constexpr int64_t kLongestBackoffMs = 2'000;
constexpr int64_t kLongestOverloadBackoffMs = 10'000;
constexpr absl::Duration kLongestDelay = absl::Hours(1);

int64_t RandomBetween(int64_t least, int64_t most) {
  thread_local std::minstd_rand random(std::random_device{}());
  return std::uniform_int_distribution<int64_t>(least, most)(random);
}

// The delay that the server requests; zero if none.
std::chrono::milliseconds ServerRetryDelay(const absl::Status& status) {
  const absl::Duration asked = RetryDelay(status).value_or(absl::ZeroDuration());
  return absl::ToChronoMilliseconds(
      std::clamp(asked, absl::ZeroDuration(), kLongestDelay));
}

}  // namespace

Sleeper DefaultSleeper() {
  return [](std::chrono::milliseconds time) {
    std::this_thread::sleep_for(time);
    return true;
  };
}

bool IsTransient(const absl::Status& status) {
  if (absl::IsUnavailable(status) || absl::IsDeadlineExceeded(status)) return true;
  // A full disk is permanent. Older servers report overload with this code and a message.
  return absl::IsResourceExhausted(status) &&
         (RetryDelay(status).has_value() ||
          absl::StrContains(status.message(), "retry later"));
}

std::chrono::milliseconds Backoff::Next(const absl::Status& reason) {
  const bool overloaded = IsOverloaded(reason) || absl::IsResourceExhausted(reason);
  const int64_t asked = ServerRetryDelay(reason).count();
  const int64_t longest = overloaded ? kLongestOverloadBackoffMs : kLongestBackoffMs;
  const int64_t current = std::min(current_ms_, longest);
  // Jitter as large as the delay spreads clients that were refused at the same time.
  const int64_t wait = asked + (overloaded ? RandomBetween(0, std::max(current, asked))
                                           : RandomBetween(current / 2, current));
  current_ms_ = std::min(current * 2, longest);
  return std::chrono::milliseconds(wait);
}

void RetryState::OnProgress() {
  backoff_.Reset();
  OnOtherStreamProgress();
}

void RetryState::OnMessage(int64_t nth) {
  const Deadline now = std::chrono::steady_clock::now();
  if (nth > max_messages_) {
    max_messages_ = nth;
    OnProgress();
  } else if (nth > 1) {
    give_up_ = Later(give_up_, now - last_message_);
  }
  last_message_ = now;
}

void RetryState::OnOtherStreamProgress() { give_up_ = After(policy_.retry_timeout); }

absl::Status RetryState::OnFailure(const absl::Status& failure) {
  if (!IsTransient(failure)) return failure;
  const std::chrono::milliseconds asked = ServerRetryDelay(failure);
  std::chrono::milliseconds wait = backoff_.Next(failure);
  // If the jitter does not fit in the remaining time, wait only as long as requested.
  const Deadline end = std::min(deadline_, give_up_);
  if (asked.count() > 0 && After(wait) >= end && After(asked) < end) wait = asked;
  if (After(wait) >= deadline_) {
    return absl::DeadlineExceededError(
        absl::StrCat("deadline exceeded; the last attempt: ", failure.message()));
  }
  if (After(wait) >= give_up_) {
    const int64_t timeout_ms = policy_.retry_timeout.count();
    const bool asks_for_more = asked.count() > 0 && After(asked) >= give_up_;
    return Annotate(
        failure,
        asks_for_more
            ? absl::StrCat("the next attempt would be later than the retry timeout of ",
                           timeout_ms, " ms")
            : absl::StrCat("given up after ", timeout_ms, " ms of retries"));
  }
  if (!sleeper_(wait)) return absl::CancelledError("cancelled by the caller");
  return absl::OkStatus();
}

}  // namespace modelstore::internal
