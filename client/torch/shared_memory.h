// Names of a module that are one memory, and several tensors in a checkpoint.
#pragma once

#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "client/torch/load_module.h"
#include "modelstore/torch.h"

namespace modelstore::torch_internal {

// Settles what of `matches` is one memory here and several tensors in the checkpoint, by
// args.shared_memory. Where the stored bytes are the same, the matches become one; where
// they are not, FAILED_PRECONDITION names both, or the report does. Returns the groups,
// as positions of `matches`, whose values tell only once they have arrived.
absl::StatusOr<std::vector<std::vector<size_t>>> SettleSharedMemory(
    Client& client, const std::string& checkpoint, const PlanIndex& plan,
    const LoadArgs& args, std::vector<Match>& matches, LoadReport& report);

}  // namespace modelstore::torch_internal
