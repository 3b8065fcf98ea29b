// Allocates CPU tensors to load into.
#pragma once

#include <torch/torch.h>

#include <cstdint>
#include <memory>

#include "absl/types/span.h"

namespace modelstore::torch_internal {

// Small tensors share slabs, because allocating each costs more than filling it. Every
// tensor has its own Storage, so resizing a tensor or moving its storage does not affect
// others. A slab is freed with its last tensor. Not thread-safe.
class FreshTensors {
 public:
  // Tensors below this size are placed in slabs.
  static constexpr int64_t kSmallBytes = int64_t{1} << 20;

  // `small_bytes`: the sum of SlabBytes() of all tensors that will be made.
  explicit FreshTensors(int64_t small_bytes) : small_bytes_left_(small_bytes) {}

  // Returns the slab space of a tensor of `bytes`; 0 if it gets its own allocation.
  static int64_t SlabBytes(int64_t bytes);

  // Returns an uninitialized contiguous tensor. Throws the exceptions of torch.
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
