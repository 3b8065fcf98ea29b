// BuiltModule: a module made from a stored architecture, with the stored children and the
// stored forward. Used for containers, and for modules that LibTorch cannot build.
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
  // `node` is the stored module; its type and arguments are written again by a save.
  explicit BuiltModule(ModuleTree node) : node_(std::move(node)) {
    node_.clear_children();
    node_.clear_name();
  }

  const ModuleTree& node() const { return node_; }

  // Appends a step. `child` runs the step's child or operand; empty if it has neither, as
  // a function, or `add` of the module's input.
  void AddStep(ForwardStep step, TensorFunction child) {
    steps_.emplace_back(std::move(step), std::move(child));
  }

  // Runs the steps in order. Throws the exceptions of torch.
  torch::Tensor forward(const torch::Tensor& input);

  void pretty_print(std::ostream& stream) const override { stream << node_.type(); }

 private:
  ModuleTree node_;
  std::vector<std::pair<ForwardStep, TensorFunction>> steps_;
};

}  // namespace modelstore::torch_internal
