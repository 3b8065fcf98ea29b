// New CPU tensors to load into.
#pragma once

#include <torch/torch.h>

#include <cstdint>
#include <memory>

#include "absl/types/span.h"

namespace modelstore::torch_internal {

// Small tensors share slabs, because an allocation for each costs more than its
// bytes; every tensor still has a storage of its own, so that resizing one or
// taking its storage never reaches another. A slab lives as long as any tensor
// in it.
class FreshTensors {
 public:
  static constexpr int64_t kSmallBytes = int64_t{1} << 20;

  // `small_bytes`: what all tensors under kSmallBytes will take, each rounded up
  // by SlabBytes().
  explicit FreshTensors(int64_t small_bytes) : small_bytes_left_(small_bytes) {}

  // What a tensor of so many bytes takes of a slab; 0 if it has its own memory.
  static int64_t SlabBytes(int64_t bytes);

  // Uninitialised, contiguous. Throws what torch throws.
  torch::Tensor Make(absl::Span<const int64_t> shape, torch::ScalarType type);

 private:
  torch::Tensor MakeInSlab(absl::Span<const int64_t> shape, torch::ScalarType type,
                           int64_t bytes);

  int64_t small_bytes_left_;
  std::shared_ptr<c10::DataPtr> slab_;
  int64_t slab_size_ = 0;
  int64_t slab_used_ = 0;
};

}  // namespace modelstore::torch_internal
