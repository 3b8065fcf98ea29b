// A limit on the rate of reading. It does not sleep: it returns how long to wait before
// the next step.
#pragma once

#include <algorithm>
#include <cstdint>

#include "absl/time/time.h"

namespace modelstore::server {

// Used by one thread at a time. Times are of the steady clock. Idle time gives no credit:
// after a pause the rate is the same as before, without a burst.
class RateLimiter {
 public:
  // 0: no limit.
  explicit RateLimiter(int64_t bytes_per_second) : bytes_per_second_(bytes_per_second) {}

  // Time from `now` until the next step may start.
  absl::Duration Wait(absl::Time now) const {
    return std::max(next_ - now, absl::ZeroDuration());
  }
  // Records a step that read `bytes` and ended at `now`.
  void Spend(int64_t bytes, absl::Time now) {
    if (bytes_per_second_ == 0) return;
    next_ = std::max(next_, now) + absl::Seconds(static_cast<double>(bytes) /
                                                 static_cast<double>(bytes_per_second_));
  }
  // Returns how many bytes the next step should read, at most `most`: what the limit
  // allows in a quarter of a second, so that no wait is longer. A step reads whole
  // chunks, so large chunks at a low rate exceed it.
  int64_t StepBytes(int64_t most) const {
    if (bytes_per_second_ == 0) return most;
    return std::clamp<int64_t>(bytes_per_second_ / 4, 1, most);
  }

 private:
  const int64_t bytes_per_second_;
  absl::Time next_ = absl::InfinitePast();
};

}  // namespace modelstore::server
