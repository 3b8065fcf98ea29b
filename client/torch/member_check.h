// Members of LibTorch's own modules that are not what the module has registered.
#pragma once

#include <torch/torch.h>

#include <string_view>

#include "absl/status/status.h"

namespace modelstore::torch_internal {

// `bn->running_mean = t` leaves the old tensor registered: state_dict() and parameters()
// give that one, and forward() uses the other. INVALID_ARGUMENT, naming every such member
// of `module` and its submodules; `done` is what would be done to the registered one,
// `saved` or `loaded`. A class of the user's own tells nothing.
absl::Status CheckMembers(const torch::nn::Module& module, std::string_view done);

}  // namespace modelstore::torch_internal
