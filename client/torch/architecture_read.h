// Reads the architecture of a live module for a save.
#pragma once

#include <torch/torch.h>

#include <map>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "modelstore/v1/resources.pb.h"

namespace modelstore::torch_internal {

// Forward steps of containers, by path; see SaveArgs::forward.
using ForwardByPath = std::map<std::string, std::vector<std::string>>;

// Returns the tree of `module`. LibTorch's own modules have their arguments; a
// BuiltModule has what was stored; any other module has its class name and is marked
// incomplete. INVALID_ARGUMENT, with field `forward`, for steps that do not match the
// module; INVALID_ARGUMENT for a tree that exceeds the limits of an architecture.
absl::StatusOr<v1::Architecture> ReadArchitecture(const torch::nn::Module& module,
                                                  const ForwardByPath& forward);

}  // namespace modelstore::torch_internal
