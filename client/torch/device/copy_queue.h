// CopyQueue: asynchronous copies on one device, and the objects they need until they
// complete.
#pragma once

#include <chrono>
#include <deque>
#include <memory>
#include <mutex>

#include "client/torch/device/device_runtime.h"

namespace modelstore::device {

using Deadline = std::chrono::steady_clock::time_point;

// Events cannot be waited for with a deadline, so they are polled at this interval.
inline constexpr auto kPollInterval = std::chrono::microseconds(50);

// Thread-safe. Throws the exceptions of the runtime.
class CopyQueue {
 public:
  using Direction = CopyStream::Direction;

  // Copies start after the work that is queued now on the device's current stream.
  CopyQueue(DeviceRuntime& runtime, int device);
  // Waits for copies in flight, at most 10 s. Memory that the device may still write to
  // after that is leaked, because freeing it would corrupt its next owner.
  ~CopyQueue();

  // Queues a copy and returns. `kept` is released after the copy has completed, by Poll()
  // or Wait().
  void Copy(void* to, const void* from, size_t bytes, Direction direction,
            std::shared_ptr<void> kept);
  // Releases the objects of completed copies. Does not wait.
  void Poll();
  // Waits for all copies so far. Returns false if they are not complete by `deadline`.
  bool Wait(Deadline deadline);

 private:
  struct Copying {
    std::unique_ptr<CopyStream::Event> event;
    std::shared_ptr<void> kept;
  };

  const std::unique_ptr<CopyStream> stream_;
  std::mutex mutex_;
  std::deque<Copying> in_flight_;  // guarded by mutex_; in stream order
};

}  // namespace modelstore::device
