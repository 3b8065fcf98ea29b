#include "client/torch/architecture_build.h"

#include <map>
#include <utility>

#include "absl/strings/str_cat.h"
#include "client/torch/built_module.h"
#include "modelstore/torch.h"
#include "proto/contract/architecture/architecture.h"
#include "proto/contract/architecture/value.h"

namespace modelstore::torch_internal {
namespace architecture_build {

namespace nn = torch::nn;

// Restores the state of the CPU generator when it is destroyed.
class KeptGenerator {
 public:
  KeptGenerator() : state_(GetCpuRngState()) {}
  KeptGenerator(const KeptGenerator&) = delete;
  KeptGenerator& operator=(const KeptGenerator&) = delete;
  ~KeptGenerator() { SetCpuRngState(state_).IgnoreError(); }

 private:
  const torch::Tensor state_;
};

std::string Describe(const std::string& path, const ModuleTree& node) {
  return absl::StrCat("`", path, "` (", node.type(), ") ");
}

// Completes the arguments with defaults, because clients of other languages may store
// fewer. Nullopt if they are invalid.
std::optional<ModuleTree> Completed(const ModuleTree& node) {
  NamedValues given;
  for (const auto& argument : node.arguments()) {
    given.emplace_back(argument.name(), argument.value());
  }
  ModuleTree complete;
  complete.set_type(node.type());
  if (!CompleteArguments("arguments", given, complete).ok()) return std::nullopt;
  return complete;
}

// Builds a LibTorch module without children; `module` is null if the node is none.
Built BuildLeaf(const std::string& path, const ModuleTree& node) {
  const LeafType* type = FindLeaf(node.type());
  if (type == nullptr || node.incomplete() || node.children_size() > 0) return {};
  const std::optional<ModuleTree> complete = Completed(node);
  if (!complete) return {};
  Leaf leaf = type->build(*complete);
  Built built{leaf.module, leaf.forward, ""};
  if (!leaf.forward) {
    built.why_not = Describe(path, node) + "takes more than one tensor";
  }
  return built;
}

// Builds a TransformerEncoderLayer; `module` is null if LibTorch's class cannot represent
// it. That class lacks batch_first and norm_first, and has a fixed layer_norm_eps of
// 1e-5.
Built BuildEncoderLayer(const std::string& path, const ModuleTree& node) {
  if (node.type() != "TransformerEncoderLayer" || node.incomplete()) return {};
  const std::optional<ModuleTree> m = Completed(node);
  if (!m || FlagOf(*m, "batch_first") || FlagOf(*m, "norm_first") ||
      AsNumber(*FindArgument(*m, "layer_norm_eps")) != 1e-5) {
    return {};
  }
  const auto number = [&](const char* name) {
    return AsInt(*FindArgument(*m, name)).value_or(1);
  };
  nn::TransformerEncoderLayerOptions options(number("d_model"), number("nhead"));
  options.dim_feedforward(number("dim_feedforward"));
  options.dropout(AsNumber(*FindArgument(*m, "dropout")).value_or(0));
  if (FindArgument(*m, "activation")->string_value() == "gelu") {
    options.activation(torch::kGELU);
  }
  auto layer = std::make_shared<nn::TransformerEncoderLayerImpl>(options);
  return {layer, [raw = layer.get()](const torch::Tensor& x) { return raw->forward(x); },
          ""};
}

// Builds `node` and its children. `parent` is null for the root.
Built BuildTree(const std::string& path, const ModuleTree& node,
                const ModuleTree* parent);

// Why a module without a forward cannot run.
std::string NoForward(const std::string& path, const ModuleTree& node) {
  const std::string it = Describe(path, node);
  if (node.type() == "ModuleList" || node.type() == "ModuleDict") {
    return it + "only holds modules: name the steps of the one that uses it";
  }
  if (FindModuleType(node.type()) != nullptr) {
    return it + "cannot be built by LibTorch from what is stored";
  }
  return it + "has no forward: save it with SaveArgs.forward";
}

// Returns the steps of a container. Those of a TransformerEncoder are implied by its
// class: the layers in order, then the norm.
std::vector<std::string> StepsOf(const ModuleTree& node, const ModuleTree* parent) {
  std::vector<std::string> steps = ForwardSteps(node);
  const bool layers = node.type() == "ModuleList" && parent != nullptr &&
                      parent->type() == "TransformerEncoder";
  if (!steps.empty() || (node.type() != "TransformerEncoder" && !layers)) return steps;
  for (const ModuleTree& child : node.children()) steps.push_back(child.name());
  return steps;
}

// Builds a BuiltModule. If a step cannot run, returns the module without a forward and
// the reason, so that the model can still be printed.
Built BuildContainer(const std::string& path, const ModuleTree& node,
                     const ModuleTree* parent) {
  auto module = std::make_shared<BuiltModule>(node);
  std::map<std::string, Built> children;
  for (const ModuleTree& child : node.children()) {
    Built built = BuildTree(JoinModulePath(path, child.name()), child, &node);
    module->register_module(child.name(), built.module);
    children.emplace(child.name(), std::move(built));
  }
  Built result{module, {}, ""};
  const std::vector<std::string> steps = StepsOf(node, parent);
  // An empty Sequential returns its input, as PyTorch's does.
  if (steps.empty() && node.type() != "Sequential") {
    result.why_not = NoForward(path, node);
    return result;
  }
  for (const std::string& text : steps) {
    absl::StatusOr<ForwardStep> step = ParseStep("forward", text, node);
    if (!step.ok()) {
      result.why_not = Describe(path, node) + std::string(step.status().message());
      return result;
    }
    const std::string& name = step->child.empty() ? step->operand : step->child;
    TensorFunction child;
    if (!name.empty()) {
      const Built& built = children.at(name);
      if (!built.forward) {
        result.why_not = built.why_not;
        return result;
      }
      child = built.forward;
    }
    module->AddStep(*std::move(step), std::move(child));
  }
  result.forward = [raw = module.get()](const torch::Tensor& x) {
    return raw->forward(x);
  };
  return result;
}

Built BuildTree(const std::string& path, const ModuleTree& node,
                const ModuleTree* parent) {
  Built built = BuildLeaf(path, node);
  if (!built.module) built = BuildEncoderLayer(path, node);
  if (!built.module) built = BuildContainer(path, node, parent);
  built.module->train(node.training());
  return built;
}

}  // namespace architecture_build

absl::StatusOr<Built> BuildArchitecture(const v1::Architecture& architecture) {
  if (auto s = ValidateArchitecture("architecture", architecture); !s.ok()) return s;
  const architecture_build::KeptGenerator generator;
  return architecture_build::BuildTree("", architecture.root(), nullptr);
}

void PlaceOwnTensors(const std::vector<OwnTensor>& tensors, torch::nn::Module& root) {
  std::map<std::string, BuiltModule*> modules;
  for (const auto& item : root.named_modules("", /*include_self=*/true)) {
    if (auto* built = dynamic_cast<BuiltModule*>(item.value().get())) {
      modules.emplace(item.key(), built);
    }
  }
  for (const OwnTensor& tensor : tensors) {
    const auto [path, name] = SplitModulePath(tensor.key);
    const auto found = modules.find(std::string(path));
    if (found == modules.end()) continue;
    const torch::Tensor zeros = torch::zeros(tensor.shape, tensor.type);
    if (tensor.buffer) {
      found->second->register_buffer(std::string(name), zeros);
    } else {
      const bool differentiable = zeros.is_floating_point() || zeros.is_complex();
      found->second->register_parameter(std::string(name), zeros, differentiable);
    }
  }
}

}  // namespace modelstore::torch_internal
