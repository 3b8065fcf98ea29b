// The only file that looks for symbols of libraries which it does not link. No LibTorch
// up to 2.8 tells free device memory without CUDA's headers, and their presence would
// decide where this library can be built. Asked for are `cudaMemGetInfo` of the CUDA
// runtime that torch itself has loaded, else `cuMemGetInfo_v2` of the driver; both have
// had the same signature since CUDA 3.2. Nothing is loaded that is not there already.
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

// In the libraries that `library` has loaded with it.
GetInfo Find(const char* library, const char* symbol) {
  // RTLD_NOLOAD: a handle of what is loaded, else null. Never closed: it stays.
  void* const handle = dlopen(library, RTLD_LAZY | RTLD_NOLOAD);
  return handle ? reinterpret_cast<GetInfo>(dlsym(handle, symbol)) : nullptr;
}

GetInfo FindGetInfo() {
  // dlsym() looks through what the library depends on too: whichever version of the
  // runtime that is.
  if (GetInfo found = Find("libc10_cuda.so", "cudaMemGetInfo")) return found;
  return Find("libcuda.so.1", "cuMemGetInfo_v2");
}

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
