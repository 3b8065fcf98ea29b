// Copies that a device makes by itself, and what they need until they are over.
#pragma once

#include <chrono>
#include <deque>
#include <memory>
#include <mutex>

#include "client/torch/device/device_runtime.h"

namespace modelstore::device {

using Deadline = std::chrono::steady_clock::time_point;

// Events cannot be waited for with a deadline: they are asked at this interval.
inline constexpr auto kPollInterval = std::chrono::microseconds(50);

// Thread-safe. Throws what the runtime throws.
class CopyQueue {
 public:
  using Direction = CopyStream::Direction;

  // Copies begin after the work that is queued now on the device's current stream.
  CopyQueue(DeviceRuntime& runtime, int device);
  // Waits for what is in flight, some seconds at most. What a device may still write to
  // after that is never freed: a leak is better than bytes in somebody else's memory.
  ~CopyQueue();

  // Queues one and returns. `kept` is let go of once it is over.
  void Copy(void* to, const void* from, size_t bytes, Direction direction,
            std::shared_ptr<void> kept);
  // Lets go of what finished copies held.
  void Poll();
  // Waits for every copy so far. False: they are not over by `deadline`.
  bool Wait(Deadline deadline);

 private:
  struct Copying {
    std::unique_ptr<CopyStream::Event> event;
    std::shared_ptr<void> kept;
  };

  const std::unique_ptr<CopyStream> stream_;
  std::mutex mutex_;
  std::deque<Copying> in_flight_;  // under mutex_; in the order of the stream
};

}  // namespace modelstore::device
