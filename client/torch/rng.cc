#include <ATen/CPUGeneratorImpl.h>

#include <mutex>

#include "absl/strings/str_cat.h"
#include "client/torch/guard.h"
#include "modelstore/torch.h"

namespace modelstore {

torch::Tensor GetCpuRngState() {
  at::Generator generator = at::detail::getDefaultCPUGenerator();
  // torch requires the generator's mutex for its state: other threads may be drawing.
  const std::lock_guard<std::mutex> lock(generator.mutex());
  return generator.get_state();
}

absl::Status SetCpuRngState(const torch::Tensor& state) {
  return torch_internal::Guarded("setting the generator's state", [&]() -> absl::Status {
    if (!state.defined() || state.scalar_type() != torch::kByte || state.dim() != 1) {
      return absl::InvalidArgumentError(
          "the generator's state is a one-dimensional uint8 tensor");
    }
    at::Generator generator = at::detail::getDefaultCPUGenerator();
    const std::lock_guard<std::mutex> lock(generator.mutex());
    generator.set_state(state.to(torch::kCPU).contiguous());
    return absl::OkStatus();
  });
}

}  // namespace modelstore
