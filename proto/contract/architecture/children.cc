#include "proto/contract/architecture/children.h"

#include <string>

#include "absl/strings/str_cat.h"
#include "proto/contract/architecture/architecture.h"
#include "proto/contract/architecture/value.h"
#include "proto/contract/errors.h"

namespace modelstore {
namespace {

// Adds children of known types and keeps the first error.
class Children {
 public:
  Children(absl::string_view field, ModuleTree& module)
      : field_(field), module_(module) {}

  // An argument of the module.
  const v1::Value& operator[](absl::string_view name) const {
    return *FindArgument(module_, name);
  }

  Children& Add(const char* name, absl::string_view type, const NamedValues& given) {
    if (!status_.ok()) return *this;
    absl::StatusOr<ModuleTree> child = MakeModule(field_, type, given);
    if (!child.ok()) {
      status_ = child.status();
      return *this;
    }
    child->set_name(name);
    *module_.add_children() = *std::move(child);
    return *this;
  }

  absl::Status status() const { return status_; }

 private:
  const absl::string_view field_;
  ModuleTree& module_;
  absl::Status status_;
};

absl::Status AddToAttention(absl::string_view field, ModuleTree& module) {
  Children c(field, module);
  c.Add("out_proj", "NonDynamicallyQuantizableLinear",
        {{"", c["embed_dim"]}, {"", c["embed_dim"]}, {"bias", c["bias"]}});
  return c.status();
}

NamedValues NormArguments(const Children& c) {
  return {{"", c["d_model"]}, {"eps", c["layer_norm_eps"]}};
}

absl::Status AddToLayer(absl::string_view field, bool decoder, ModuleTree& module) {
  Children c(field, module);
  const NamedValues attention = {{"", c["d_model"]},
                                 {"", c["nhead"]},
                                 {"dropout", c["dropout"]},
                                 {"batch_first", c["batch_first"]}};
  const NamedValues norm = NormArguments(c), dropout = {{"", c["dropout"]}};
  c.Add("self_attn", "MultiheadAttention", attention);
  if (decoder) c.Add("multihead_attn", "MultiheadAttention", attention);
  c.Add("linear1", "Linear", {{"", c["d_model"]}, {"", c["dim_feedforward"]}})
      .Add("dropout", "Dropout", dropout)
      .Add("linear2", "Linear", {{"", c["dim_feedforward"]}, {"", c["d_model"]}})
      .Add("norm1", "LayerNorm", norm)
      .Add("norm2", "LayerNorm", norm);
  if (decoder) c.Add("norm3", "LayerNorm", norm);
  c.Add("dropout1", "Dropout", dropout).Add("dropout2", "Dropout", dropout);
  if (decoder) c.Add("dropout3", "Dropout", dropout);
  return c.status();
}

absl::Status AddToTransformer(absl::string_view field, ModuleTree& module) {
  Children c(field, module);
  const NamedValues norm_arguments = NormArguments(c);
  for (const char* side : {"Encoder", "Decoder"}) {
    const std::string layers =
        absl::StrCat("num_", side[0] == 'E' ? "encoder" : "decoder", "_layers");
    NamedValues arguments;
    for (const char* name :
         {"d_model", "nhead", "dim_feedforward", "dropout", "activation",
          "layer_norm_eps", "batch_first", "norm_first"}) {
      arguments.emplace_back(name, c[name]);
    }
    auto layer = MakeModule(field, absl::StrCat("Transformer", side, "Layer"), arguments);
    if (!layer.ok()) return layer.status();
    absl::StatusOr<ModuleTree> norm = MakeModule(field, "LayerNorm", norm_arguments);
    if (!norm.ok()) return norm.status();
    auto coder =
        MakeModule(field, absl::StrCat("Transformer", side), {{"num_layers", c[layers]}});
    if (!coder.ok()) return coder.status();
    coder->set_name(side[0] == 'E' ? "encoder" : "decoder");
    if (auto s = AddLayers(field, *layer, *norm, *coder); !s.ok()) return s;
    *module.add_children() = *std::move(coder);
  }
  return absl::OkStatus();
}

}  // namespace

absl::Status AddOwnChildren(absl::string_view field, ModuleTree& module) {
  const std::string& type = module.type();
  if (type == "MultiheadAttention") return AddToAttention(field, module);
  if (type == "TransformerEncoderLayer") return AddToLayer(field, false, module);
  if (type == "TransformerDecoderLayer") return AddToLayer(field, true, module);
  if (type == "Transformer") return AddToTransformer(field, module);
  return absl::OkStatus();
}

absl::Status AddLayers(absl::string_view field, const ModuleTree& layer,
                       const std::optional<ModuleTree>& norm, ModuleTree& module) {
  const int64_t count = AsInt(*FindArgument(module, "num_layers")).value_or(0);
  if (count > kMaxModules / CountModules(layer)) {
    return InvalidField(
        field, absl::StrCat(module.type(), ": num_layers makes more than ", kMaxModules,
                            " modules"));
  }
  ModuleTree* layers = module.add_children();
  layers->set_name("layers");
  layers->set_type("ModuleList");
  layers->set_training(true);
  for (int64_t i = 0; i < count; ++i) {
    *layers->add_children() = layer;
    layers->mutable_children(static_cast<int>(i))->set_name(absl::StrCat(i));
  }
  if (norm) {
    *module.add_children() = *norm;
    module.mutable_children(1)->set_name("norm");
  }
  return absl::OkStatus();
}

}  // namespace modelstore
