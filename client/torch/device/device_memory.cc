// LibTorch up to 2.8 reports free device memory only through CUDA's headers, which this
// library must build without. So this file, and no other, looks up a symbol at run time:
// `cudaMemGetInfo` of the CUDA runtime that torch has loaded, otherwise `cuMemGetInfo_v2`
// of the driver. Both have had the same signature since CUDA 3.2. No library is loaded.
#include "client/torch/device/device_memory.h"

#include <dlfcn.h>
#include <torch/torch.h>

#if __has_include(<c10/core/CachingDeviceAllocator.h>)
#include <c10/core/CachingDeviceAllocator.h>
#define MODELSTORE_TORCH_TELLS_RESERVED \
  (TORCH_VERSION_MAJOR > 2 || (TORCH_VERSION_MAJOR == 2 && TORCH_VERSION_MINOR >= 9))
#else
#define MODELSTORE_TORCH_TELLS_RESERVED 0
#endif

namespace modelstore::device {
namespace {

using GetInfo = int (*)(size_t* free, size_t* total);

// Looks up `symbol` in `library` and its dependencies; null if it is not loaded.
GetInfo Find(const char* library, const char* symbol) {
  // RTLD_NOLOAD returns a handle only if the library is loaded. It is never closed,
  // because the function pointer is kept.
  void* const handle = dlopen(library, RTLD_LAZY | RTLD_NOLOAD);
  return handle ? reinterpret_cast<GetInfo>(dlsym(handle, symbol)) : nullptr;
}

GetInfo FindGetInfo() {
  // dlsym() also searches dependencies, so this finds the runtime of any version.
  if (GetInfo found = Find("libc10_cuda.so", "cudaMemGetInfo")) return found;
  return Find("libcuda.so.1", "cuMemGetInfo_v2");
}

// Bytes that torch's allocator has reserved and does not use; 0 if unknown.
int64_t HeldByTorch(int device) {
#if MODELSTORE_TORCH_TELLS_RESERVED
  c10::DeviceAllocator* const allocator = c10::getDeviceAllocator(c10::kCUDA);
  if (!allocator->initialized()) return 0;
  const auto stats = allocator->getDeviceStats(static_cast<c10::DeviceIndex>(device));
  const auto all = static_cast<size_t>(c10::CachingAllocator::StatType::AGGREGATE);
  return stats.reserved_bytes[all].current - stats.active_bytes[all].current;
#else
  (void)device;
  return 0;
#endif
}

}  // namespace

std::optional<std::pair<int64_t, int64_t>> CudaMemory(int device) {
  static const GetInfo get_info = FindGetInfo();
  if (get_info == nullptr) return std::nullopt;
  const c10::DeviceGuard guard(
      torch::Device(torch::kCUDA, static_cast<c10::DeviceIndex>(device)));
  size_t free = 0, total = 0;
  if (get_info(&free, &total) != 0) return std::nullopt;
  return std::pair(static_cast<int64_t>(free) + HeldByTorch(device),
                   static_cast<int64_t>(total));
}

}  // namespace modelstore::device
