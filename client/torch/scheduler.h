// The count of steps of a learning rate scheduler, in the layout of Python's
// LRScheduler.state_dict().
#pragma once

#include <torch/torch.h>

#include <cstdint>

#include "absl/status/statusor.h"
#include "modelstore/value.h"

namespace modelstore::torch_internal {

// {"last_epoch": 3, "_step_count": 4}: Python counts a step of its own at the
// beginning.
Value SchedulerState(const torch::optim::LRScheduler& scheduler);

// FAILED_PRECONDITION if `state` is no scheduler's.
absl::StatusOr<int64_t> ReadSchedulerSteps(const Value& state);
void SetSchedulerSteps(torch::optim::LRScheduler& scheduler, int64_t steps);

}  // namespace modelstore::torch_internal
