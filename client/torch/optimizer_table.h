// What differs from optimizer to optimizer, as one table each: how LibTorch's
// options and per-parameter state correspond to Python's state_dict.
#pragma once

#include <torch/torch.h>

#include <functional>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "modelstore/value.h"

namespace modelstore::torch_internal {

// State of one parameter, under Python's names.
using StateTensors = std::vector<std::pair<std::string, torch::Tensor>>;

struct OptimizerTable {
  std::string name;  // `SGD`
  // Options that LibTorch lacks, with the only value it can act upon; Python
  // needs them to be there.
  std::vector<std::pair<std::string, Value>> python_only;
  // Those of them that change nothing in the numbers, so that any value is taken.
  std::vector<std::string> indifferent;
  // Names of state that has the parameter's shape.
  std::vector<std::string> tensor_names;
  // Whether a 0-dim `step` goes with them.
  bool has_step = false;

  std::function<std::vector<std::pair<std::string, Value>>(
      const torch::optim::OptimizerOptions&)>
      read_options;
  // Every option that read_options gives is in the dict.
  std::function<std::unique_ptr<torch::optim::OptimizerOptions>(const Value& group)>
      make_options;
  std::function<StateTensors(const torch::optim::OptimizerParamState&)> read_state;
  std::function<std::unique_ptr<torch::optim::OptimizerParamState>(
      const std::map<std::string, torch::Tensor>& tensors, int64_t step)>
      make_state;
};

// UNIMPLEMENTED for an optimizer that has no table.
absl::StatusOr<const OptimizerTable*> TableOf(const torch::optim::Optimizer& optimizer);

// The optimizer's key for the state of `parameter`.
std::string StateKey(const torch::Tensor& parameter);

}  // namespace modelstore::torch_internal
