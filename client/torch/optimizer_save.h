// The `optimizer` section, in the layout of Python's Optimizer.state_dict():
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

// Names of tensors by identity; of tied ones the first.
class ParameterNames {
 public:
  explicit ParameterNames(const std::vector<StateEntry>& entries);
  bool empty() const { return names_.empty(); }
  // Empty if no entry is that tensor.
  std::string Find(const torch::Tensor& parameter) const;
  // Names of a whole group; empty unless all have one.
  std::vector<std::string> FindAll(const std::vector<torch::Tensor>& parameters) const;

 private:
  std::unordered_map<std::string, std::string> names_;
};

struct OptimizerSection {
  Value value;
  // By key, in order.
  std::vector<std::pair<std::string, torch::Tensor>> tensors;
};

absl::StatusOr<OptimizerSection> ReadOptimizer(const torch::optim::Optimizer& optimizer,
                                               const ParameterNames& names);

}  // namespace modelstore::torch_internal
