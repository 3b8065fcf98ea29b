// Implements DeviceRuntime with interfaces that every LibTorch has: c10's virtual guards,
// streams and events, and the generators of the context. Needs no CUDA headers; a
// LibTorch without CUDA reports no device.
#include <ATen/Context.h>
#include <c10/core/Event.h>
#include <c10/core/StreamGuard.h>
#include <c10/core/impl/VirtualGuardImpl.h>

#include <atomic>
#include <mutex>

#include "client/torch/device/device_memory.h"
#include "client/torch/device/device_runtime.h"

namespace modelstore::device {
namespace {

torch::Device Cuda(int device) {
  return torch::Device(torch::kCUDA, static_cast<c10::DeviceIndex>(device));
}

class TorchEvent final : public CopyStream::Event {
 public:
  explicit TorchEvent(const c10::Stream& stream) : event_(c10::kCUDA) {
    event_.record(stream);
  }
  bool Done() override { return event_.query(); }

 private:
  c10::Event event_;
};

class TorchStream final : public CopyStream {
 public:
  explicit TorchStream(int device)
      : device_(Cuda(device)),
        stream_(
            c10::impl::VirtualGuardImpl(c10::kCUDA).getStreamFromGlobalPool(device_)) {
    // Makes the stream wait for the work that is queued on the current stream.
    const c10::impl::VirtualGuardImpl guard(c10::kCUDA);
    c10::Event queued(c10::kCUDA);
    queued.record(guard.getStream(device_));
    queued.block(stream_);
  }

  void Copy(void* to, const void* from, size_t bytes, Direction direction) override {
    const bool to_device = direction == Direction::kToDevice;
    const auto view = [&](void* data, bool on_device) {
      return torch::from_blob(
          data, {static_cast<int64_t>(bytes)},
          torch::TensorOptions(torch::kByte).device(on_device ? device_ : torch::kCPU));
    };
    // A non-blocking copy_() between page-locked and device memory is asynchronous.
    const c10::StreamGuard guard(stream_);
    view(to, to_device).copy_(view(const_cast<void*>(from), !to_device), true);
  }

  std::unique_ptr<Event> Record() override {
    return std::make_unique<TorchEvent>(stream_);
  }

 private:
  const torch::Device device_;
  const c10::Stream stream_;
};

class TorchRuntime final : public DeviceRuntime {
 public:
  int DeviceCount() override { return static_cast<int>(torch::cuda::device_count()); }

  int CurrentDevice() override {
    return c10::impl::VirtualGuardImpl(c10::kCUDA).getDevice().index();
  }

  int DeviceOf(const torch::Tensor& tensor) override {
    return tensor.is_cuda() ? tensor.device().index() : -1;
  }

  std::optional<Memory> MemoryOf(int device) override {
    const auto memory = CudaMemory(device);
    if (!memory) return std::nullopt;
    return Memory{memory->first, memory->second};
  }

  torch::Tensor Empty(c10::IntArrayRef shape, torch::ScalarType type,
                      int device) override {
    return torch::empty(shape, torch::TensorOptions(type).device(Cuda(device)));
  }

  std::shared_ptr<char> AllocatePinned(size_t bytes, int device) override {
    // Page-locking uses the context of the current device; without the guard it would
    // create one on GPU 0.
    const c10::DeviceGuard guard(Cuda(device));
    auto tensor = std::make_shared<torch::Tensor>(
        torch::empty({static_cast<int64_t>(bytes)},
                     torch::TensorOptions(torch::kByte).pinned_memory(true)));
    return std::shared_ptr<char>(tensor, static_cast<char*>(tensor->data_ptr()));
  }

  std::unique_ptr<CopyStream> OpenStream(int device) override {
    return std::make_unique<TorchStream>(device);
  }

  torch::Tensor RngState(int device) override {
    at::Generator generator = at::globalContext().defaultGenerator(Cuda(device));
    const std::lock_guard<std::mutex> lock(generator.mutex());
    return generator.get_state();
  }

  void SetRngState(int device, const torch::Tensor& state) override {
    at::Generator generator = at::globalContext().defaultGenerator(Cuda(device));
    const std::lock_guard<std::mutex> lock(generator.mutex());
    generator.set_state(state.to(torch::kCPU).contiguous());
  }
};

// Set by ScopedRuntime.
std::atomic<DeviceRuntime*> in_its_place{nullptr};

}  // namespace

DeviceRuntime& Runtime() {
  if (DeviceRuntime* other = in_its_place.load()) return *other;
  static TorchRuntime* const runtime = new TorchRuntime();
  return *runtime;
}

ScopedRuntime::ScopedRuntime(DeviceRuntime* runtime) { in_its_place = runtime; }
ScopedRuntime::~ScopedRuntime() { in_its_place = nullptr; }

}  // namespace modelstore::device
