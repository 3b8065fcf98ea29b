// Deadlines: points of the steady clock, which a step of the wall clock does not move,
// and the lengths of time they are made of. Every sum saturates: a timeout of
// std::chrono::hours::max() never ends, and a negative one is over at once.
//
//   handle.Durable(modelstore::After(std::chrono::minutes(10)));
//   handle.Durable(modelstore::Deadline::max());                    // no deadline
//   const modelstore::Deadline soon = modelstore::After(std::chrono::seconds(5));
//   client.GetCheckpoint(name, {.deadline = soon});                 // both in 5 s
//   client.ListTensors(name, {.deadline = soon});
//
// How time is given in this library:
//   A call that reaches the server has the member `deadline` in its options, the last
//     argument. It is a point in time, so that several calls can share one. Absent, which
//     is the default, it is a fixed time after each call begins, so that options can be
//     kept and used again:
//       150 s (ConnectOptions.retry_timeout, and stall_timeout for a last attempt) for
//         calls that the server answers at once, lists with all their pages included;
//       1 hour for transfers (saves, loads, LoadModel) and operations (ModifyCheckpoint,
//         VerifyCheckpoint, CompareCheckpoints, PruneCheckpoints, CollectGarbage).
//     Once it has passed, the call returns DEADLINE_EXCEEDED.
//   A wait for what was begun before (SaveHandle::Staged and Durable, LoadPlan::Run,
//     Client::Drain, ModelWatcher::Next) takes a Deadline as its argument: it has nothing
//     else to say, and no default would suit everybody.
//   Options that an object keeps (ConnectOptions, CheckpointPolicyOptions) hold a Timeout
//     for what begins again and again later.
#pragma once

#include <chrono>
#include <type_traits>

namespace modelstore {

using Deadline = std::chrono::steady_clock::time_point;

namespace internal {

// `d` in `To`, cut to what `To` can hold.
template <typename To, typename Rep, typename Period>
constexpr To SaturatingCast(std::chrono::duration<Rep, Period> d) {
  using Approximate = std::chrono::duration<long double, Period>;
  if (d != d) return To::zero();  // NaN
  if (Approximate(d) >= Approximate(To::max())) return To::max();
  if (Approximate(d) <= Approximate(To::min())) return To::min();
  return std::chrono::duration_cast<To>(d);
}

}  // namespace internal

// `from` and `d` later; Deadline::max() if that is beyond it. A negative `d` counts as
// zero.
template <typename Rep, typename Period>
Deadline Later(Deadline from, std::chrono::duration<Rep, Period> d) {
  using Step = Deadline::duration;
  const Step step = internal::SaturatingCast<Step>(d);
  if (step <= Step::zero()) return from;
  const bool beyond = from > Deadline() && step > Deadline::max() - from;
  return beyond ? Deadline::max() : from + step;
}

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
