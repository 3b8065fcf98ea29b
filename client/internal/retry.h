// Repeats a call after transient failures.
//
//   absl::StatusOr<std::string> answer = Retry(
//       policy, Idempotency::kIdempotent, deadline, sleeper,
//       [&](Deadline attempt) { return connection.Call(method, request, attempt); });
#pragma once

#include <algorithm>
#include <chrono>
#include <functional>
#include <utility>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "modelstore/options.h"
#include "proto/contract/errors.h"

namespace modelstore::internal {

// Whether a call may be repeated if it is unknown whether it took effect. A call refused
// because of overload had no effect and is always repeated.
enum class Idempotency { kIdempotent, kNotIdempotent };

struct RetryPolicy {
  // Maximum time without progress before a failure is final.
  std::chrono::milliseconds retry_timeout;
  // Maximum duration of one attempt.
  std::chrono::milliseconds attempt_timeout;

  static RetryPolicy Of(const ConnectOptions& options) {
    return {options.retry_timeout, options.stall_timeout};
  }
};

// Sleeps for the given time. False if the work was cancelled meanwhile. Injected, so that
// tests run without delays and a cancelled save ends at once.
using Sleeper = std::function<bool(std::chrono::milliseconds)>;
Sleeper DefaultSleeper();

// Whether a later attempt may succeed: the server is unreachable, overloaded, restarting
// or reopening its storage, or the connection broke or stalled.
bool IsTransient(const absl::Status& status);

// Delay before the next attempt: the delay that the server requests, plus a random time
// between half of the backoff and all of it. The backoff doubles from 50 ms to 2 s. Under
// overload the random time is up to the larger of the requested delay and the backoff,
// which then doubles up to 10 s.
class Backoff {
 public:
  std::chrono::milliseconds Next(const absl::Status& reason);
  void Reset() { current_ms_ = 50; }

 private:
  int64_t current_ms_ = 50;
};

// Decides after each failure whether to retry. Progress resets the retry timeout and the
// backoff. Used by one thread.
class RetryState {
 public:
  RetryState(const RetryPolicy& policy, Deadline deadline, Sleeper sleeper)
      : policy_(policy), deadline_(deadline), sleeper_(std::move(sleeper)) {
    OnProgress();
  }

  void OnProgress();
  // Called for the n-th message of an attempt that starts from the beginning each time.
  // It is progress only if no earlier attempt had as many messages; otherwise a call that
  // crashes the server would be repeated forever. Time between two messages of an attempt
  // does not count towards the retry timeout, as the server is working.
  void OnMessage(int64_t nth);
  // Another stream made progress, so the server works: resets the retry timeout but not
  // the backoff.
  void OnOtherStreamProgress();
  // Waits and returns OK if another attempt is to be made, else the final status.
  absl::Status OnFailure(const absl::Status& failure);
  Deadline AttemptDeadline() const {
    return std::min(deadline_, After(policy_.attempt_timeout));
  }
  Deadline deadline() const { return deadline_; }

 private:
  const RetryPolicy policy_;
  const Deadline deadline_;
  const Sleeper sleeper_;
  Backoff backoff_;
  Deadline give_up_;
  Deadline last_message_;
  int64_t max_messages_ = 0;
};

inline const absl::Status& StatusOf(const absl::Status& s) { return s; }
template <typename T>
const absl::Status& StatusOf(const absl::StatusOr<T>& s) {
  return s.status();
}

// Calls `attempt(deadline)`, which returns a Status or a StatusOr, until it succeeds,
// fails permanently, or the time is over.
template <typename F>
auto Retry(const RetryPolicy& policy, Idempotency idempotency, Deadline deadline,
           Sleeper sleeper, F&& attempt) -> decltype(attempt(deadline)) {
  RetryState state(policy, deadline, std::move(sleeper));
  while (true) {
    auto result = attempt(state.AttemptDeadline());
    const absl::Status& status = StatusOf(result);
    const bool repeatable =
        idempotency == Idempotency::kIdempotent || IsOverloaded(status);
    if (status.ok() || !repeatable) return result;
    absl::Status final = state.OnFailure(status);
    if (!final.ok()) return final;
  }
}

}  // namespace modelstore::internal
