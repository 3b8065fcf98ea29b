// DeviceLoad: fills tensors of one device. Bytes are received into page-locked slots,
// which the device copies on a separate stream while the next bytes are received.
#pragma once

#include <memory>
#include <string>

#include "client/torch/device/copy_queue.h"
#include "client/torch/device/pinned_pool.h"
#include "modelstore/device_bytes.h"

namespace modelstore::device {

// Used by one thread; its sinks may be used by any number of threads at once.
class DeviceLoad {
 public:
  // 16 slots of 4 MiB: several times the bytes received while the device copies one slot.
  static constexpr int kSlots = 16;

  // Create it after allocating the tensors: copies start after the work that is queued at
  // this call, so memory that a kernel still reads is not overwritten. Throws the
  // exceptions of torch.
  DeviceLoad(DeviceRuntime& runtime, int device, int slots = kSlots);
  // Waits up to 10 s for the copies. Sinks fail afterwards.
  ~DeviceLoad();
  DeviceLoad(const DeviceLoad&) = delete;
  DeviceLoad& operator=(const DeviceLoad&) = delete;

  // Returns a sink for a contiguous tensor of the device. The sink holds the tensor.
  std::shared_ptr<ByteSink> SinkFor(const torch::Tensor& tensor);

  // Waits until all delivered bytes are in their tensors. Returns the first error of any
  // copy, an error if `deadline` passed, or "" for success.
  std::string Finish(Deadline deadline);

 private:
  struct State;
  class Sink;
  std::shared_ptr<State> state_;
};

}  // namespace modelstore::device
