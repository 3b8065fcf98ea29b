// Time for intervals and deadlines in memory: steps of the wall clock do not move it.
#pragma once

#include <chrono>

#include "absl/time/clock.h"
#include "absl/time/time.h"

namespace modelstore {

// The time of the wall clock when the process first asked, and what the steady clock
// has counted since. Compared with itself alone: never shown, never stored.
inline absl::Time SteadyNow() {
  using Clock = std::chrono::steady_clock;
  static const absl::Time first = absl::Now();
  static const Clock::time_point first_steady = Clock::now();
  return first + absl::FromChrono(Clock::now() - first_steady);
}

}  // namespace modelstore
