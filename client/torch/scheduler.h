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

// {"step_size": 2, "gamma": 0.5, "last_epoch": 3, "_step_count": 4}: Python counts a step
// of its own at the beginning. The settings are StepLR's; of another class the counts.
Value SchedulerState(const torch::optim::LRScheduler& scheduler);

// {"class": "StepLR"}
Value SchedulerMetadata(const torch::optim::LRScheduler& scheduler);

// FAILED_PRECONDITION if `state`, of this section, is no scheduler's.
absl::StatusOr<int64_t> ReadSchedulerSteps(const std::string& section,
                                           const Value& state);
void SetSchedulerSteps(torch::optim::LRScheduler& scheduler, int64_t steps);

// How the settings and class that the section stores differ from the scheduler's. What is
// not stored is no difference.
std::vector<LoadReport::SettingChange> SchedulerChanges(
    const torch::optim::LRScheduler& scheduler, const std::string& section,
    const Value& state, const Value& metadata);

}  // namespace modelstore::torch_internal
