// Handles names that share memory in the module but are separate tensors in the
// checkpoint.
#pragma once

#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "client/torch/load_module.h"
#include "modelstore/torch.h"

namespace modelstore::torch_internal {

// Resolves targets that share memory but are stored as separate tensors, according to
// args.shared_memory. If the stored bytes are equal by digest, the matches are merged.
// Otherwise FAILED_PRECONDITION or the report names both. Returns groups of positions in
// `matches` that can be compared only after their bytes have arrived. RESOURCE_EXHAUSTED
// if there is too little memory to find overlaps. May call the server for digests.
absl::StatusOr<std::vector<std::vector<size_t>>> ResolveSharedMemory(
    const Client& client, const std::string& checkpoint, const PlanIndex& plan,
    const LoadArgs& args, const LoadOptions& options, std::vector<Match>& matches,
    LoadReport& report);

}  // namespace modelstore::torch_internal
