// Reads tensors of one device as they are at the call that saves them, while the
// caller's kernels go on.
#pragma once

#include <memory>

#include "client/torch/device/copy_queue.h"
#include "modelstore/device_bytes.h"

namespace modelstore::device {

// Used by one thread; its sources by one other thread later.
class DeviceSave {
 public:
  DeviceSave(DeviceRuntime& runtime, int device) : runtime_(runtime), device_(device) {}

  // For a contiguous tensor of the device, which the source keeps. Nothing is read
  // before Begin() of this object.
  std::shared_ptr<ByteSource> SourceFor(const torch::Tensor& tensor);

  // Marks the place in the device's current stream after which all sources read: the
  // work queued by now is part of what they see. Throws what torch throws.
  void Begin();

 private:
  struct State;
  class Source;
  DeviceRuntime& runtime_;
  const int device_;
  std::shared_ptr<State> state_;
};

}  // namespace modelstore::device
