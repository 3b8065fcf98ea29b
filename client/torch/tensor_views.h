// From torch's tensors to views that the torch-free library can send.
#pragma once

#include <torch/torch.h>

#include <cstdint>
#include <map>
#include <string>
#include <unordered_map>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "client/torch/device/device_save.h"
#include "modelstore/tensor.h"

namespace modelstore::torch_internal {

// What makes two tensors the same one: PyTorch's tied weights are equal in it.
// Text, because it serves as a key of maps only.
std::string TensorIdentity(const torch::Tensor& tensor);

// Refuses, naming `name`, what cannot be stored: undefined, sparse, quantized,
// meta and nested tensors.
absl::Status CheckStorable(const std::string& name, const torch::Tensor& tensor);

// Collects the views of one save, in order.
class ViewBuilder {
 public:
  // `at_rest`: nobody changes the tensors before the save is durable.
  explicit ViewBuilder(bool at_rest) : at_rest_(at_rest) {}

  // A tensor equal in identity to an earlier one becomes tied to it. What is not
  // contiguous memory of the CPU or of a device is copied now.
  absl::Status Add(std::string section, std::string key, const torch::Tensor& tensor,
                   TensorRole role = TensorRole::kUnspecified);

  // The devices from which tensors were added.
  std::vector<int> devices() const;

  // Of devices the views are what the work queued by now makes of their tensors.
  std::vector<TensorView> Take();

 private:
  const bool at_rest_;
  std::vector<TensorView> views_;
  std::map<int, device::DeviceSave> saves_;  // by device
  // By identity. Holds the tensor, so that no later one gets its address.
  std::unordered_map<std::string, std::pair<std::string, torch::Tensor>> first_;
};

}  // namespace modelstore::torch_internal
