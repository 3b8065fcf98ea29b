// Members of LibTorch's own modules that are not what the module has registered.
#pragma once

#include <torch/torch.h>

#include <string_view>
#include <vector>

#include "absl/status/status.h"
#include "client/torch/state_dict.h"

namespace modelstore::torch_internal {

// `bn->running_mean = t` leaves the old tensor registered: state_dict() and parameters()
// give that one, and forward() uses the other. Members of a class of the user's own are
// not known.
//
// `decoder->weight = encoder->weight` ties two layers: if the assigned tensor is
// registered elsewhere in `module` and used there, puts it into the entry of `entries`
// (those of WalkState()) for the member. INVALID_ARGUMENT, naming them all, for members
// that were assigned anything else; `done` is what would be done to the registered
// tensors, `saved` or `loaded`.
absl::Status FollowMembers(const torch::nn::Module& module, std::string_view done,
                           std::vector<StateEntry>& entries);

}  // namespace modelstore::torch_internal
