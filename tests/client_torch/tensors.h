// Small helpers of the tests with tensors.
#pragma once

#include <gtest/gtest.h>
#include <torch/torch.h>

#include <cstring>
#include <string>

#include "modelstore/torch.h"

namespace modelstore::support {

inline constexpr char kLatest[] = "models/m/checkpoints/latest";

// The bytes in row-major order: NaNs and negative zeros count.
inline std::string BytesOf(const torch::Tensor& tensor) {
  const torch::Tensor plain = tensor.detach().resolve_conj().resolve_neg().contiguous();
  return std::string(static_cast<const char*>(plain.data_ptr()), plain.nbytes());
}

inline void ExpectSameBits(const torch::Tensor& got, const torch::Tensor& want,
                           const std::string& what) {
  ASSERT_TRUE(got.defined()) << what;
  EXPECT_EQ(got.scalar_type(), want.scalar_type()) << what;
  EXPECT_EQ(got.sizes(), want.sizes()) << what;
  EXPECT_TRUE(BytesOf(got) == BytesOf(want)) << what << " differs";
}

// The tensor of that key; undefined if there is none.
inline torch::Tensor At(const StateDict& state_dict, const std::string& key) {
  for (const auto& [name, tensor] : state_dict) {
    if (name == key) return tensor;
  }
  return {};
}

inline std::vector<std::string> KeysOf(const StateDict& state_dict) {
  std::vector<std::string> keys;
  for (const auto& [name, tensor] : state_dict) keys.push_back(name);
  return keys;
}

// Random bits in the shape: every pattern of the type, NaNs included.
inline torch::Tensor RandomBits(std::vector<int64_t> shape, torch::ScalarType type) {
  torch::Tensor tensor = torch::empty(shape, type);
  torch::Tensor bytes =
      torch::randint(0, type == torch::kBool ? 2 : 256,
                     {static_cast<int64_t>(tensor.nbytes())}, torch::kByte);
  if (tensor.nbytes() > 0)
    std::memcpy(tensor.data_ptr(), bytes.data_ptr(), tensor.nbytes());
  return tensor;
}

// Buffers under chosen names.
struct BagImpl : torch::nn::Module {
  explicit BagImpl(const StateDict& tensors) {
    for (const auto& [name, tensor] : tensors) register_buffer(name, tensor);
  }
};
TORCH_MODULE(Bag);

// A module with parameters, buffers and two levels of children; see
// StateDictTest for the order of its keys.
struct ChildImpl : torch::nn::Module {
  ChildImpl() {
    deep = register_module("deep", torch::nn::Linear(2, 2));
    table = register_buffer("table", torch::rand({2}));
    w = register_parameter("w", torch::rand({2}));
  }
  torch::nn::Linear deep{nullptr};
  torch::Tensor table, w;
};
TORCH_MODULE(Child);

struct TreeImpl : torch::nn::Module {
  TreeImpl() {
    child = register_module("child", Child());
    fc = register_module("fc", torch::nn::Linear(2, 3));
    bn = register_module("bn", torch::nn::BatchNorm1d(3));
    scale = register_parameter("scale", torch::rand({}));
    steps = register_buffer("steps", torch::tensor(int64_t{7}));
  }
  Child child{nullptr};
  torch::nn::Linear fc{nullptr};
  torch::nn::BatchNorm1d bn{nullptr};
  torch::Tensor scale, steps;
};
TORCH_MODULE(Tree);

}  // namespace modelstore::support
