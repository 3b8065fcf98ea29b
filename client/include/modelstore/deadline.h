// Deadlines and timeouts. A Deadline is a time point of the steady clock, so changes of
// the wall clock do not affect it. Sums saturate: a timeout of std::chrono::hours::max()
// never expires, and a negative one expires at once.
//
//   handle.Durable(modelstore::After(std::chrono::minutes(10)));
//   handle.Durable(modelstore::Deadline::max());                    // no deadline
//   const modelstore::Deadline soon = modelstore::After(std::chrono::seconds(5));
//   client.GetCheckpoint(name, {.deadline = soon});                 // both in 5 s
//   client.ListTensors(name, {.deadline = soon});
//
// How deadlines are passed in this library:
//   A call to the server has a member `deadline` in its options, the last argument.
//     Several calls can share one deadline. If it is absent, which is the default, each
//     call has a fixed time from its start, so that options can be stored and reused:
//       150 s (ConnectOptions.retry_timeout plus stall_timeout for a last attempt) for
//         short calls, including lists with all their pages;
//       1 hour for transfers (saves, loads, LoadModel) and operations (ModifyCheckpoint,
//         VerifyCheckpoint, CompareCheckpoints, PruneCheckpoints, CollectGarbage).
//     The call returns DEADLINE_EXCEEDED once its deadline has passed.
//   Functions that wait for earlier work (SaveHandle::Staged and Durable, LoadPlan::Run,
//     Client::Drain, ModelWatcher::Next) take a Deadline as a required argument.
//   Options that an object stores (ConnectOptions, CheckpointPolicyOptions) hold a
//     Timeout, because it is applied repeatedly.
#pragma once

#include <chrono>
#include <type_traits>

namespace modelstore {

using Deadline = std::chrono::steady_clock::time_point;

namespace internal {

// Converts `d` to `To`, clamped to the range of `To`. NaN becomes zero.
template <typename To, typename Rep, typename Period>
constexpr To SaturatingCast(std::chrono::duration<Rep, Period> d) {
  using Approximate = std::chrono::duration<long double, Period>;
  if (d != d) return To::zero();  // NaN
  if (Approximate(d) >= Approximate(To::max())) return To::max();
  if (Approximate(d) <= Approximate(To::min())) return To::min();
  return std::chrono::duration_cast<To>(d);
}

}  // namespace internal

// Returns `from + d`, at most Deadline::max(). A negative `d` counts as zero.
template <typename Rep, typename Period>
Deadline Later(Deadline from, std::chrono::duration<Rep, Period> d) {
  using Step = Deadline::duration;
  const Step step = internal::SaturatingCast<Step>(d);
  if (step <= Step::zero()) return from;
  const bool beyond = from > Deadline() && step > Deadline::max() - from;
  return beyond ? Deadline::max() : from + step;
}

// Returns the deadline that is `d` from now.
template <typename Rep, typename Period>
Deadline After(std::chrono::duration<Rep, Period> d) {
  return Later(std::chrono::steady_clock::now(), d);
}

// A length of time in options, in milliseconds. Converts from any
// std::chrono::duration; values out of range saturate.
class Timeout : public std::chrono::milliseconds {
 public:
  constexpr explicit Timeout(rep milliseconds)
      : std::chrono::milliseconds(milliseconds) {}
  template <typename Rep, typename Period>
  // NOLINTNEXTLINE(google-explicit-constructor): as durations convert to each other.
  constexpr Timeout(std::chrono::duration<Rep, Period> d)
      : std::chrono::milliseconds(
            internal::SaturatingCast<std::chrono::milliseconds>(d)) {}
};

}  // namespace modelstore
