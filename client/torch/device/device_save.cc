#include "client/torch/device/device_save.h"

#include <optional>
#include <utility>

#include "client/torch/device/error_text.h"

namespace modelstore::device {

// Shared with the sources, which outlive the DeviceSave. Begin() sets `queue` before the
// sources are handed to another thread.
struct DeviceSave::State {
  DeviceRuntime& runtime;
  const int device;
  std::optional<CopyQueue> queue;  // set by Begin()
};

class DeviceSave::Source final : public ByteSource {
 public:
  Source(std::shared_ptr<State> state, const torch::Tensor& tensor)
      : state_(std::move(state)), tensor_(tensor) {}

  std::shared_ptr<char> AllocateStaging(size_t bytes) override {
    std::shared_ptr<char> room;
    // The caller reports the failure, with the size.
    (void)ErrorTextOf("page-locking memory", [&] {
      room = state_->runtime.AllocatePinned(bytes, state_->device);
    });
    return room;
  }

  std::string Begin(int64_t offset, size_t bytes, char* to,
                    std::shared_ptr<char> room) override {
    if (!state_->queue) return "reading before the save has begun";
    // Holds the destination and the tensor until the copy has completed.
    auto kept = std::make_shared<std::pair<std::shared_ptr<char>, torch::Tensor>>(
        std::move(room), tensor_);
    return ErrorTextOf("copying from the device", [&] {
      state_->queue->Copy(to, static_cast<const char*>(tensor_.data_ptr()) + offset,
                          bytes, CopyQueue::Direction::kToHost, std::move(kept));
    });
  }

  std::string Wait(Deadline deadline) override {
    bool over = false;
    const std::string error = ErrorTextOf("waiting for the device",
                                          [&] { over = state_->queue->Wait(deadline); });
    if (!error.empty()) return error;
    return over ? "" : "the device did not finish copying in time";
  }

 private:
  const std::shared_ptr<State> state_;
  const torch::Tensor tensor_;
};

std::shared_ptr<ByteSource> DeviceSave::SourceFor(const torch::Tensor& tensor) {
  if (state_ == nullptr) state_.reset(new State{runtime_, device_, std::nullopt});
  return std::make_shared<Source>(state_, tensor);
}

void DeviceSave::Begin() {
  if (state_ != nullptr) state_->queue.emplace(runtime_, device_);
}

}  // namespace modelstore::device
