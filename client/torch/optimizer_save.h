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

// Names of tensors by identity: of the very same tensor, else of one that is the same
// memory.
class ParameterNames {
 public:
  explicit ParameterNames(const std::vector<StateEntry>& entries);
  bool empty() const { return by_memory_.empty(); }
  // In the entries' order; several if it is tied; none if no entry is that tensor.
  const std::vector<std::string>& FindAll(const torch::Tensor& parameter) const;
  // The first of them; empty if there is none.
  std::string Find(const torch::Tensor& parameter) const;

 private:
  std::unordered_map<const c10::TensorImpl*, std::vector<std::string>> by_tensor_;
  std::unordered_map<std::string, std::vector<std::string>> by_memory_;
};

// `parameter 2 of group 0 (Float [1])`
std::string ParameterText(size_t group, size_t position, const torch::Tensor& parameter);

struct OptimizerSection {
  Value value;
  // {"class": "AdamW"}: state_dict() does not tell whose state it is.
  Value metadata;
  // By key, in order.
  std::vector<std::pair<std::string, torch::Tensor>> tensors;
};

// A tensor that the optimizer holds several times is one parameter. INVALID_ARGUMENT,
// naming the first five, for parameters that `names` does not know, unless it knows none
// of them and `nameless` allows that.
absl::StatusOr<OptimizerSection> ReadOptimizer(const torch::optim::Optimizer& optimizer,
                                               const ParameterNames& names,
                                               bool nameless);

}  // namespace modelstore::torch_internal
