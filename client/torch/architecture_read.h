// Reads the architecture off a live module, at a save.
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

// The tree of `module`: LibTorch's own modules with their arguments, anything else
// by its class and marked incomplete, a module that was built from the store as it
// was stored. INVALID_ARGUMENT naming `forward` for steps that do not fit, or a tree
// beyond the bounds of an architecture.
absl::StatusOr<v1::Architecture> ReadArchitecture(const torch::nn::Module& module,
                                                  const ForwardByPath& forward);

}  // namespace modelstore::torch_internal
