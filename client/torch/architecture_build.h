// Builds a runnable module from a stored architecture.
#pragma once

#include <string>

#include "absl/status/statusor.h"
#include "client/torch/architecture_leaves.h"
#include "modelstore/v1/resources.pb.h"

namespace modelstore::torch_internal {

struct Built {
  // Never null in the result of BuildArchitecture(). Has every module of the architecture
  // at its path. Parameters have the values of their constructors.
  std::shared_ptr<torch::nn::Module> module;
  // Runs the module; valid while `module` is held. Empty if it cannot run; then `why_not`
  // names the module that prevents it and the remedy.
  TensorFunction forward;
  std::string why_not;
};

// Builds the modules. Restores the state of the CPU generator, which constructors draw
// from. INVALID_ARGUMENT if the architecture is invalid. May throw the exceptions of
// torch.
absl::StatusOr<Built> BuildArchitecture(const v1::Architecture& architecture);

// A tensor that belongs to a BuiltModule itself, such as a parameter of a user's class or
// the projections of an attention.
struct OwnTensor {
  std::string key;
  std::vector<int64_t> shape;
  torch::ScalarType type;
  bool buffer;
};
// Registers each tensor, filled with zeros, in the BuiltModule at its path. Ignores
// tensors whose path has none.
void PlaceOwnTensors(const std::vector<OwnTensor>& tensors, torch::nn::Module& root);

}  // namespace modelstore::torch_internal
