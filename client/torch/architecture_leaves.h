// LibTorch's modules without children: reads the arguments of a live module, and builds a
// module from arguments. One table serves both directions.
#pragma once

#include <torch/torch.h>

#include <functional>
#include <memory>
#include <optional>
#include <string_view>
#include <vector>

#include "proto/contract/architecture/types.h"

namespace modelstore::torch_internal {

// Maps one tensor to one tensor. May throw the exceptions of torch.
using TensorFunction = std::function<torch::Tensor(const torch::Tensor&)>;

struct Leaf {
  std::shared_ptr<torch::nn::Module> module;
  // Runs the module; a recurrent module returns its output without the state. Empty for a
  // module that takes more than one tensor. Valid while `module` is held.
  TensorFunction forward;
};

// A tensor member of a module, with its name in the state dict.
struct Member {
  const char* name;
  torch::Tensor tensor;
};

// One entry of the table.
struct LeafType {
  const char* name;
  // Returns the arguments of a module of exactly this class, not of a derived one.
  // Nullopt if an argument cannot be read.
  std::function<std::optional<NamedValues>(const torch::nn::Module&)> read;
  // Returns the present members, which differ from the registered tensors if one was
  // reassigned (member_check.h).
  std::function<std::vector<Member>(const torch::nn::Module&)> members;
  // Builds the module from complete arguments. `module` is null if LibTorch lacks an
  // argument that the node sets.
  std::function<Leaf(const ModuleTree& node)> build;
};

// Find an entry by PyTorch's type name, or by the exact class of a module. Null if
// LibTorch has no such module, or if it has children. Thread-safe.
const LeafType* FindLeaf(std::string_view type);
const LeafType* FindLeaf(const torch::nn::Module& module);

}  // namespace modelstore::torch_internal
