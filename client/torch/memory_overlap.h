// Finds tensors whose elements share memory, within one tensor and between tensors.
#pragma once

#include <torch/torch.h>

#include <cstdint>
#include <utility>
#include <vector>

#include "absl/status/statusor.h"

namespace modelstore::torch_internal {

// Returns the half-open range of addresses that a tensor spans; {0, 0} without elements.
// CUDA uses one address space for the CPU and all GPUs, so ranges of different devices
// can be compared.
std::pair<uintptr_t, uintptr_t> Addresses(const torch::Tensor& tensor);

// Whether two elements of the tensor share memory, as after expand(), unfold() or
// as_strided(). Such a tensor cannot be written. Also true if the check would need too
// much memory.
bool OverlapsItself(const torch::Tensor& tensor);

// Whether any two of the tensors share a byte. No tensor may overlap itself. Takes time
// proportional to the number of elements and memory of up to one bit per byte of the
// address range that they span: RESOURCE_EXHAUSTED if that is not available.
absl::StatusOr<bool> AnyShare(const std::vector<torch::Tensor>& tensors);

// A tensor and the value that will be written to it.
struct PendingWrite {
  torch::Tensor target;
  torch::Tensor value;
};

// Finds writes that a later write changes, if all are done in order. Returns pairs of
// positions: the write that is lost, and the first later write that changes it. Simulates
// the writes in temporary memory of OverwrittenBytes(); the targets are not changed.
std::vector<std::pair<size_t, size_t>> Overwritten(
    const std::vector<PendingWrite>& writes);

// Upper bound of the memory that Overwritten() needs: the address range that the targets
// span, and a copy of every value.
int64_t OverwrittenBytes(const std::vector<torch::Tensor>& targets);

}  // namespace modelstore::torch_internal
