// Builds a runnable module from a stored architecture.
#pragma once

#include <string>

#include "absl/status/statusor.h"
#include "client/torch/architecture_leaves.h"
#include "modelstore/v1/resources.pb.h"

namespace modelstore::torch_internal {

struct Built {
  // Never null. With every module of the architecture under its path; parameters
  // as their constructors leave them.
  std::shared_ptr<torch::nn::Module> module;
  // Empty if it cannot run: then `why_not` says which module is the reason, and what
  // to do about it.
  TensorFunction forward;
  std::string why_not;
};

// The generator's state is as before: constructors draw from it. INVALID_ARGUMENT
// for an architecture that is none. May throw, as torch does.
absl::StatusOr<Built> BuildArchitecture(const v1::Architecture& architecture);

// Tensors of the checkpoint that belong to a BuiltModule itself (a parameter of a
// user's class, an attention's projections): gives each a place of that shape, zero.
struct OwnTensor {
  std::string key;
  std::vector<int64_t> shape;
  torch::ScalarType type;
  bool buffer;
};
void PlaceOwnTensors(const std::vector<OwnTensor>& tensors, torch::nn::Module& root);

}  // namespace modelstore::torch_internal
