// The state of a learning rate scheduler, in the layout of Python's
// LRScheduler.state_dict().
#pragma once

#include <torch/torch.h>

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "modelstore/load_report.h"
#include "modelstore/value.h"

namespace modelstore::torch_internal {

// Returns {"step_size": 2, "gamma": 0.5, "last_epoch": 3, "_step_count": 4}.
// `_step_count` is one more, because Python's constructor makes a step. Classes other
// than StepLR have the counts only.
Value SchedulerState(const torch::optim::LRScheduler& scheduler);

// Returns {"class": "StepLR"}.
Value SchedulerMetadata(const torch::optim::LRScheduler& scheduler);

// Returns the number of steps in `state`. FAILED_PRECONDITION, with `section`, if it is
// not a scheduler's state.
absl::StatusOr<int64_t> ReadSchedulerSteps(const std::string& section,
                                           const Value& state);
void SetSchedulerSteps(torch::optim::LRScheduler& scheduler, int64_t steps);

// Returns the stored settings and class that differ from the scheduler's. Settings that
// are not stored are not compared.
std::vector<LoadReport::SettingChange> SchedulerChanges(
    const torch::optim::LRScheduler& scheduler, const std::string& section,
    const Value& state, const Value& metadata);

}  // namespace modelstore::torch_internal
