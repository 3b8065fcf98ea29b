// Finds members of LibTorch's modules that differ from the registered tensors.
#pragma once

#include <torch/torch.h>

#include <string_view>
#include <vector>

#include "absl/status/status.h"
#include "client/torch/state_dict.h"

namespace modelstore::torch_internal {

// After `bn->running_mean = t` the old tensor is still registered: state_dict() and
// parameters() return it, while forward() uses the new one. Members of user-defined
// classes are not checked.
//
// `decoder->weight = encoder->weight` ties two layers: if the assigned tensor is
// registered and used elsewhere in `module`, it replaces the tensor of the member's entry
// in `entries` (from WalkState()). INVALID_ARGUMENT, listing all of them, for members
// that were assigned any other tensor. `done` completes the message: `saved` or `loaded`.
absl::Status FollowMembers(const torch::nn::Module& module, std::string_view done,
                           std::vector<StateEntry>& entries);

}  // namespace modelstore::torch_internal
