#include "proto/contract/architecture/tensors.h"

#include <functional>

#include "absl/container/flat_hash_map.h"
#include "absl/container/flat_hash_set.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "proto/contract/architecture/architecture.h"
#include "proto/contract/architecture/value.h"
#include "proto/contract/errors.h"
#include "proto/contract/limits.h"

namespace modelstore {
namespace {

// Collects the tensors of one module. The arguments are in their stored form, so each is
// present and of its kind.
class Collector {
 public:
  explicit Collector(const ModuleTree& module) : module_(module) {}

  int64_t Size(absl::string_view name) const {
    return AsInt(*FindArgument(module_, name)).value_or(0);
  }
  std::vector<int64_t> Sizes(absl::string_view name) const {
    return AsInts(*FindArgument(module_, name)).value_or(std::vector<int64_t>());
  }
  bool Flag(absl::string_view name) const { return FlagOf(module_, name); }

  void Parameter(absl::string_view key, std::vector<int64_t> shape) {
    tensors_.push_back({std::string(key), std::move(shape)});
  }
  void Buffer(absl::string_view key, std::vector<int64_t> shape,
              DType dtype = DType::kFloat32) {
    tensors_.push_back({std::string(key), std::move(shape), dtype, /*buffer=*/true});
  }

  std::vector<TensorSpec> Take() { return std::move(tensors_); }

 private:
  const ModuleTree& module_;
  std::vector<TensorSpec> tensors_;
};

void Linear(Collector& c) {
  c.Parameter("weight", {c.Size("out_features"), c.Size("in_features")});
  if (c.Flag("bias")) c.Parameter("bias", {c.Size("out_features")});
}

void Bilinear(Collector& c) {
  c.Parameter("weight",
              {c.Size("out_features"), c.Size("in1_features"), c.Size("in2_features")});
  if (c.Flag("bias")) c.Parameter("bias", {c.Size("out_features")});
}

// Weights are [out, in / groups, kernel...]; in and out are swapped if transposed.
void Convolution(Collector& c, bool transposed) {
  int64_t out = c.Size("out_channels"), in = c.Size("in_channels");
  const int64_t bias = out, groups = c.Size("groups");
  if (transposed) std::swap(out, in);
  std::vector<int64_t> shape = {out, in / groups};
  for (const int64_t size : c.Sizes("kernel_size")) shape.push_back(size);
  c.Parameter("weight", shape);
  if (c.Flag("bias")) c.Parameter("bias", {bias});
}

void Norm(Collector& c) {
  const std::vector<int64_t> features = {c.Size("num_features")};
  if (c.Flag("affine")) {
    c.Parameter("weight", features);
    c.Parameter("bias", features);
  }
  if (!c.Flag("track_running_stats")) return;
  c.Buffer("running_mean", features);
  c.Buffer("running_var", features);
  c.Buffer("num_batches_tracked", {}, DType::kInt64);
}

// Weight and bias of `shape`, if the argument `flag` is True.
void Affine(Collector& c, absl::string_view flag, const std::vector<int64_t>& shape) {
  if (!c.Flag(flag)) return;
  c.Parameter("weight", shape);
  c.Parameter("bias", shape);
}

void Embedding(Collector& c) {
  c.Parameter("weight", {c.Size("num_embeddings"), c.Size("embedding_dim")});
}

// `gates` stacked matrices per weight: 1 for RNN, 3 for GRU, 4 for LSTM. `projection` is
// the proj_size of an LSTM, 0 for none.
void Recurrent(Collector& c, int64_t gates, int64_t projection) {
  const int64_t hidden = c.Size("hidden_size");
  const int64_t out = projection > 0 ? projection : hidden;
  const int directions = c.Flag("bidirectional") ? 2 : 1;
  const int64_t layers = c.Size("num_layers");
  for (int64_t layer = 0; layer < layers; ++layer) {
    const int64_t in = layer == 0 ? c.Size("input_size") : out * directions;
    for (const char* reverse : {"", "_reverse"}) {
      if (*reverse != '\0' && directions == 1) continue;
      const std::string suffix = absl::StrCat("_l", layer, reverse);
      c.Parameter("weight_ih" + suffix, {gates * hidden, in});
      c.Parameter("weight_hh" + suffix, {gates * hidden, out});
      if (c.Flag("bias")) {
        c.Parameter("bias_ih" + suffix, {gates * hidden});
        c.Parameter("bias_hh" + suffix, {gates * hidden});
      }
      if (projection > 0) c.Parameter("weight_hr" + suffix, {projection, hidden});
    }
  }
}

void Cell(Collector& c, int64_t gates) {
  const int64_t hidden = c.Size("hidden_size");
  c.Parameter("weight_ih", {gates * hidden, c.Size("input_size")});
  c.Parameter("weight_hh", {gates * hidden, hidden});
  if (!c.Flag("bias")) return;
  c.Parameter("bias_ih", {gates * hidden});
  c.Parameter("bias_hh", {gates * hidden});
}

// A module has either in_proj_weight or three separate weights.
void Attention(Collector& c) {
  const int64_t embed = c.Size("embed_dim"), kdim = c.Size("kdim"), vdim = c.Size("vdim");
  if (kdim == embed && vdim == embed) {
    c.Parameter("in_proj_weight", {3 * embed, embed});
  } else {
    c.Parameter("q_proj_weight", {embed, embed});
    c.Parameter("k_proj_weight", {embed, kdim});
    c.Parameter("v_proj_weight", {embed, vdim});
  }
  if (c.Flag("bias")) c.Parameter("in_proj_bias", {3 * embed});
  if (!c.Flag("add_bias_kv")) return;
  c.Parameter("bias_k", {1, 1, embed});
  c.Parameter("bias_v", {1, 1, embed});
}

using Rule = std::function<void(Collector&)>;

const Rule* FindRule(absl::string_view type) {
  static const auto* const rules = [] {
    auto* r = new absl::flat_hash_map<absl::string_view, Rule>{
        {"Linear", Linear},
        {"NonDynamicallyQuantizableLinear", Linear},
        {"Bilinear", Bilinear},
        {"Embedding", Embedding},
        {"EmbeddingBag", Embedding},
        {"GroupNorm",
         [](Collector& c) { Affine(c, "affine", {c.Size("num_channels")}); }},
        {"LayerNorm",
         [](Collector& c) {
           Affine(c, "elementwise_affine", c.Sizes("normalized_shape"));
         }},
        {"RNN", [](Collector& c) { Recurrent(c, 1, 0); }},
        {"LSTM", [](Collector& c) { Recurrent(c, 4, c.Size("proj_size")); }},
        {"GRU", [](Collector& c) { Recurrent(c, 3, 0); }},
        {"RNNCell", [](Collector& c) { Cell(c, 1); }},
        {"LSTMCell", [](Collector& c) { Cell(c, 4); }},
        {"GRUCell", [](Collector& c) { Cell(c, 3); }},
        {"MultiheadAttention", Attention},
        {"PReLU",
         [](Collector& c) { c.Parameter("weight", {c.Size("num_parameters")}); }},
        {"SyncBatchNorm", Norm}};
    for (const char* dims : {"1d", "2d", "3d"}) {
      // The names are literals of the table.
      const auto name = [&](const char* kind) {
        return absl::string_view(FindModuleType(absl::StrCat(kind, dims))->name);
      };
      r->emplace(name("Conv"), [](Collector& c) { Convolution(c, false); });
      r->emplace(name("ConvTranspose"), [](Collector& c) { Convolution(c, true); });
      r->emplace(name("BatchNorm"), Norm);
      r->emplace(name("InstanceNorm"), Norm);
    }
    return r;
  }();
  const auto found = rules->find(type);
  return found == rules->end() ? nullptr : &found->second;
}

// Whether the module's own tensors cannot be computed from its type and arguments.
bool OwnTensorsUnknown(const ModuleTree& module) {
  return !CheckComplete("arguments", module).ok();
}

absl::Status Walk(const ModuleTree& module, const std::string& path, int depth,
                  ArchitectureTensors& found) {
  if (depth > kMaxModuleDepth) {
    return InvalidField("architecture",
                        absl::StrCat("more than ", kMaxModuleDepth, " levels deep"));
  }
  const absl::StatusOr<std::vector<TensorSpec>> own = ModuleTensors(module);
  if (!own.ok() || OwnTensorsUnknown(module)) {
    found.unknown.push_back(path);
  } else {
    for (const TensorSpec& tensor : *own) {
      found.tensors.push_back(tensor);
      found.tensors.back().key = JoinModulePath(path, tensor.key);
    }
  }
  if (static_cast<int64_t>(found.tensors.size()) > kMaxTensors) {
    return InvalidField("architecture",
                        absl::StrCat("has more than ", kMaxTensors, " tensors"));
  }
  for (const ModuleTree& child : module.children()) {
    auto s = Walk(child, JoinModulePath(path, child.name()), depth + 1, found);
    if (!s.ok()) return s;
  }
  return absl::OkStatus();
}

std::string ShapeText(const std::vector<int64_t>& shape) {
  return absl::StrCat("[", absl::StrJoin(shape, ", "), "]");
}

}  // namespace

absl::StatusOr<std::vector<TensorSpec>> ModuleTensors(const ModuleTree& module) {
  const Rule* rule = FindRule(module.type());
  if (rule == nullptr) return std::vector<TensorSpec>();
  NamedValues given;
  for (const auto& argument : module.arguments()) {
    // Arguments added by a later PyTorch are ignored: they create no known tensor.
    for (const ArgumentSpec& spec : FindModuleType(module.type())->arguments) {
      if (argument.name() == spec.name) given.emplace_back(spec.name, argument.value());
    }
  }
  ModuleTree complete;
  complete.set_type(module.type());
  if (auto s = CompleteArguments("arguments", given, complete); !s.ok()) return s;
  Collector collector(complete);
  (*rule)(collector);
  // Sizes are valid one by one; their product may still be too large for a tensor.
  std::vector<TensorSpec> tensors = collector.Take();
  for (const TensorSpec& tensor : tensors) {
    absl::StatusOr<int64_t> bytes = TensorBytes(tensor.dtype, tensor.shape);
    if (!bytes.ok()) return Annotate(bytes.status(), tensor.key);
  }
  return tensors;
}

absl::StatusOr<ArchitectureTensors> TensorsOf(const ModuleTree& module,
                                              absl::string_view path) {
  ArchitectureTensors found;
  if (auto s = Walk(module, std::string(path), 1, found); !s.ok()) return s;
  return found;
}

std::string Inconsistency::ToString() const {
  switch (kind) {
    case Kind::kMissing:
      return absl::StrCat(key, ": missing; the architecture has it with shape ",
                          ShapeText(expected));
    case Kind::kUnexpected:
      return absl::StrCat(key, ": belongs to no module of the architecture");
    case Kind::kShape:
      return absl::StrCat(key, ": shape ", ShapeText(expected), " by the architecture, ",
                          ShapeText(found), " stored");
  }
  return key;
}

absl::StatusOr<std::vector<Inconsistency>> FindInconsistencies(
    const v1::Architecture& architecture, const KeysAndShapes& state_dict) {
  const absl::StatusOr<ArchitectureTensors> wanted = TensorsOf(architecture.root());
  if (!wanted.ok()) return wanted.status();
  absl::flat_hash_map<absl::string_view, const std::vector<int64_t>*> stored;
  for (const auto& [key, shape] : state_dict) stored.emplace(key, &shape);
  const absl::flat_hash_set<absl::string_view> unknown(wanted->unknown.begin(),
                                                       wanted->unknown.end());
  std::vector<Inconsistency> inconsistencies;
  absl::flat_hash_set<absl::string_view> explained;
  for (const TensorSpec& tensor : wanted->tensors) {
    explained.insert(tensor.key);
    const auto found = stored.find(tensor.key);
    if (found == stored.end()) {
      inconsistencies.push_back(
          {Inconsistency::Kind::kMissing, tensor.key, tensor.shape, {}});
    } else if (*found->second != tensor.shape) {
      inconsistencies.push_back(
          {Inconsistency::Kind::kShape, tensor.key, tensor.shape, *found->second});
    }
  }
  for (const auto& [key, shape] : state_dict) {
    if (explained.contains(key) || unknown.contains(SplitModulePath(key).first)) continue;
    inconsistencies.push_back({Inconsistency::Kind::kUnexpected, key, {}, shape});
  }
  return inconsistencies;
}

}  // namespace modelstore
