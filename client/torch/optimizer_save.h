// An optimizer's section, in the layout of Python's Optimizer.state_dict():
//
//   {"state": {0: {"momentum_buffer": <state/0/momentum_buffer>}, ...},
//    "param_groups": [{"lr": 0.1, ..., "params": [0, 1],
//                      "param_names": ["fc.weight", "fc.bias"]}]}
#pragma once

#include <string>
#include <unordered_map>
#include <vector>

#include "absl/status/statusor.h"
#include "client/torch/optimizer_table.h"
#include "client/torch/state_dict.h"

namespace modelstore::torch_internal {

// Finds the names of a tensor: those of the same TensorImpl, otherwise those of tensors
// with the same memory, shape and dtype (TensorIdentity()). Does not keep the tensors
// alive.
class ParameterNames {
 public:
  explicit ParameterNames(const std::vector<StateEntry>& entries);
  bool empty() const { return by_memory_.empty(); }
  // All names, in the entries' order; several if the tensor is tied, empty if unknown.
  const std::vector<std::string>& FindAll(const torch::Tensor& parameter) const;
  // The first name; empty if unknown.
  std::string Find(const torch::Tensor& parameter) const;

 private:
  std::unordered_map<const c10::TensorImpl*, std::vector<std::string>> by_tensor_;
  std::unordered_map<std::string, std::vector<std::string>> by_memory_;
};

// For messages: `parameter 2 of group 0 (Float [1])`.
std::string ParameterText(size_t group, size_t position, const torch::Tensor& parameter);

// The content of an optimizer's section. The tensors share the optimizer's memory.
struct OptimizerSection {
  Value value;
  // {"class": "AdamW"}, because the state dict itself does not name the class.
  Value metadata;
  // By key, in order.
  std::vector<std::pair<std::string, torch::Tensor>> tensors;
};

// Reads options and state of an optimizer. A tensor that the optimizer holds several
// times is one parameter. INVALID_ARGUMENT, listing the first five, for parameters that
// are not in `names`. If `nameless`, an optimizer without any known parameter is saved
// without names.
absl::StatusOr<OptimizerSection> ReadOptimizer(const torch::optim::Optimizer& optimizer,
                                               const ParameterNames& names,
                                               bool nameless);

}  // namespace modelstore::torch_internal
