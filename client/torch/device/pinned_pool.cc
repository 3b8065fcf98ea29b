#include "client/torch/device/pinned_pool.h"

#include <thread>
#include <utility>

namespace modelstore::device {

std::shared_ptr<PinnedPool> PinnedPool::Make(DeviceRuntime& runtime, int device,
                                             int max_slots) {
  return std::shared_ptr<PinnedPool>(new PinnedPool(runtime, device, max_slots));
}

std::shared_ptr<char> PinnedPool::Take(CopyQueue& queue, Deadline deadline) {
  while (true) {
    queue.Poll();
    if (std::shared_ptr<char> slot = TakeFree()) return slot;
    if (std::chrono::steady_clock::now() >= deadline) return nullptr;
    std::this_thread::sleep_for(kPollInterval);
  }
}

std::shared_ptr<char> PinnedPool::TakeFree() {
  std::shared_ptr<char> memory;
  {
    const std::lock_guard<std::mutex> lock(mutex_);
    if (!free_.empty()) {
      memory = std::move(free_.back());
      free_.pop_back();
    } else if (slots_ == max_slots_) {
      return nullptr;
    } else {
      memory = runtime_.AllocatePinned(kSlotBytes, device_);
      ++slots_;
    }
  }
  // The deleter returns the memory to the pool instead of freeing it.
  char* const data = memory.get();
  return std::shared_ptr<char>(
      data, [pool = shared_from_this(), memory = std::move(memory)](char*) mutable {
        const std::lock_guard<std::mutex> lock(pool->mutex_);
        pool->free_.push_back(std::move(memory));
      });
}

}  // namespace modelstore::device
