// Second half of a load: fetches the bytes.
#pragma once

#include "absl/status/status.h"
#include "client/internal/load.h"

namespace modelstore::internal {

// Fetches every bound tensor of the plan. See LoadPlan::Run().
absl::Status RunLoad(LoadPlan::State* plan, Deadline deadline);

}  // namespace modelstore::internal
