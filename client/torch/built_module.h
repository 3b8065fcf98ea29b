// A module made from a stored architecture: it has the stored children and runs the
// stored forward. Containers are of this class, and what LibTorch cannot build.
#pragma once

#include <torch/torch.h>

#include <string>
#include <utility>
#include <vector>

#include "client/torch/architecture_leaves.h"
#include "proto/contract/architecture/architecture.h"

namespace modelstore::torch_internal {

class BuiltModule : public torch::nn::Module {
 public:
  // `node` as stored, without its children: what a save writes back.
  explicit BuiltModule(ModuleTree node) : node_(std::move(node)) {
    node_.clear_children();
    node_.clear_name();
  }

  const ModuleTree& node() const { return node_; }

  // One step after the other. `child` is the step's child, or its operand; empty
  // where it has none, as for a step whose operand is the input itself.
  void AddStep(ForwardStep step, TensorFunction child) {
    steps_.emplace_back(std::move(step), std::move(child));
  }

  // Throws what torch throws, as every module does.
  torch::Tensor forward(const torch::Tensor& input);

  void pretty_print(std::ostream& stream) const override { stream << node_.type(); }

 private:
  ModuleTree node_;
  std::vector<std::pair<ForwardStep, TensorFunction>> steps_;
};

}  // namespace modelstore::torch_internal
