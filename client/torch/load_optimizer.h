// Loading of the `optimizer` section: settled before anything is fetched, applied
// in one step at the end.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <vector>

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
  const OptimizerTable* table = nullptr;
  std::vector<ParameterState> states;
  // One per group: the stored options.
  std::vector<const Value*> groups;
};

// Matches stored parameters with the optimizer's: by name where both sides have
// names, else in order if count and shapes fit. FAILED_PRECONDITION, naming
// parameters or options, where they do not. `stored` outlives the result.
absl::StatusOr<OptimizerLoad> PlanOptimizer(torch::optim::Optimizer& optimizer,
                                            const Value& stored, const PlanIndex& plan,
                                            const ParameterNames& names,
                                            const KeyRenames& renames,
                                            LoadReport& report);

// `fetched` gives the tensor of a position. The optimizer changes only if all of
// it can be made.
absl::Status ApplyOptimizer(torch::optim::Optimizer& optimizer, const OptimizerLoad& load,
                            const std::function<torch::Tensor(int64_t)>& fetched);

}  // namespace modelstore::torch_internal
