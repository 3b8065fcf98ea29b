// A bounded number of page-locked buffers that a load passes through.
#pragma once

#include <memory>
#include <mutex>
#include <vector>

#include "client/torch/device/copy_queue.h"
#include "modelstore/device_bytes.h"

namespace modelstore::device {

// Thread-safe. A slot is free again when nobody holds it: neither who fills it nor the
// copy out of it.
class PinnedPool : public std::enable_shared_from_this<PinnedPool> {
 public:
  static constexpr size_t kSlotBytes = ByteSink::kMaxBytes;

  static std::shared_ptr<PinnedPool> Make(DeviceRuntime& runtime, int device,
                                          int max_slots);

  // Null if all are held until `deadline`. `queue` is asked meanwhile which copies are
  // over. Throws what the runtime throws.
  std::shared_ptr<char> Take(CopyQueue& queue, Deadline deadline);

 private:
  PinnedPool(DeviceRuntime& runtime, int device, int max_slots)
      : runtime_(runtime), device_(device), max_slots_(max_slots) {}
  std::shared_ptr<char> TakeFree();

  DeviceRuntime& runtime_;
  const int device_;
  const int max_slots_;
  std::mutex mutex_;
  int slots_ = 0;                            // under mutex_
  std::vector<std::shared_ptr<char>> free_;  // under mutex_
};

}  // namespace modelstore::device
