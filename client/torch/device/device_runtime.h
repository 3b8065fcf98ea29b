// What loads and saves ask of devices: the seam under client/torch/device. TorchRuntime
// answers for GPUs; the tests put a fake in its place that counts, delays and fails.
//
// This folder includes torch and the standard library alone: tests/gpu/run builds it on
// machines that have nothing else. What fails throws c10::Error, as torch does; the
// folder's own classes turn that into text before it reaches another room.
#pragma once

#include <torch/torch.h>

#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>

namespace modelstore::device {

// Copies of one device that run one after the other, beside its other work.
class CopyStream {
 public:
  // Everything queued before it was recorded.
  class Event {
   public:
    virtual ~Event() = default;
    // Whether that is over. Does not wait.
    virtual bool Done() = 0;
  };

  virtual ~CopyStream() = default;
  // Queues a copy between page-locked memory and the device's, and returns. Both stay
  // until an event recorded afterwards is done.
  enum class Direction : uint8_t { kToDevice, kToHost };
  virtual void Copy(void* to, const void* from, size_t bytes, Direction direction) = 0;
  virtual std::unique_ptr<Event> Record() = 0;
};

// Thread-safe. Touches no device but the one that a call names.
class DeviceRuntime {
 public:
  struct Memory {
    int64_t free = 0;  // what an allocation can use
    int64_t total = 0;
  };

  virtual ~DeviceRuntime() = default;
  // 0: there is no usable device.
  virtual int DeviceCount() = 0;
  // What plain `cuda` means in this thread.
  virtual int CurrentDevice() = 0;
  // The device that the tensor lies on; -1 for the CPU.
  virtual int DeviceOf(const torch::Tensor& tensor) = 0;
  // Absent where it cannot be found out.
  virtual std::optional<Memory> MemoryOf(int device) = 0;
  // Uninitialised, contiguous, from the allocator that torch uses on the device.
  virtual torch::Tensor Empty(c10::IntArrayRef shape, torch::ScalarType type,
                              int device) = 0;
  // Page-locked. Returned to torch's own cache of such memory.
  virtual std::shared_ptr<char> AllocatePinned(size_t bytes, int device) = 0;
  // A stream that begins once the work is done that is queued now, on the device's
  // current stream of this thread.
  virtual std::unique_ptr<CopyStream> OpenStream(int device) = 0;
  // The state of the device's random number generator, a uint8 tensor on the CPU.
  virtual torch::Tensor RngState(int device) = 0;
  virtual void SetRngState(int device, const torch::Tensor& state) = 0;
};

// The one in use: TorchRuntime, unless a test has put another in its place.
DeviceRuntime& Runtime();

// For tests: `runtime`, not owned, serves while this object lives. One at a time.
class ScopedRuntime {
 public:
  explicit ScopedRuntime(DeviceRuntime* runtime);
  ~ScopedRuntime();
  ScopedRuntime(const ScopedRuntime&) = delete;
  ScopedRuntime& operator=(const ScopedRuntime&) = delete;
};

}  // namespace modelstore::device
