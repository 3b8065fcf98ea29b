// Which state of a stored optimizer is of which parameter of the optimizer here.
#pragma once

#include <functional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "client/torch/key_rules.h"
#include "client/torch/optimizer_save.h"
#include "client/torch/optimizer_table.h"
#include "modelstore/torch.h"

namespace modelstore::torch_internal {

struct MatchedParameter {
  torch::Tensor parameter;
  Value id;  // its number in the stored `params` and `state`
};

// The parameters of each group. One that is listed twice appears once.
using MatchedGroups = std::vector<std::vector<MatchedParameter>>;

struct ParameterMatching {
  const torch::optim::Optimizer& optimizer;
  const OptimizerTable& table;
  const std::vector<Value>& groups;  // as stored, as many as the optimizer's
  const ParameterNames& names;
  const KeyRenames& renames;
  // Accepts positions although names or shapes do not determine the order.
  bool any_order = false;
  std::function<bool(const Value& id)> has_state;
  // Whether two ids have one and the same state.
  std::function<bool(const Value& a, const Value& b)> same_state;
};

// By name where both sides have names, else by position, which sets `inferred`.
// FAILED_PRECONDITION, naming parameters, if they do not match, or if more than one order
// is possible.
absl::StatusOr<MatchedGroups> MatchParameters(const ParameterMatching& matching,
                                              bool& inferred);

}  // namespace modelstore::torch_internal
