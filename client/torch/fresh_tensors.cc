#include "client/torch/fresh_tensors.h"

#include <c10/core/CPUAllocator.h>
#include <sys/mman.h>

#include <algorithm>

namespace modelstore::torch_internal {
namespace {

constexpr int64_t kAlignment = 64;  // as torch's CPU allocator
constexpr int64_t kSlabBytes = int64_t{16} << 20;
constexpr uintptr_t kHugePage = uintptr_t{2} << 20;

// Page faults dominate the time of a load into new memory; 2 MiB pages halve it compared
// with 4 KiB pages. Only a hint: errors are ignored.
void PreferHugePages(void* data, int64_t bytes) {
  const uintptr_t begin =
      (reinterpret_cast<uintptr_t>(data) + kHugePage - 1) & ~(kHugePage - 1);
  const uintptr_t end = (reinterpret_cast<uintptr_t>(data) + bytes) & ~(kHugePage - 1);
  if (end > begin) ::madvise(reinterpret_cast<void*>(begin), end - begin, MADV_HUGEPAGE);
}

void ReleaseSlab(void* context) {
  delete static_cast<std::shared_ptr<c10::DataPtr>*>(context);
}

}  // namespace

int64_t FreshTensors::SlabBytes(int64_t bytes) {
  if (bytes == 0 || bytes >= kSmallBytes) return 0;
  return (bytes + kAlignment - 1) / kAlignment * kAlignment;
}

torch::Tensor FreshTensors::Make(absl::Span<const int64_t> shape,
                                 torch::ScalarType type) {
  int64_t bytes = static_cast<int64_t>(c10::elementSize(type));
  for (int64_t size : shape) bytes *= size;
  if (SlabBytes(bytes) > 0) return MakeInSlab(shape, type, bytes);
  torch::Tensor tensor = torch::empty(c10::IntArrayRef(shape.data(), shape.size()), type);
  PreferHugePages(tensor.data_ptr(), bytes);
  return tensor;
}

torch::Tensor FreshTensors::MakeInSlab(absl::Span<const int64_t> shape,
                                       torch::ScalarType type, int64_t bytes) {
  c10::Allocator* allocator = c10::GetCPUAllocator();
  if (slab_ == nullptr || slab_used_ + SlabBytes(bytes) > slab_size_) {
    slab_size_ = std::max(SlabBytes(bytes), std::min(small_bytes_left_, kSlabBytes));
    slab_ = std::make_shared<c10::DataPtr>(allocator->allocate(slab_size_));
    slab_used_ = 0;
  }
  void* data = static_cast<char*>(slab_->get()) + slab_used_;
  slab_used_ += SlabBytes(bytes);
  small_bytes_left_ -= SlabBytes(bytes);
  c10::DataPtr own(data, new std::shared_ptr<c10::DataPtr>(slab_), &ReleaseSlab,
                   c10::Device(c10::kCPU));
  // Resizable with torch's allocator, so resize_() moves the tensor out of the slab.
  c10::Storage storage(c10::Storage::use_byte_size_t(), static_cast<size_t>(bytes),
                       std::move(own), allocator, /*resizable=*/true);
  torch::Tensor tensor = torch::empty({0}, type);
  return tensor.set_(storage, 0, c10::IntArrayRef(shape.data(), shape.size()));
}

}  // namespace modelstore::torch_internal
