// DeviceSave: reads tensors of one device with their values at the start of the save,
// while the caller's later kernels run.
#pragma once

#include <memory>

#include "client/torch/device/copy_queue.h"
#include "modelstore/device_bytes.h"

namespace modelstore::device {

// Used by one thread; its sources are used by one other thread after Begin().
class DeviceSave {
 public:
  DeviceSave(DeviceRuntime& runtime, int device) : runtime_(runtime), device_(device) {}

  // Returns a source for a contiguous tensor of the device. The source holds the tensor.
  // It can be read after Begin() of this object.
  std::shared_ptr<ByteSource> SourceFor(const torch::Tensor& tensor);

  // Sets the point in the device's current stream at which all sources read: after the
  // work that is queued now. Throws the exceptions of torch.
  void Begin();

 private:
  struct State;
  class Source;
  DeviceRuntime& runtime_;
  const int device_;
  std::shared_ptr<State> state_;
};

}  // namespace modelstore::device
