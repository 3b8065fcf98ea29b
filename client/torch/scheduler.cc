#include "client/torch/scheduler.h"

#include <limits>
#include <variant>

#include "absl/status/status.h"

namespace modelstore::torch_internal {
namespace {

// LibTorch shows the count to those alone that derive from the class.
struct Count : torch::optim::LRScheduler {
  static constexpr unsigned torch::optim::LRScheduler::*kSteps = &Count::step_count_;
};

}  // namespace

Value SchedulerState(const torch::optim::LRScheduler& scheduler) {
  const auto steps = static_cast<int64_t>(scheduler.*Count::kSteps);
  return Value::Dict({{"last_epoch", steps}, {"_step_count", steps + 1}});
}

absl::StatusOr<int64_t> ReadSchedulerSteps(const Value& state) {
  const Value* value = state.Find("last_epoch");
  const int64_t* steps = value ? std::get_if<int64_t>(&value->variant()) : nullptr;
  if (steps == nullptr || *steps < 0 || *steps > std::numeric_limits<unsigned>::max()) {
    return absl::FailedPreconditionError(
        "section `scheduler` holds no count of steps: `last_epoch`");
  }
  return *steps;
}

void SetSchedulerSteps(torch::optim::LRScheduler& scheduler, int64_t steps) {
  scheduler.*Count::kSteps = static_cast<unsigned>(steps);
}

}  // namespace modelstore::torch_internal
