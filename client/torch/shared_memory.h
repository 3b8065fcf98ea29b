// Names of a module that are one memory, and several tensors in a checkpoint.
#pragma once

#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "client/torch/load_module.h"
#include "modelstore/torch.h"

namespace modelstore::torch_internal {

// Resolves targets that share memory but are stored as separate tensors, as
// args.shared_memory says. If the stored bytes are the same, the matches become one; if
// they are not, FAILED_PRECONDITION names both, or the report does. Returns groups of
// positions in `matches` that can be compared only after their bytes arrive.
// RESOURCE_EXHAUSTED if there is no memory to find them.
absl::StatusOr<std::vector<std::vector<size_t>>> ResolveSharedMemory(
    const Client& client, const std::string& checkpoint, const PlanIndex& plan,
    const LoadArgs& args, const LoadOptions& options, std::vector<Match>& matches,
    LoadReport& report);

}  // namespace modelstore::torch_internal
