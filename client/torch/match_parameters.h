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

// Of each group its parameters, one that it holds several times once.
using MatchedGroups = std::vector<std::vector<MatchedParameter>>;

struct ParameterMatching {
  const torch::optim::Optimizer& optimizer;
  const OptimizerTable& table;
  const std::vector<Value>& groups;  // as stored, as many as the optimizer's
  const ParameterNames& names;
  const KeyRenames& renames;
  // By position even where names or shapes do not settle it.
  bool any_order = false;
  std::function<bool(const Value& id)> has_state;
  // Whether two ids have one and the same state.
  std::function<bool(const Value& a, const Value& b)> same_state;
};

// By name where both sides have names, else by position, which sets `inferred`.
// FAILED_PRECONDITION, naming parameters, where they do not fit or an order is not the
// only one.
absl::StatusOr<MatchedGroups> MatchParameters(const ParameterMatching& matching,
                                              bool& inferred);

}  // namespace modelstore::torch_internal
