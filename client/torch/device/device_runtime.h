// DeviceRuntime: the operations on devices that loads and saves need. TorchRuntime
// implements them for GPUs; tests replace it with a fake that counts, delays and fails.
//
// This directory includes torch and the standard library only, so that tests/gpu/run can
// build it on machines that have nothing else. Functions throw c10::Error, as torch does;
// the classes of this directory convert it to text before it reaches other directories.
#pragma once

#include <torch/torch.h>

#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>

namespace modelstore::device {

// A stream of copies on one device. They run in order, concurrently with its other work.
class CopyStream {
 public:
  // Marks the copies that were queued before it was recorded.
  class Event {
   public:
    virtual ~Event() = default;
    // Whether these copies have completed. Does not wait.
    virtual bool Done() = 0;
  };

  virtual ~CopyStream() = default;
  enum class Direction : uint8_t { kToDevice, kToHost };
  // Queues a copy between page-locked memory and device memory, and returns. Both must
  // stay valid until an event that is recorded afterwards is done.
  virtual void Copy(void* to, const void* from, size_t bytes, Direction direction) = 0;
  virtual std::unique_ptr<Event> Record() = 0;
};

// Thread-safe. Initializes or uses no device other than the one given.
class DeviceRuntime {
 public:
  struct Memory {
    int64_t free = 0;  // bytes available to an allocation
    int64_t total = 0;
  };

  virtual ~DeviceRuntime() = default;
  // 0 if there is no usable device.
  virtual int DeviceCount() = 0;
  // The current device of this thread, which `cuda` refers to.
  virtual int CurrentDevice() = 0;
  // The device of the tensor; -1 for the CPU.
  virtual int DeviceOf(const torch::Tensor& tensor) = 0;
  // Nullopt if it is unknown.
  virtual std::optional<Memory> MemoryOf(int device) = 0;
  // Returns an uninitialized contiguous tensor from torch's allocator of the device.
  virtual torch::Tensor Empty(c10::IntArrayRef shape, torch::ScalarType type,
                              int device) = 0;
  // Returns page-locked memory, which is returned to torch's cache when released.
  virtual std::shared_ptr<char> AllocatePinned(size_t bytes, int device) = 0;
  // Returns a stream whose copies start after the work that is queued now on the device's
  // current stream (of this thread).
  virtual std::unique_ptr<CopyStream> OpenStream(int device) = 0;
  // The state of the device's random number generator, a uint8 tensor on the CPU.
  virtual torch::Tensor RngState(int device) = 0;
  virtual void SetRngState(int device, const torch::Tensor& state) = 0;
};

// Returns the runtime in use: TorchRuntime, unless a test has replaced it.
DeviceRuntime& Runtime();

// For tests: replaces the runtime during the lifetime of this object. `runtime` is not
// owned. At most one at a time.
class ScopedRuntime {
 public:
  explicit ScopedRuntime(DeviceRuntime* runtime);
  ~ScopedRuntime();
  ScopedRuntime(const ScopedRuntime&) = delete;
  ScopedRuntime& operator=(const ScopedRuntime&) = delete;
};

}  // namespace modelstore::device
