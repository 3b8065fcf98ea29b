// A speed limit for reading: tells how long to wait before the next step.
#pragma once

#include <algorithm>
#include <cstdint>

#include "absl/time/time.h"

namespace modelstore::server {

// Used by one thread at a time. Time that was not used is not made up for: after a
// pause it goes on at its speed, not faster.
class RateLimiter {
 public:
  // 0: as fast as it goes.
  explicit RateLimiter(int64_t bytes_per_second) : bytes_per_second_(bytes_per_second) {}

  absl::Duration Wait(absl::Time now) const {
    return std::max(next_ - now, absl::ZeroDuration());
  }
  void Spend(int64_t bytes, absl::Time now) {
    if (bytes_per_second_ == 0) return;
    next_ = std::max(next_, now) + absl::Seconds(static_cast<double>(bytes) /
                                                 static_cast<double>(bytes_per_second_));
  }
  // Of a step that does not wait for longer than a quarter of a second after it,
  // where chunks are small enough.
  int64_t StepBytes(int64_t most) const {
    if (bytes_per_second_ == 0) return most;
    return std::clamp<int64_t>(bytes_per_second_ / 4, 1, most);
  }

 private:
  const int64_t bytes_per_second_;
  absl::Time next_ = absl::InfinitePast();
};

}  // namespace modelstore::server
