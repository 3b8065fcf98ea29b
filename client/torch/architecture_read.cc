#include "client/torch/architecture_read.h"

#include <optional>
#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "client/torch/architecture_leaves.h"
#include "client/torch/built_module.h"
#include "proto/contract/architecture/architecture.h"
#include "proto/contract/architecture/value.h"
#include "proto/contract/errors.h"

namespace modelstore::torch_internal {
namespace architecture_read {

namespace nn = torch::nn;

// `torch::nn::LinearImpl` is `Linear`, `(anonymous namespace)::NetImpl` is `Net`.
std::string ClassName(const nn::Module& module) {
  std::string name = module.name();
  const size_t scope = name.substr(0, name.find('<')).rfind("::");
  if (scope != std::string::npos) name = name.substr(scope + 2);
  if (name.size() > 4 && absl::EndsWith(name, "Impl")) name.resize(name.size() - 4);
  return name.substr(0, kMaxModuleNameBytes);
}

// Removes numbers that equal their default, so that they are completed in Python's
// notation: Softplus's beta as 1, not 1.0.
void DropFallbacks(const std::string& type, NamedValues& values) {
  for (const ArgumentSpec& spec : FindModuleType(type)->arguments) {
    const bool number = spec.kind == ArgumentKind::kNumber && spec.fallback != nullptr;
    const auto fallback = number ? ScalarFromText(spec.fallback) : std::nullopt;
    if (!fallback) continue;
    std::erase_if(values, [&](const auto& given) {
      return given.first == spec.name && SameValue(given.second, *fallback);
    });
  }
}

// Returns the name of an activation: index 0 of the options' variant is kReLU, 1 is
// kGELU. Nullopt for index 2, a function, which cannot be stored.
template <typename Options>
std::optional<v1::Value> Activation(const Options& options) {
  const size_t index = options.activation().index();
  if (index > 1) return std::nullopt;
  return StringValue(index == 0 ? "relu" : "gelu");
}

// The arguments that encoder and decoder layers and Transformer share.
template <typename Options>
std::optional<NamedValues> LayerArguments(const Options& o) {
  const std::optional<v1::Value> activation = Activation(o);
  if (!activation) return std::nullopt;
  return NamedValues{{"d_model", IntValue(o.d_model())},
                     {"nhead", IntValue(o.nhead())},
                     {"dim_feedforward", IntValue(o.dim_feedforward())},
                     {"dropout", FloatValue(o.dropout())},
                     {"activation", *activation}};
}

NamedValues AttentionArguments(const nn::MultiheadAttentionOptions& o) {
  return {{"embed_dim", IntValue(o.embed_dim())},
          {"num_heads", IntValue(o.num_heads())},
          {"dropout", FloatValue(o.dropout())},
          {"bias", BoolValue(o.bias())},
          {"add_bias_kv", BoolValue(o.add_bias_kv())},
          {"add_zero_attn", BoolValue(o.add_zero_attn())},
          {"kdim", IntValue(o.kdim())},
          {"vdim", IntValue(o.vdim())}};
}

template <typename Impl>
const Impl* Exactly(const nn::Module& module) {
  return typeid(module) == typeid(Impl) ? dynamic_cast<const Impl*>(&module) : nullptr;
}

// Returns the arguments of a LibTorch module that has children. Nullopt for other
// classes, and if the arguments cannot be read.
std::optional<NamedValues> HolderArguments(const nn::Module& module) {
  if (Exactly<nn::SequentialImpl>(module) || Exactly<nn::ModuleListImpl>(module) ||
      Exactly<nn::ModuleDictImpl>(module)) {
    return NamedValues();
  }
  if (const auto* m = Exactly<nn::MultiheadAttentionImpl>(module)) {
    return AttentionArguments(m->options);
  }
  if (const auto* m = Exactly<nn::TransformerEncoderLayerImpl>(module)) {
    return LayerArguments(m->options);
  }
  if (const auto* m = Exactly<nn::TransformerDecoderLayerImpl>(module)) {
    return LayerArguments(m->options);
  }
  if (const auto* m = Exactly<nn::TransformerEncoderImpl>(module)) {
    return NamedValues{{"num_layers", IntValue(m->options.num_layers())}};
  }
  if (const auto* m = Exactly<nn::TransformerDecoderImpl>(module)) {
    return NamedValues{{"num_layers", IntValue(m->options.num_layers())}};
  }
  if (const auto* m = Exactly<nn::TransformerImpl>(module)) {
    std::optional<NamedValues> values = LayerArguments(m->options);
    if (!values) return values;
    values->emplace_back("num_encoder_layers", IntValue(m->options.num_encoder_layers()));
    values->emplace_back("num_decoder_layers", IntValue(m->options.num_decoder_layers()));
    return values;
  }
  return std::nullopt;
}

// Sets type and arguments, or the class name and the incomplete flag.
void ReadSelf(const nn::Module& module, ModuleTree& node) {
  node.set_training(module.is_training());
  if (const auto* built = dynamic_cast<const BuiltModule*>(&module)) {
    node.MergeFrom(built->node());
    node.set_training(module.is_training());
    // Another client may have stored invalid arguments, which this save would be refused
    // for: mark the module incomplete.
    if (!CheckArguments("arguments", node).ok()) node.set_incomplete(true);
    return;
  }
  const LeafType* leaf = FindLeaf(module);
  std::optional<NamedValues> values =
      leaf != nullptr ? leaf->read(module) : HolderArguments(module);
  node.set_type(leaf != nullptr ? leaf->name : ClassName(module));
  if (values) DropFallbacks(node.type(), *values);
  if (values && CompleteArguments("arguments", *values, node).ok()) return;
  node.clear_arguments();
  node.set_incomplete(true);
}

absl::Status ReadTree(const nn::Module& module, int depth, ModuleTree& node) {
  // Bounds the recursion. ValidateArchitecture() refuses the deeper tree.
  if (depth > kMaxModuleDepth) return absl::OkStatus();
  ReadSelf(module, node);
  // A class derived from Sequential runs its children in order, which is recorded
  // explicitly, because its type name does not imply it.
  const bool runs_children = node.type() != "Sequential" && node.forward().empty() &&
                             dynamic_cast<const nn::SequentialImpl*>(&module) != nullptr;
  for (const auto& child : module.named_children()) {
    ModuleTree& below = *node.add_children();
    below.set_name(child.key());
    if (auto s = ReadTree(*child.value(), depth + 1, below); !s.ok()) return s;
    if (runs_children) node.add_forward(child.key());
    // Python has a class of its own for the final Linear of an attention.
    if (node.type() == "MultiheadAttention" && below.type() == "Linear") {
      below.set_type("NonDynamicallyQuantizableLinear");
    }
  }
  return absl::OkStatus();
}

absl::Status SetForward(const ForwardByPath& forward, ModuleTree& root) {
  for (const auto& [path, steps] : forward) {
    ModuleTree* node = FindModule(root, path);
    const std::string field = absl::StrCat("forward[`", path, "`]");
    if (node == nullptr) return InvalidField(field, "no such module");
    node->clear_forward();
    for (const std::string& text : steps) {
      if (auto step = ParseStep(field, text, *node); !step.ok()) return step.status();
      node->add_forward(text);
    }
  }
  return absl::OkStatus();
}

}  // namespace architecture_read

absl::StatusOr<v1::Architecture> ReadArchitecture(const torch::nn::Module& module,
                                                  const ForwardByPath& forward) {
  v1::Architecture architecture;
  ModuleTree& root = *architecture.mutable_root();
  if (auto s = architecture_read::ReadTree(module, 1, root); !s.ok()) return s;
  if (auto s = architecture_read::SetForward(forward, root); !s.ok()) return s;
  if (auto s = ValidateArchitecture("architecture", architecture); !s.ok()) return s;
  return architecture;
}

}  // namespace modelstore::torch_internal
