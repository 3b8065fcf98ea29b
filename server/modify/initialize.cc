#include "server/modify/initialize.h"

#include <cmath>
#include <optional>
#include <utility>

#include "absl/container/flat_hash_map.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "proto/contract/architecture/architecture.h"
#include "proto/contract/architecture/value.h"
#include "proto/contract/errors.h"
#include "server/modify/random_source.h"
#include "server/modify/repeat_source.h"

namespace modelstore::server::modify {
namespace {

using Scheme = v1::Initialization;

int64_t ElementsOf(const std::vector<int64_t>& shape) {
  int64_t elements = 1;
  for (const int64_t size : shape) elements *= size;
  return elements;
}

// As torch.nn.init._calculate_fan_in_and_fan_out(). `shape` has at least two dimensions.
struct Fans {
  explicit Fans(const std::vector<int64_t>& shape) {
    double field = 1;
    for (size_t d = 2; d < shape.size(); ++d) field *= static_cast<double>(shape[d]);
    in = static_cast<double>(shape[1]) * field;
    out = static_cast<double>(shape[0]) * field;
  }
  double in;
  double out;
};

// As torch.nn.init.calculate_gain('leaky_relu', slope).
double Gain(double slope) { return std::sqrt(2.0 / (1 + slope * slope)); }

// Initializes the tensors of a module as Python does: first Construct(), which repeats
// what the constructors draw, then Apply(), which repeats the functions of the scheme.
// All draws use one generator, so their order and number must be exactly Python's; that
// is why Construct() draws values that Apply() replaces.
class Initializer {
 public:
  Initializer(std::vector<TensorSpec> specs, const v1::Initialization& how,
              KeepGoing keep_going)
      : how_(how),
        keep_going_(keep_going),
        // The scheme replaces all parameters by constants, so no drawn value remains.
        draws_nothing_(how.scheme() == Scheme::SCHEME_ZEROS ||
                       how.scheme() == Scheme::SCHEME_ONES ||
                       how.scheme() == Scheme::SCHEME_CONSTANT),
        draws_(how.seed()) {
    for (TensorSpec& spec : specs) {
      index_.emplace(spec.key, tensors_.size());
      own_[SplitModulePath(spec.key).first].push_back(tensors_.size());
      tensors_.push_back({std::move(spec), nullptr});
    }
  }

  // Initializes the module at `path` as its constructor does, children first.
  absl::Status Construct(const ModuleTree& module, const std::string& path);
  // Applies the scheme to all parameters, in order.
  absl::Status Apply();
  std::vector<NewTensor> Take() { return std::move(tensors_); }

 private:
  // The tensor `name` of the module at `path`; null if there is none.
  NewTensor* Find(const std::string& path, absl::string_view name) {
    auto it = index_.find(JoinModulePath(path, name));
    return it == index_.end() ? nullptr : &tensors_[it->second];
  }
  absl::Status Set(NewTensor& tensor, absl::StatusOr<SourcePtr> source) {
    if (source.ok()) tensor.source = *std::move(source);
    return source.status();
  }
  absl::Status Fill(NewTensor& tensor, double value) {
    return Set(tensor, RepeatSource(tensor.spec.dtype, value, Elements(tensor)));
  }
  absl::Status Uniform(NewTensor& tensor, double low, double high) {
    if (draws_nothing_) return Fill(tensor, 0);
    return Set(tensor, draws_.Uniform(Elements(tensor), low, high, keep_going_));
  }
  absl::Status Normal(NewTensor& tensor, double mean, double std) {
    if (draws_nothing_) return Fill(tensor, 0);
    return Set(tensor, draws_.Normal(Elements(tensor), mean, std, keep_going_));
  }
  static int64_t Elements(const NewTensor& tensor) {
    return ElementsOf(tensor.spec.shape);
  }
  // xavier_uniform_() and xavier_normal_(). Like Python, these draw nothing for a tensor
  // without elements.
  absl::Status Xavier(NewTensor& tensor, double gain, bool uniform) {
    if (Elements(tensor) == 0) return Fill(tensor, 0);
    const Fans fans(tensor.spec.shape);
    const double std = gain * std::sqrt(2.0 / (fans.in + fans.out));
    if (!uniform) return Normal(tensor, 0, std);
    const double bound = std::sqrt(3.0) * std;
    return Uniform(tensor, -bound, bound);
  }
  // kaiming_uniform_() and kaiming_normal_().
  absl::Status Kaiming(NewTensor& tensor, double slope, bool fan_out, bool uniform) {
    if (Elements(tensor) == 0) return Fill(tensor, 0);
    const Fans fans(tensor.spec.shape);
    const double std = Gain(slope) / std::sqrt(fan_out ? fans.out : fans.in);
    if (!uniform) return Normal(tensor, 0, std);
    const double bound = std::sqrt(3.0) * std;
    return Uniform(tensor, -bound, bound);
  }

  absl::Status ConstructOwn(const ModuleTree& module, const std::string& path);
  absl::Status WeightAndBias(const std::string& path);
  absl::Status Embedding(const ModuleTree& module, const std::string& path);
  absl::Status Attention(const std::string& path);
  absl::Status AllUniform(const std::string& path, double bound);
  absl::Status Constants(const ModuleTree& module, const std::string& path);
  absl::Status Layers(const ModuleTree& layers, const std::string& path);

  const v1::Initialization& how_;
  const KeepGoing keep_going_;
  const bool draws_nothing_;
  RandomDraws draws_;
  std::vector<NewTensor> tensors_;
  // Position in `tensors_`, by key.
  absl::flat_hash_map<std::string, size_t> index_;
  // Positions of the tensors that each module has itself, by its path.
  absl::flat_hash_map<std::string, std::vector<size_t>> own_;
};

// Linear and the convolutions: reset_parameters() draws the weight by kaiming_uniform_()
// with a = sqrt(5), and the bias within 1 / sqrt(fan_in).
absl::Status Initializer::WeightAndBias(const std::string& path) {
  NewTensor& weight = *Find(path, "weight");
  if (auto s = Kaiming(weight, std::sqrt(5.0), false, true); !s.ok()) return s;
  NewTensor* bias = Find(path, "bias");
  if (bias == nullptr) return absl::OkStatus();
  const double fan_in = Fans(weight.spec.shape).in;
  const double bound = fan_in > 0 ? 1 / std::sqrt(fan_in) : 0;
  return Uniform(*bias, -bound, bound);
}

// Embedding: normal values, and zeros in the row of `padding_idx`, which may be negative
// to count from the end. The row is drawn too, as in Python.
absl::Status Initializer::Embedding(const ModuleTree& module, const std::string& path) {
  NewTensor& weight = *Find(path, "weight");
  if (auto s = Normal(weight, 0, 1); !s.ok()) return s;
  const v1::Value* given = FindArgument(module, "padding_idx");
  const std::optional<int64_t> padding = given == nullptr ? std::nullopt : AsInt(*given);
  if (!padding.has_value()) return absl::OkStatus();
  const int64_t rows = weight.spec.shape[0], width = weight.spec.shape[1];
  const int64_t row = *padding < 0 ? *padding + rows : *padding;
  if (row < 0 || row >= rows) {
    return absl::InvalidArgumentError(
        absl::StrCat("padding_idx ", *padding, " is none of ", rows, " rows"));
  }
  auto zeros = RepeatSource(weight.spec.dtype, 0, width);
  if (!zeros.ok()) return zeros.status();
  const int64_t row_bytes = width * ElementSize(weight.spec.dtype);
  const SourcePtr drawn = weight.source;
  weight.source =
      ConcatSource({RangeSource(drawn, 0, row * row_bytes), *std::move(zeros),
                    RangeSource(drawn, (row + 1) * row_bytes, rows * row_bytes)});
  return absl::OkStatus();
}

// MultiheadAttention. Its child out_proj has been constructed before; here the bias of
// that child becomes zero, as in _reset_parameters().
absl::Status Initializer::Attention(const std::string& path) {
  for (const char* name :
       {"in_proj_weight", "q_proj_weight", "k_proj_weight", "v_proj_weight"}) {
    NewTensor* weight = Find(path, name);
    if (weight == nullptr) continue;
    if (auto s = Xavier(*weight, 1, true); !s.ok()) return s;
  }
  for (const char* name : {"in_proj_bias", "out_proj.bias"}) {
    NewTensor* bias = Find(path, name);
    if (bias == nullptr) continue;
    if (auto s = Fill(*bias, 0); !s.ok()) return s;
  }
  for (const char* name : {"bias_k", "bias_v"}) {
    NewTensor* bias = Find(path, name);
    if (bias == nullptr) continue;
    if (auto s = Xavier(*bias, 1, false); !s.ok()) return s;
  }
  return absl::OkStatus();
}

// All own tensors of the module within the bound, in order: recurrent layers, Bilinear.
absl::Status Initializer::AllUniform(const std::string& path, double bound) {
  for (const size_t t : own_[path]) {
    if (auto s = Uniform(tensors_[t], -bound, bound); !s.ok()) return s;
  }
  return absl::OkStatus();
}

// Normalization layers: `weight` and `running_var` are one, all else is zero. PReLU: all
// are its argument `init`.
absl::Status Initializer::Constants(const ModuleTree& module, const std::string& path) {
  for (const size_t t : own_[path]) {
    NewTensor& tensor = tensors_[t];
    const absl::string_view name = SplitModulePath(tensor.spec.key).second;
    double value = name == "weight" || name == "running_var" ? 1 : 0;
    if (module.type() == "PReLU") {
      value = AsNumber(*FindArgument(module, "init")).value_or(0.25);
    }
    if (auto s = Fill(tensor, value); !s.ok()) return s;
  }
  return absl::OkStatus();
}

absl::Status Initializer::ConstructOwn(const ModuleTree& module,
                                       const std::string& path) {
  const std::string& type = module.type();
  if (type == "Linear" || type == "NonDynamicallyQuantizableLinear" ||
      absl::StartsWith(type, "Conv")) {
    return WeightAndBias(path);
  }
  if (type == "Bilinear") {
    return AllUniform(
        path, 1 / std::sqrt(static_cast<double>(Find(path, "weight")->spec.shape[1])));
  }
  if (type == "Embedding" || type == "EmbeddingBag") return Embedding(module, path);
  if (type == "MultiheadAttention") return Attention(path);
  // RNN, LSTM, GRU and their cells.
  if (const v1::Value* hidden = FindArgument(module, "hidden_size")) {
    const int64_t size = AsInt(*hidden).value_or(0);
    return AllUniform(path, size > 0 ? 1 / std::sqrt(static_cast<double>(size)) : 0);
  }
  return Constants(module, path);
}

// The layers of a TransformerEncoder or -Decoder. Python constructs one layer and copies
// it, so the others draw nothing and share its sources.
absl::Status Initializer::Layers(const ModuleTree& layers, const std::string& path) {
  if (layers.children().empty()) return absl::OkStatus();
  const std::string first = JoinModulePath(path, layers.children(0).name());
  if (auto s = Construct(layers.children(0), first); !s.ok()) return s;
  std::vector<const NewTensor*> of_first;
  for (const NewTensor& tensor : tensors_) {
    if (absl::StartsWith(tensor.spec.key, first + ".")) of_first.push_back(&tensor);
  }
  for (int i = 1; i < layers.children_size(); ++i) {
    const std::string copy = JoinModulePath(path, layers.children(i).name());
    for (const NewTensor* tensor : of_first) {
      NewTensor* same = Find(copy, tensor->spec.key.substr(first.size() + 1));
      if (same != nullptr) same->source = tensor->source;
    }
  }
  return absl::OkStatus();
}

absl::Status Initializer::Construct(const ModuleTree& module, const std::string& path) {
  const std::string& type = module.type();
  const bool copies = type == "TransformerEncoder" || type == "TransformerDecoder";
  for (const ModuleTree& child : module.children()) {
    const std::string child_path = JoinModulePath(path, child.name());
    auto s = copies && child.name() == "layers" ? Layers(child, child_path)
                                                : Construct(child, child_path);
    if (!s.ok()) return s;
  }
  if (auto s = ConstructOwn(module, path); !s.ok()) return s;
  // Transformer._reset_parameters() draws all its matrices again.
  if (type != "Transformer") return absl::OkStatus();
  for (NewTensor& tensor : tensors_) {
    const bool below =
        path.empty() || absl::StartsWith(tensor.spec.key, absl::StrCat(path, "."));
    if (!below || tensor.spec.buffer || tensor.spec.shape.size() < 2) continue;
    if (auto s = Xavier(tensor, 1, true); !s.ok()) return s;
  }
  return absl::OkStatus();
}

absl::Status Initializer::Apply() {
  const v1::Initialization& how = how_;
  const double std = how.has_std() ? how.std() : 1;
  const double high = how.has_high() ? how.high() : 1;
  const double gain = how.has_gain() ? how.gain() : 1;
  for (NewTensor& tensor : tensors_) {
    if (tensor.spec.buffer) continue;
    // Xavier and Kaiming need two dimensions: vectors keep their values from the
    // constructor.
    const bool matrix = tensor.spec.shape.size() >= 2;
    absl::Status s;
    switch (how.scheme()) {
      case Scheme::SCHEME_ZEROS:
        s = Fill(tensor, 0);
        break;
      case Scheme::SCHEME_ONES:
        s = Fill(tensor, 1);
        break;
      case Scheme::SCHEME_CONSTANT:
        s = Fill(tensor, how.value());
        break;
      case Scheme::SCHEME_NORMAL:
        s = Normal(tensor, how.mean(), std);
        break;
      case Scheme::SCHEME_UNIFORM:
        s = Uniform(tensor, how.low(), high);
        break;
      case Scheme::SCHEME_XAVIER_UNIFORM:
      case Scheme::SCHEME_XAVIER_NORMAL:
        if (matrix)
          s = Xavier(tensor, gain, how.scheme() == Scheme::SCHEME_XAVIER_UNIFORM);
        break;
      case Scheme::SCHEME_KAIMING_UNIFORM:
      case Scheme::SCHEME_KAIMING_NORMAL:
        if (matrix) {
          s = Kaiming(tensor, how.negative_slope(), how.fan_out(),
                      how.scheme() == Scheme::SCHEME_KAIMING_UNIFORM);
        }
        break;
      default:
        break;
    }
    if (!s.ok()) return s;
  }
  return absl::OkStatus();
}

}  // namespace

absl::Status CheckInitialization(absl::string_view field, const v1::Initialization& how) {
  auto invalid = [&](absl::string_view name, absl::string_view what) {
    return InvalidField(absl::StrCat(field, ".", name), what);
  };
  if (!v1::Initialization::Scheme_IsValid(how.scheme())) {
    return invalid("scheme", "unknown");
  }
  const double std = how.has_std() ? how.std() : 1;
  if (!std::isfinite(std) || std < 0) return invalid("std", "must be finite, at least 0");
  if (!std::isfinite(how.mean())) return invalid("mean", "must be finite");
  const double high = how.has_high() ? how.high() : 1;
  if (!std::isfinite(how.low())) return invalid("low", "must be finite");
  if (how.scheme() == Scheme::SCHEME_UNIFORM &&
      (!std::isfinite(high) || high < how.low())) {
    return invalid("high", "must be finite, not below low");
  }
  if (how.has_gain() && !std::isfinite(how.gain()))
    return invalid("gain", "must be finite");
  if (!std::isfinite(how.negative_slope())) {
    return invalid("negative_slope", "must be finite");
  }
  return absl::OkStatus();
}

absl::StatusOr<std::vector<NewTensor>> InitializeModule(const ModuleTree& module,
                                                        const v1::Initialization& how,
                                                        KeepGoing keep_going) {
  auto wanted = TensorsOf(module);
  if (!wanted.ok()) return wanted.status();
  if (!wanted->unknown.empty()) {
    return absl::InvalidArgumentError(absl::StrCat(
        "the parameters of ", module.type(), " are not known",
        wanted->unknown[0].empty() ? "" : absl::StrCat(", at ", wanted->unknown[0])));
  }
  // In double, which cannot overflow: sizes come from the request.
  double elements = 0;
  for (const TensorSpec& spec : wanted->tensors) {
    double size = 1;
    for (const int64_t dimension : spec.shape) size *= static_cast<double>(dimension);
    elements += size;
  }
  if (elements > static_cast<double>(kMaxNewElements)) {
    return absl::InvalidArgumentError(absl::StrCat(
        "has ", elements, " elements; one edit makes at most ", kMaxNewElements));
  }
  Initializer initializer(std::move(wanted->tensors), how, keep_going);
  if (auto s = initializer.Construct(module, ""); !s.ok()) return s;
  if (auto s = initializer.Apply(); !s.ok()) return s;
  return initializer.Take();
}

}  // namespace modelstore::server::modify
