// Loading of optimizers' sections: settled before anything is fetched, applied in one
// step at the end.
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

struct OptimizerLoad {
  struct ParameterState {
    torch::Tensor parameter;
    std::map<std::string, Value> numbers;
    // By name, positions in the plan: of numbers that are stored as tensors, and of
    // tensors.
    std::map<std::string, int64_t> number_tensors;
    std::map<std::string, std::vector<int64_t>> tensors;
  };
  torch::optim::Optimizer* optimizer = nullptr;
  const OptimizerTable* table = nullptr;
  std::vector<ParameterState> states;
  // One per group: the stored options.
  std::vector<const Value*> groups;
};

// FAILED_PRECONDITION: the stored optimizer state does not fit: `why`.
absl::Status RefuseOptimizer(absl::string_view why);

// Matches stored parameters with the optimizer's (match_parameters.h) and compares the
// options and the class, by args' policies. FAILED_PRECONDITION, naming the section if
// it is not `optimizer`, and parameters or options, where they do not fit. `stored`
// outlives the result.
absl::StatusOr<OptimizerLoad> PlanOptimizer(
    const LoadArgs& args, torch::optim::Optimizer& optimizer,
    const SectionContent& stored, const PlanIndex& plan, const ParameterNames& names,
    const KeyRenames& renames, LoadReport& report);

// `fetched` gives the tensor of a position. The optimizers change only if all of their
// state can be made. It takes part in training, also where inference mode is on.
absl::Status ApplyOptimizers(const std::vector<OptimizerLoad>& loads,
                             const std::function<torch::Tensor(int64_t)>& fetched);

}  // namespace modelstore::torch_internal
