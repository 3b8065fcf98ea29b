// Tensors that share memory: with themselves, and with each other.
#pragma once

#include <torch/torch.h>

#include <cstdint>
#include <utility>
#include <vector>

#include "absl/status/statusor.h"

namespace modelstore::torch_internal {

// The addresses from a tensor's first element to behind its last; {0, 0} without
// elements. Devices and this process share one space of addresses.
std::pair<uintptr_t, uintptr_t> Addresses(const torch::Tensor& tensor);

// Whether two of its elements share memory, as after expand(), unfold() or as_strided().
// Such a tensor cannot be written. True as well if the answer would take too much memory.
bool OverlapsItself(const torch::Tensor& tensor);

// Whether two of the tensors share a byte. None of them overlaps itself. Takes time for
// each element, and up to an eighth of the addresses from the first to the last byte in
// memory: RESOURCE_EXHAUSTED if that is not available.
absl::StatusOr<bool> AnyShare(const std::vector<torch::Tensor>& tensors);

// A value to be written over a tensor.
struct PendingWrite {
  torch::Tensor target;
  torch::Tensor value;
};

// Which of the writes, done in this order, would not last, and a later one that changes
// them: positions of `writes`. Writes only to memory of its own: OverwrittenBytes().
std::vector<std::pair<size_t, size_t>> Overwritten(
    const std::vector<PendingWrite>& writes);

// The memory that Overwritten() takes at most: the addresses from the first to the last
// byte of the targets, and a copy of every value.
int64_t OverwrittenBytes(const std::vector<torch::Tensor>& targets);

}  // namespace modelstore::torch_internal
