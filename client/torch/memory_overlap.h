// Tensors that share memory: with themselves, and with each other.
#pragma once

#include <torch/torch.h>

#include <cstdint>
#include <utility>
#include <vector>

namespace modelstore::torch_internal {

// The addresses from a tensor's first element to behind its last; {0, 0} without
// elements. Devices and this process share one space of addresses.
std::pair<uintptr_t, uintptr_t> Addresses(const torch::Tensor& tensor);

// Whether two of its elements are one, as after expand(), unfold() or as_strided(): then
// there is no way to write it. True as well where telling would take too much memory.
bool OverlapsItself(const torch::Tensor& tensor);

// Whether an element of one lies where an element of the other does, in part at least.
// True as well where telling would take too much memory.
bool ShareBytes(const torch::Tensor& a, const torch::Tensor& b);

// A value to be written over a tensor.
struct PendingWrite {
  torch::Tensor target;
  torch::Tensor value;
};

// Which of the writes, done in this order, would not last, and a later one that changes
// them: positions of `writes`. Nothing is written but memory of its own, as large as that
// of the targets.
std::vector<std::pair<size_t, size_t>> Overwritten(
    const std::vector<PendingWrite>& writes);

}  // namespace modelstore::torch_internal
