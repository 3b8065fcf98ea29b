// Converts torch tensors to views that the torch-free library can send.
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

// Returns a map key that is equal for two tensors with the same storage, offset, dtype,
// shape and strides, such as PyTorch's tied weights. Valid while the storage is alive.
std::string TensorIdentity(const torch::Tensor& tensor);

// INVALID_ARGUMENT, with `name`, for tensors that cannot be stored: undefined, sparse,
// quantized, meta and nested ones.
absl::Status CheckStorable(const std::string& name, const torch::Tensor& tensor);

// Collects the views of one save, in order. Not thread-safe.
class ViewBuilder {
 public:
  // `at_rest`: the tensors do not change before the save is durable, so the views are
  // immutable.
  explicit ViewBuilder(bool at_rest) : at_rest_(at_rest) {}

  // A tensor with the identity of an earlier one becomes tied to it. A tensor that is not
  // contiguous memory of the CPU or of a device is copied now.
  absl::Status Add(std::string section, std::string key, const torch::Tensor& tensor,
                   TensorRole role = TensorRole::kUnspecified);

  // The devices from which tensors were added.
  std::vector<int> devices() const;

  // Returns the views. Tensors on devices are read after the work that is queued at this
  // call.
  std::vector<TensorView> Take();

 private:
  const bool at_rest_;
  std::vector<TensorView> views_;
  std::map<int, device::DeviceSave> saves_;  // by device
  // Identity to name and tensor. Holds the tensor, so that its address is not reused.
  std::unordered_map<std::string, std::pair<std::string, torch::Tensor>> first_;
};

}  // namespace modelstore::torch_internal
