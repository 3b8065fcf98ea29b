#include "server/modify/neighbours.h"

#include <array>
#include <cstdint>
#include <optional>

#include "absl/algorithm/container.h"
#include "absl/container/flat_hash_map.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "proto/contract/architecture/architecture.h"
#include "proto/contract/architecture/value.h"

namespace modelstore::server::modify {
namespace {

// The dimension of a tensor that holds its features: the last one, or the channels.
enum class Axis : uint8_t { kLast, kChannel };

struct Sizes {
  Axis axis;
  std::optional<int64_t> in;
  std::optional<int64_t> out;
};

std::optional<int64_t> SizeOf(const ModuleTree& module, absl::string_view name) {
  const v1::Value* value = FindArgument(module, name);
  return value == nullptr ? std::nullopt : AsInt(*value);
}

// Input and output size of a module without children; absent if unknown.
std::optional<Sizes> SizesOf(const ModuleTree& module) {
  const std::string& type = module.type();
  if (type == "Linear") {
    return Sizes{Axis::kLast, SizeOf(module, "in_features"),
                 SizeOf(module, "out_features")};
  }
  if (absl::StartsWith(type, "Conv")) {
    return Sizes{Axis::kChannel, SizeOf(module, "in_channels"),
                 SizeOf(module, "out_channels")};
  }
  if (type == "Embedding") {
    return Sizes{Axis::kLast, std::nullopt, SizeOf(module, "embedding_dim")};
  }
  return std::nullopt;
}

// Whether the module preserves the number of features: it works element by element, or on
// other dimensions.
bool KeepsFeatures(const ModuleTree& module, Axis axis) {
  static constexpr std::array<absl::string_view, 27> kElementwise = {
      "ReLU",    "ReLU6",      "ELU",       "SELU",     "CELU",        "GELU",
      "SiLU",    "Mish",       "Sigmoid",   "Tanh",     "LeakyReLU",   "Softplus",
      "Dropout", "Hardtanh",   "Hardswish", "Identity", "Hardsigmoid", "Softsign",
      "PReLU",   "LogSigmoid", "Softmax",   "Softmin",  "LogSoftmax",  "Tanhshrink",
      "RReLU",   "Hardshrink", "Softshrink"};
  const std::string& type = module.type();
  if (absl::c_linear_search(kElementwise, type)) return true;
  if (absl::StartsWith(type, "Dropout") || absl::StrContains(type, "Norm")) return true;
  return axis == Axis::kChannel && absl::StrContains(type, "Pool");
}

// Number of features that a normalization layer expects.
std::optional<int64_t> NormSize(const ModuleTree& module) {
  const v1::Value* shape = FindArgument(module, "normalized_shape");
  if (shape != nullptr) {
    const auto sizes = AsInts(*shape);
    if (sizes.has_value() && !sizes->empty()) return sizes->back();
    return std::nullopt;
  }
  const auto channels = SizeOf(module, "num_channels");
  return channels.has_value() ? channels : SizeOf(module, "num_features");
}

// Walks the modules in the order of execution with the size of the current output in
// `known_`, and collects mismatches.
class Walker {
 public:
  void Run(const ModuleTree& module, const std::string& path) {
    if (module.children().empty()) return Leaf(module, path);
    const std::vector<std::string> steps = ForwardSteps(module);
    // The order of execution is unknown: each child is checked on its own.
    if (steps.empty()) {
      for (const ModuleTree& child : module.children()) {
        known_.reset();
        Run(child, JoinModulePath(path, child.name()));
      }
      known_.reset();
      return;
    }
    const StepParser parser(module);
    absl::flat_hash_map<absl::string_view, const ModuleTree*> children;
    for (const ModuleTree& child : module.children())
      children.emplace(child.name(), &child);
    for (const std::string& text : steps) {
      const auto step = parser.Parse("forward", text);
      if (!step.ok() || (step->child.empty() && step->function != "relu")) {
        known_.reset();
      } else if (!step->child.empty()) {
        Run(*children[step->child], JoinModulePath(path, step->child));
      }
    }
  }

  std::vector<Mismatch> Take() { return std::move(found_); }

 private:
  void Leaf(const ModuleTree& module, const std::string& path) {
    const std::optional<Sizes> sizes = SizesOf(module);
    if (sizes.has_value()) {
      if (sizes->in.has_value()) Check(sizes->axis, *sizes->in, path);
      known_.reset();
      if (sizes->out.has_value()) known_ = {sizes->axis, *sizes->out, path};
      return;
    }
    if (!known_.has_value()) return;
    if (!KeepsFeatures(module, known_->axis)) {
      known_.reset();
      return;
    }
    const Axis axis = module.type() == "LayerNorm" ? Axis::kLast : known_->axis;
    if (const auto norm = NormSize(module)) Check(axis, *norm, path);
  }

  void Check(Axis axis, int64_t takes, const std::string& path) {
    if (!known_.has_value() || known_->axis != axis || known_->size == takes) return;
    const char* what = axis == Axis::kLast ? "features" : "channels";
    found_.push_back({path, absl::StrCat("takes ", takes, " ", what, ", ", known_->path,
                                         " before it gives ", known_->size)});
  }

  struct Given {
    Axis axis;
    int64_t size;
    std::string path;
  };
  // Output size of the last module that has one, with its path; absent if unknown.
  std::optional<Given> known_;
  std::vector<Mismatch> found_;
};

}  // namespace

std::vector<Mismatch> FindMismatches(const ModuleTree& root) {
  Walker walker;
  walker.Run(root, "");
  return walker.Take();
}

}  // namespace modelstore::server::modify
