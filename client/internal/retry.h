// Repeats a call that failed for a passing reason.
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

// Whether a call may be sent again although its effect is not known. A call that was
// refused for overload has had none and is always sent again.
enum class Idempotency { kIdempotent, kNotIdempotent };

struct RetryPolicy {
  // Longest time without any success before the failure is final.
  std::chrono::milliseconds retry_timeout;
  // Longest single attempt.
  std::chrono::milliseconds attempt_timeout;

  static RetryPolicy Of(const ConnectOptions& options) {
    return {options.retry_timeout, options.stall_timeout};
  }
};

// Sleeps for the time given; false if the work was cancelled meanwhile. Injected
// so that tests need no real time, and a cancelled save no patience.
using Sleeper = std::function<bool(std::chrono::milliseconds)>;
Sleeper RealSleeper();

// True for failures that a later attempt may not meet: the server is away, overloaded,
// restarting or reopening its storage, or the connection was cut or stalled.
bool IsTransient(const absl::Status& status);

// How long to wait before the next attempt: the delay that the server asks for, plus a
// random time, half of the backoff to all of it, which doubles from 50 ms to 2 s.
// Under overload: the delay that the server asks for, plus a random time up to the larger
// of that delay and the backoff, which doubles from 50 ms to 10 s.
class Backoff {
 public:
  std::chrono::milliseconds Next(const absl::Status& reason);
  void Reset() { current_ms_ = 50; }

 private:
  int64_t current_ms_ = 50;
};

// Decides, failure by failure, whether to go on. Progress starts the retry
// timeout and the backoff anew.
class RetryState {
 public:
  RetryState(const RetryPolicy& policy, Deadline deadline, Sleeper sleeper)
      : policy_(policy), deadline_(deadline), sleeper_(std::move(sleeper)) {
    OnProgress();
  }

  void OnProgress();
  // The n-th message of one attempt at a stream that is begun anew each time: progress
  // only if no earlier attempt had as many. Otherwise a call that crashes the server
  // would be repeated for ever. The time between two messages of an attempt is never
  // part of the retry timeout: a server that tells of its work is there.
  void OnMessage(int64_t nth);
  // Somebody else's success shows that the server works: starts the retry timeout anew,
  // and not the backoff.
  void OnProgressElsewhere();
  // Waits and returns OK if another attempt is due; else the final status.
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
  int64_t most_messages_ = 0;
};

inline const absl::Status& StatusOf(const absl::Status& s) { return s; }
template <typename T>
const absl::Status& StatusOf(const absl::StatusOr<T>& s) {
  return s.status();
}

// Calls `attempt(deadline)`, which returns a Status or a StatusOr, until it
// succeeds, fails for good, or time is up.
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
