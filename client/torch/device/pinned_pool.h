// PinnedPool: a bounded pool of page-locked buffers for one load.
#pragma once

#include <memory>
#include <mutex>
#include <vector>

#include "client/torch/device/copy_queue.h"
#include "modelstore/device_bytes.h"

namespace modelstore::device {

// Thread-safe. A slot returns to the pool when its last reference is dropped, by the
// receiver or by the copy out of it. Slots keep the pool alive.
class PinnedPool : public std::enable_shared_from_this<PinnedPool> {
 public:
  static constexpr size_t kSlotBytes = ByteSink::kMaxBytes;

  static std::shared_ptr<PinnedPool> Make(DeviceRuntime& runtime, int device,
                                          int max_slots);

  // Returns a slot, or null if none becomes free by `deadline`. Polls `queue` while
  // waiting, because completed copies release slots. Throws the exceptions of the
  // runtime.
  std::shared_ptr<char> Take(CopyQueue& queue, Deadline deadline);

 private:
  PinnedPool(DeviceRuntime& runtime, int device, int max_slots)
      : runtime_(runtime), device_(device), max_slots_(max_slots) {}
  std::shared_ptr<char> TakeFree();

  DeviceRuntime& runtime_;
  const int device_;
  const int max_slots_;
  std::mutex mutex_;
  int slots_ = 0;                            // allocated; guarded by mutex_
  std::vector<std::shared_ptr<char>> free_;  // guarded by mutex_
};

}  // namespace modelstore::device
