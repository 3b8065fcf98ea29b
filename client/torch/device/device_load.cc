#include "client/torch/device/device_load.h"

#include <atomic>
#include <mutex>
#include <utility>

#include "client/torch/device/error_text.h"

namespace modelstore::device {

// Shared with the sinks, which may outlive the DeviceLoad.
struct DeviceLoad::State {
  State(DeviceRuntime& runtime, int device, int slots)
      : queue(runtime, device), pool(PinnedPool::Make(runtime, device, slots)) {}

  // Records the first failure and returns `error`.
  std::string Note(std::string error) {
    const std::lock_guard<std::mutex> lock(mutex);
    if (failure.empty()) failure = error;
    return error;
  }

  CopyQueue queue;
  const std::shared_ptr<PinnedPool> pool;
  // Set by the destructor of DeviceLoad: sinks that outlive it fail.
  std::atomic<bool> closed{false};
  std::mutex mutex;
  std::string failure;  // guarded by mutex; the first one
};

class DeviceLoad::Sink final : public ByteSink {
 public:
  Sink(std::shared_ptr<State> state, const torch::Tensor& tensor)
      : state_(std::move(state)),
        tensor_(tensor),
        data_(static_cast<char*>(tensor.data_ptr())) {}

  Slot Reserve(size_t bytes, Deadline deadline) override {
    if (bytes > PinnedPool::kSlotBytes || state_->closed) return {};
    Slot slot;
    const std::string error = ErrorTextOf("taking page-locked memory", [&] {
      slot.data = state_->pool->Take(state_->queue, deadline);
      slot.size_bytes = PinnedPool::kSlotBytes;
    });
    if (error.empty() && slot.data != nullptr) return slot;
    state_->Note(error.empty() ? "the device let no page-locked memory go in time"
                               : error);
    return {};
  }

  std::string Deliver(Slot slot, size_t bytes, int64_t offset) override {
    if (state_->closed) return "the load is over";
    if (bytes > slot.size_bytes || offset < 0 ||
        offset + static_cast<int64_t>(bytes) > static_cast<int64_t>(tensor_.nbytes())) {
      return state_->Note("bytes beyond the tensor");
    }
    const void* const from = slot.data.get();
    // Holds the slot and the tensor until the copy has completed, also if the load is
    // abandoned.
    auto kept = std::make_shared<std::pair<std::shared_ptr<char>, torch::Tensor>>(
        std::move(slot.data), tensor_);
    const std::string error = ErrorTextOf("copying to the device", [&] {
      state_->queue.Copy(data_ + offset, from, bytes, CopyQueue::Direction::kToDevice,
                         std::move(kept));
    });
    return error.empty() ? error : state_->Note(error);
  }

 private:
  const std::shared_ptr<State> state_;
  const torch::Tensor tensor_;
  char* const data_;
};

DeviceLoad::DeviceLoad(DeviceRuntime& runtime, int device, int slots)
    : state_(std::make_shared<State>(runtime, device, slots)) {}

DeviceLoad::~DeviceLoad() {
  state_->closed = true;
  (void)Finish(std::chrono::steady_clock::now() + std::chrono::seconds(10));
}

std::shared_ptr<ByteSink> DeviceLoad::SinkFor(const torch::Tensor& tensor) {
  return std::make_shared<Sink>(state_, tensor);
}

std::string DeviceLoad::Finish(Deadline deadline) {
  bool over = false;
  const std::string error =
      ErrorTextOf("waiting for the device", [&] { over = state_->queue.Wait(deadline); });
  if (!error.empty()) state_->Note(error);
  if (error.empty() && !over) state_->Note("the device did not finish copying in time");
  const std::lock_guard<std::mutex> lock(state_->mutex);
  return state_->failure;
}

}  // namespace modelstore::device
