// Tensors that share memory: with themselves, and with each other.
#pragma once

#include <torch/torch.h>

#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/statusor.h"
#include "client/torch/load_module.h"
#include "modelstore/torch.h"

namespace modelstore::torch_internal {

// The addresses from a tensor's first element to behind its last; {0, 0} without
// elements. Devices and this process share one space of addresses.
std::pair<uintptr_t, uintptr_t> Addresses(const torch::Tensor& tensor);

// Whether two of its elements are one, as after expand(), unfold() or as_strided(): then
// there is no way to write it. True as well where telling would take too much memory.
bool OverlapsItself(const torch::Tensor& tensor);

// Settles what of `matches` is one memory here and several tensors in the checkpoint, by
// args.shared_memory. Where the stored bytes are the same, the matches become one; where
// they are not, FAILED_PRECONDITION names both, or the report does. Returns the groups,
// as positions of `matches`, whose values tell only once they have arrived.
absl::StatusOr<std::vector<std::vector<size_t>>> SettleSharedMemory(
    Client& client, const std::string& checkpoint, const PlanIndex& plan,
    const LoadArgs& args, std::vector<Match>& matches, LoadReport& report);

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
