// Fills tensors of one device: bytes are received into page-locked slots, and the
// device copies them out on a stream of its own while the next ones come.
#pragma once

#include <memory>
#include <string>

#include "client/torch/device/copy_queue.h"
#include "client/torch/device/pinned_pool.h"
#include "modelstore/device_bytes.h"

namespace modelstore::device {

// Used by one thread; its sinks by any number at once.
class DeviceLoad {
 public:
  // 64 MiB: several times what is received while the device copies one slot.
  static constexpr int kSlots = 16;

  // Make it after the tensors: copies begin once the work queued by then is done, so
  // that memory which a kernel still reads is not written. Throws what torch throws.
  DeviceLoad(DeviceRuntime& runtime, int device, int slots = kSlots);
  // Waits for the copies; afterwards no sink copies any more.
  ~DeviceLoad();
  DeviceLoad(const DeviceLoad&) = delete;
  DeviceLoad& operator=(const DeviceLoad&) = delete;

  // For a contiguous tensor of the device, which the sink keeps.
  std::shared_ptr<ByteSink> SinkFor(const torch::Tensor& tensor);

  // Waits until everything delivered is in its tensor. The first error of any copy, or
  // that `deadline` passed; "" if all is well.
  std::string Finish(Deadline deadline);

 private:
  struct State;
  class Sink;
  std::shared_ptr<State> state_;
};

}  // namespace modelstore::device
