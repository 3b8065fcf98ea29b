// Where loaded tensors go, and whether they fit there.
#pragma once

#include <torch/torch.h>

#include <cstdint>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

namespace modelstore::torch_internal {

// `cpu`, `cuda`, `cuda:N`. INVALID_ARGUMENT for other text; FAILED_PRECONDITION
// naming the device when this process cannot use it.
absl::StatusOr<torch::Device> UsableDevice(const std::string& text);

// RESOURCE_EXHAUSTED, naming both figures, when `bytes` are more than the memory
// that the machine and the control group have left.
absl::Status CheckHostMemory(int64_t bytes);

}  // namespace modelstore::torch_internal
