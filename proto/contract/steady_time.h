// Monotonic time for intervals and deadlines in memory.
#pragma once

#include <chrono>

#include "absl/time/clock.h"
#include "absl/time/time.h"

namespace modelstore {

// The wall clock's time at the first call plus the monotonic time since then. Not
// affected by steps of the wall clock. Only for comparisons with itself: never displayed
// or stored.
inline absl::Time SteadyNow() {
  using Clock = std::chrono::steady_clock;
  static const absl::Time first = absl::Now();
  static const Clock::time_point first_steady = Clock::now();
  return first + absl::FromChrono(Clock::now() - first_steady);
}

}  // namespace modelstore
