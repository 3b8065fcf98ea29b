// Matches the parameters of a stored optimizer with those of the live one.
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
  Value id;  // its id in the stored `params` and `state`
};

// For each group its parameters. A parameter that is listed twice appears once.
using MatchedGroups = std::vector<std::vector<MatchedParameter>>;

// The input of MatchParameters(). The references must outlive the call.
struct ParameterMatching {
  const torch::optim::Optimizer& optimizer;
  const OptimizerTable& table;
  const std::vector<Value>& groups;  // stored `param_groups`; as many as the optimizer's
  const ParameterNames& names;
  const KeyRenames& renames;
  // Allows matching by position even if names or shapes do not make it unambiguous.
  bool any_order = false;
  std::function<bool(const Value& id)> has_state;
  // Whether two ids have the same state.
  std::function<bool(const Value& a, const Value& b)> same_state;
};

// Matches by name if both sides have names, otherwise by position, which sets `inferred`.
// FAILED_PRECONDITION, naming parameters, if they do not match, or if the order is
// ambiguous and any_order is false.
absl::StatusOr<MatchedGroups> MatchParameters(const ParameterMatching& matching,
                                              bool& inferred);

}  // namespace modelstore::torch_internal
