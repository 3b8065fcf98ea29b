// The modules that LibTorch has: how their arguments are read off a live one, and
// how one is made of arguments. One table for both directions.
#pragma once

#include <torch/torch.h>

#include <functional>
#include <memory>
#include <optional>
#include <string_view>
#include <vector>

#include "proto/contract/architecture/types.h"

namespace modelstore::torch_internal {

// One tensor in, one out. May throw, as torch does.
using TensorFunction = std::function<torch::Tensor(const torch::Tensor&)>;

struct Leaf {
  std::shared_ptr<torch::nn::Module> module;
  // What it does to one tensor; of a recurrent module its output without the state.
  // Empty for a module that takes more than one. Valid while `module` lives.
  TensorFunction forward;
};

// A tensor that a module has as a member, under its name in the state dict.
struct Member {
  const char* name;
  torch::Tensor tensor;
};

struct LeafType {
  const char* name;
  // The arguments of a module that is exactly this class, no class of its own
  // derived from it. Null: something of it cannot be read.
  std::function<std::optional<NamedValues>(const torch::nn::Module&)> read;
  // Its members, as they are now. They are to be the registered tensors.
  std::function<std::vector<Member>(const torch::nn::Module&)> members;
  // `node`'s arguments are in their stored form. No module where LibTorch cannot
  // make it so (an argument that it lacks).
  std::function<Leaf(const ModuleTree& node)> build;
};

// Null if LibTorch has no such module that is without children of its own.
const LeafType* FindLeaf(std::string_view type);
const LeafType* FindLeaf(const torch::nn::Module& module);

}  // namespace modelstore::torch_internal
