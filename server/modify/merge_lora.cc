// Merges low-rank adapters (LoRA, as PEFT saves them) into the weights that they adapt.
#include <cmath>
#include <utility>

#include "absl/container/flat_hash_set.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/strip.h"
#include "proto/contract/weighted_sum.h"
#include "server/modify/apply_edit.h"
#include "server/modify/lora_tensor.h"
#include "server/modify/peft_keys.h"

namespace modelstore::server::modify {
namespace {

// Maximum number of tensors in a warning.
constexpr size_t kListed = 10;

std::string NameOf(DType dtype) { return std::string(DTypeName(dtype)); }

int64_t Elements(const WorkingTensor& tensor) {
  return tensor.source->size_bytes() / ElementSize(tensor.dtype);
}

// An adapter: the path of its module and the keys of its factors.
struct Adapter {
  std::string path;
  std::string key_a;
  std::string key_b;
};

// The path of the module if `key` is that of the factor, `lora_A` or `lora_B`, with or
// without PEFT's default adapter name; else absent.
std::optional<std::string> PathOf(absl::string_view key, absl::string_view factor) {
  for (const absl::string_view name : {"", ".default"}) {
    absl::string_view path = key;
    if (absl::ConsumeSuffix(&path, absl::StrCat(".", factor, name, ".weight"))) {
      return std::string(path);
    }
  }
  return std::nullopt;
}

// Finds the pairs of lora_A and lora_B. Any other key with `lora_`, such as that of an
// embedding's adapter, is an error: it would be lost without notice.
absl::StatusOr<std::vector<Adapter>> FindAdapters(WorkingCheckpoint& from,
                                                  const EditContext& context) {
  std::vector<Adapter> adapters;
  for (const WorkingTensor& tensor : from.tensors()) {
    if (tensor.section != "model" || !absl::StrContains(tensor.key, "lora_")) continue;
    const std::optional<std::string> path = PathOf(tensor.key, "lora_A");
    if (!path.has_value()) {
      const std::optional<std::string> of_b = PathOf(tensor.key, "lora_B");
      if (of_b.has_value() &&
          (from.Find("model", *of_b + ".lora_A.weight") != nullptr ||
           from.Find("model", *of_b + ".lora_A.default.weight") != nullptr)) {
        continue;
      }
      return context.Invalid(
          "checkpoint",
          absl::StrCat("holds ", tensor.key, ", which is no pair of lora_A and lora_B"));
    }
    std::string key_b = tensor.key;
    key_b.replace(path->size() + 1, 6, "lora_B");
    if (from.Find("model", key_b) == nullptr) {
      return context.Missing("checkpoint", "tensor", key_b);
    }
    adapters.push_back({*path, tensor.key, std::move(key_b)});
  }
  if (!adapters.empty()) return adapters;
  return context.Invalid("checkpoint", "holds no adapter: no key ends in .lora_A.weight");
}

// Finds the weight that the adapter of module `path` adapts, and records the module in
// `merged`. An adapter saved alone has PEFT's prefix, which the plain model lacks.
WorkingTensor* FindWeight(const std::string& path, MergedModules& merged,
                          EditContext& context) {
  const std::string bare(absl::StripPrefix(path, kWrapped));
  for (const std::string& module : {path, bare}) {
    for (const absl::string_view name : {".weight", ".base_layer.weight"}) {
      WorkingTensor* weight =
          context.checkpoint.Find("model", absl::StrCat(module, name));
      if (weight == nullptr) continue;
      merged.modules.insert(module);
      if (module == path && path != bare) merged.wrapped = true;
      return weight;
    }
  }
  return nullptr;
}

// Flattens all dimensions after the first, as for the factors of a convolution.
absl::StatusOr<LoraFactor> FactorOf(const WorkingTensor& tensor,
                                    const EditContext& context) {
  if (!CanSum(tensor.dtype) || tensor.shape.size() < 2 || Elements(tensor) == 0) {
    return context.Invalid(
        "checkpoint",
        absl::StrCat(tensor.key, " is ", NameOf(tensor.dtype), " [",
                     absl::StrJoin(tensor.shape, ", "),
                     "]: an adapter is floating-point, of two dimensions or more"));
  }
  return LoraFactor{tensor.source, tensor.dtype, tensor.shape[0],
                    Elements(tensor) / tensor.shape[0]};
}

absl::Status Merge(const Adapter& adapter, WorkingCheckpoint& from, double alpha,
                   MergedModules& merged, EditContext& context) {
  WorkingTensor* weight = FindWeight(adapter.path, merged, context);
  if (weight == nullptr) {
    return context.Missing("checkpoint", "tensor", adapter.path + ".weight");
  }
  auto a = FactorOf(*from.Find("model", adapter.key_a), context);
  if (!a.ok()) return a.status();
  auto b = FactorOf(*from.Find("model", adapter.key_b), context);
  if (!b.ok()) return b.status();
  if (!CanSum(weight->dtype)) {
    return context.Invalid(
        "checkpoint", absl::StrCat(weight->key, " is of type ", NameOf(weight->dtype),
                                   ", not floating-point"));
  }
  if (weight->shape.empty() || b->columns != a->rows || weight->shape[0] != b->rows ||
      Elements(*weight) != b->rows * a->columns) {
    return context.Invalid(
        "checkpoint",
        absl::StrCat("B * A of ", adapter.path, " is [", b->rows, ", ", a->columns,
                     "] by rank ", b->columns, " and ", a->rows, ", while ", weight->key,
                     " is [", absl::StrJoin(weight->shape, ", "), "]"));
  }
  if (a->rows > kMaxLoraRank || a->rows * a->columns > kMaxLoraElements) {
    return context.Invalid(
        "checkpoint", absl::StrCat(adapter.key_a, " is of rank ", a->rows, " and has ",
                                   a->rows * a->columns, " elements, of at most ",
                                   kMaxLoraRank, " and ", kMaxLoraElements));
  }
  const double scale = alpha / static_cast<double>(a->rows);
  const std::shared_ptr<LoraFactors>& factors = context.resources.lora_factors();
  auto s = context.resources.Reserve(
      factors->ExpectGrowth(a->rows * a->columns * static_cast<int64_t>(sizeof(double))));
  if (!s.ok()) return context.At("checkpoint", s);
  return ReplaceBytes(context, *weight,
                      LoraSource(weight->source, weight->dtype, *std::move(a),
                                 *std::move(b), scale, factors),
                      weight->dtype, weight->shape);
}

// UnwrapPeft() removes the wrapper of each adapted layer, and the checkpoint's own
// adapter would lose its layer.
absl::Status CheckHasNoAdapter(const EditContext& context) {
  for (const WorkingTensor& tensor : context.checkpoint.tensors()) {
    // For any name of the adapter.
    if (tensor.section != "model" || !(absl::StrContains(tensor.key, ".lora_A.") ||
                                       absl::StrContains(tensor.key, ".lora_B."))) {
      continue;
    }
    return context.Invalid(
        "checkpoint",
        absl::StrCat("the checkpoint being modified holds an adapter of its own, ",
                     tensor.key, ": merge it first, by a merge_lora without checkpoint"));
  }
  return absl::OkStatus();
}

// Warns about tensors of the adapter's checkpoint that are not part of an adapter.
void WarnAboutOthers(const WorkingCheckpoint& from,
                     const absl::flat_hash_set<std::string>& merged,
                     const EditContext& context) {
  std::vector<absl::string_view> others;
  size_t count = 0;
  for (const WorkingTensor& tensor : from.tensors()) {
    if (tensor.section != "model" || merged.contains(tensor.key)) continue;
    if (++count <= kListed) others.push_back(tensor.key);
  }
  if (count == 0) return;
  context.Warn(Warning::KIND_TENSORS_NOT_TAKEN, others[0],
               absl::StrCat(modify::NameOf(*from.base()), " holds ", count,
                            " tensor(s) beside the adapters, which were not taken: ",
                            absl::StrJoin(others, ", "), count > kListed ? ", ..." : "",
                            ". Take them with take_from if they were trained too"));
}

// Whether `from` is the version that is modified.
bool IsBase(const WorkingCheckpoint& from, const EditContext& context) {
  const storage::Read& base = *context.checkpoint.base();
  return from.base()->model().uid() == base.model().uid() &&
         from.base()->checkpoint().version() == base.checkpoint().version();
}

}  // namespace

absl::Status ApplyMergeLora(const v1::Edit::MergeLora& edit, EditContext& context) {
  if (!std::isfinite(edit.alpha()) || edit.alpha() == 0) {
    return context.Invalid("alpha", "is required, and finite");
  }
  WorkingCheckpoint* from = &context.checkpoint;
  if (!edit.checkpoint().empty()) {
    auto opened = context.sources.Open(edit.checkpoint());
    if (!opened.ok()) return context.At("checkpoint", opened.status());
    context.resolved.mutable_merge_lora()->set_checkpoint(
        modify::NameOf(*(*opened)->base()));
    // For the base itself, uses the adapters that the previous edits have left: its
    // stored adapters may be merged already.
    if (!IsBase(**opened, context)) from = *opened;
  }
  const bool own = from == &context.checkpoint;
  if (!own) {
    if (auto s = CheckHasNoAdapter(context); !s.ok()) return s;
  }
  auto adapters = FindAdapters(*from, context);
  if (!adapters.ok()) return adapters.status();
  MergedModules modules;
  absl::flat_hash_set<std::string> merged;
  for (const Adapter& adapter : *adapters) {
    if (auto s = context.resources.CheckCancelled(); !s.ok()) return s;
    if (auto s = Merge(adapter, *from, edit.alpha(), modules, context); !s.ok()) return s;
    merged.insert(adapter.key_a);
    merged.insert(adapter.key_b);
  }
  if (!own) {
    WarnAboutOthers(*from, merged, context);
    return UnwrapPeft(modules, context);
  }
  const auto erased = context.checkpoint.EraseIf([&](const WorkingTensor& tensor) {
    return tensor.section == "model" && merged.contains(tensor.key);
  });
  return erased.ok() ? UnwrapPeft(modules, context) : erased.status();
}

}  // namespace modelstore::server::modify
