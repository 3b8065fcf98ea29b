// Loads optimizer sections in two steps: PlanOptimizer() validates before any tensor is
// fetched, ApplyOptimizers() installs the result after the transfer.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <string>
#include <vector>

#include "absl/strings/string_view.h"
#include "client/torch/key_rules.h"
#include "client/torch/load_module.h"
#include "client/torch/optimizer_save.h"
#include "client/torch/optimizer_table.h"

namespace modelstore::torch_internal {

// The plan of one optimizer. Holds pointers into the SectionContent it was made from.
struct OptimizerLoad {
  struct ParameterState {
    torch::Tensor parameter;
    // Fields by name: numbers; positions in the plan of numbers that are stored as
    // tensors; positions of tensors.
    std::map<std::string, Value> numbers;
    std::map<std::string, int64_t> number_tensors;
    std::map<std::string, std::vector<int64_t>> tensors;
  };
  torch::optim::Optimizer* optimizer = nullptr;
  const OptimizerTable* table = nullptr;
  std::vector<ParameterState> states;
  // The stored options, one dict per group.
  std::vector<const Value*> groups;
};

// Returns FAILED_PRECONDITION: `the stored optimizer state does not fit: <why>`.
absl::Status RefuseOptimizer(absl::string_view why);

// Matches the stored parameters with those of `optimizer` (match_parameters.h) and
// compares options and class according to the policies in `args`. Changes nothing but the
// report. FAILED_PRECONDITION, naming the parameters or options that do not fit, and the
// section if it is not `optimizer`. `stored` must outlive the result.
absl::StatusOr<OptimizerLoad> PlanOptimizer(
    const LoadArgs& args, torch::optim::Optimizer& optimizer,
    const SectionContent& stored, const PlanIndex& plan, const ParameterNames& names,
    const KeyRenames& renames, LoadReport& report);

// Replaces state and options of all optimizers, or of none if creating any state fails.
// `fetched` returns the tensor of a plan position. The new state is made of normal
// tensors, not inference tensors, even if the caller is in inference mode.
absl::Status ApplyOptimizers(const std::vector<OptimizerLoad>& loads,
                             const std::function<torch::Tensor(int64_t)>& fetched);

}  // namespace modelstore::torch_internal
