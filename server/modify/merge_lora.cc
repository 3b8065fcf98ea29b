// Merges low-rank adapters into the weights that they adapt.
#include <atomic>
#include <cmath>
#include <utility>

#include "absl/container/flat_hash_set.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/strip.h"
#include "proto/contract/mutex.h"
#include "proto/contract/weighted_sum.h"
#include "server/modify/edits.h"

namespace modelstore::server::modify {
namespace {

// Of A, which is held in float64 while its weight is being computed: 32 MiB.
constexpr int64_t kMaxFactorElements = int64_t{4} << 20;
// What PEFT puts before the keys of the model that it wraps.
constexpr absl::string_view kWrapped = "base_model.model.";

std::string NameOf(DType dtype) { return std::string(DTypeName(dtype)); }

int64_t Elements(const WorkingTensor& tensor) {
  return tensor.source->size_bytes() / ElementSize(tensor.dtype);
}

// A factor, flattened to two dimensions.
struct Factor {
  SourcePtr source;
  DType dtype = DType::kFloat32;
  int64_t rows = 0;
  int64_t columns = 0;

  // Rows in float64.
  absl::StatusOr<std::vector<double>> Read(int64_t first, int64_t count) const {
    std::vector<double> values(count * columns);
    double* next = values.data();
    const int64_t element = ElementSize(dtype), row = columns * element;
    auto s = source->Visit(first * row, (first + count) * row, [&](absl::string_view b) {
      const int64_t read = static_cast<int64_t>(b.size()) / element;
      double* to = std::exchange(next, next + read);
      return AddWeighted(dtype, b.data(), 1, Sums::kBegin, to, read);
    });
    if (!s.ok()) return s;
    return values;
  }
};

// W + scale * (B * A), each element summed over A's rows in order in float64 and
// rounded once.
class LoraTensor final : public TensorSource {
 public:
  LoraTensor(SourcePtr weight, DType dtype, Factor a, Factor b, double scale)
      : weight_(std::move(weight)),
        dtype_(dtype),
        a_(std::move(a)),
        b_(std::move(b)),
        scale_(scale) {}

  int64_t size_bytes() const override { return weight_->size_bytes(); }
  int64_t read_bytes() const override {
    return weight_->read_bytes() + a_.source->read_bytes() + b_.source->read_bytes();
  }

  absl::Status Visit(int64_t begin, int64_t end, Taker take) const override {
    const int64_t element = ElementSize(dtype_);
    auto a = FactorA(end - begin);
    if (!a.ok()) return a.status();
    const int64_t first = begin / element, last = end / element;
    std::vector<double> delta(last - first, 0.0);
    if (auto s = AddProduct(**a, first, last, delta); !s.ok()) return s;
    std::vector<double> sums;
    std::string block;
    const double* added = delta.data();
    return weight_->Visit(begin, end, [&](absl::string_view bytes) {
      const int64_t count = static_cast<int64_t>(bytes.size()) / element;
      sums.resize(count);
      block.resize(bytes.size());
      auto s = AddWeighted(dtype_, bytes.data(), 1, Sums::kBegin, sums.data(), count);
      if (!s.ok()) return s;
      for (int64_t i = 0; i < count; ++i) sums[i] += scale_ * added[i];
      added += count;
      if (s = RoundSums(sums.data(), dtype_, block.data(), count); !s.ok()) return s;
      return take(block);
    });
  }

 private:
  using Values = std::shared_ptr<const std::vector<double>>;

  // Read by the first part of the weight that needs it, let go of by the last.
  absl::StatusOr<Values> FactorA(int64_t bytes) const {
    MutexLock lock(mutex_);
    if (values_ == nullptr) {
      auto read = a_.Read(0, a_.rows);
      if (!read.ok()) return read.status();
      values_ = std::make_shared<const std::vector<double>>(*std::move(read));
    }
    Values values = values_;
    visited_ += bytes;
    if (visited_ >= size_bytes()) {
      values_.reset();
      visited_ = 0;
    }
    return values;
  }

  // Elements [first, last) of B * A, row-major.
  absl::Status AddProduct(const std::vector<double>& a, int64_t first, int64_t last,
                          std::vector<double>& delta) const {
    const int64_t columns = a_.columns, rank = a_.rows;
    const int64_t first_row = first / columns, rows = (last - 1) / columns + 1 - first_row;
    auto b = b_.Read(first_row, rows);
    if (!b.ok()) return b.status();
    for (int64_t row = 0; row < rows; ++row) {
      const int64_t row_begin = (first_row + row) * columns;
      const int64_t from = std::max(first, row_begin);
      const int64_t to = std::min(last, row_begin + columns);
      double* __restrict__ out = delta.data() + (from - first);
      for (int64_t r = 0; r < rank; ++r) {
        const double factor = (*b)[row * rank + r];
        const double* in = a.data() + r * columns + (from - row_begin);
        for (int64_t i = 0; i < to - from; ++i) out[i] += factor * in[i];
      }
    }
    return absl::OkStatus();
  }

  const SourcePtr weight_;
  const DType dtype_;
  const Factor a_;
  const Factor b_;
  const double scale_;
  mutable Mutex mutex_;
  mutable Values values_ GUARDED_BY(mutex_);
  mutable int64_t visited_ GUARDED_BY(mutex_) = 0;
};

// One adapter, by the keys of its factors.
struct Adapter {
  std::string path;
  std::string key_a;
  std::string key_b;
};

// The path of a module whose key ends so; absent if it does not.
std::optional<std::string> PathOf(absl::string_view key, absl::string_view factor) {
  for (const absl::string_view name : {"", ".default"}) {
    absl::string_view path = key;
    if (absl::ConsumeSuffix(&path, absl::StrCat(".", factor, name, ".weight"))) {
      return std::string(path);
    }
  }
  return std::nullopt;
}

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
      return context.Invalid("checkpoint",
                             absl::StrCat("holds ", tensor.key,
                                          ", which is no pair of lora_A and lora_B"));
    }
    std::string key_b = tensor.key;
    key_b.replace(path->size() + 1, 6, "lora_B");
    if (from.Find("model", key_b) == nullptr) {
      return context.Missing("checkpoint", "tensor", key_b);
    }
    adapters.push_back({*path, tensor.key, std::move(key_b)});
  }
  if (!adapters.empty()) return adapters;
  return context.Invalid("checkpoint",
                         "holds no adapter: no key ends in .lora_A.weight");
}

WorkingTensor* FindWeight(const std::string& path, EditContext& context) {
  const std::string bare(absl::StripPrefix(path, kWrapped));
  for (const std::string& module : {path, bare}) {
    for (const absl::string_view name : {".weight", ".base_layer.weight"}) {
      WorkingTensor* weight =
          context.checkpoint.Find("model", absl::StrCat(module, name));
      if (weight != nullptr) return weight;
    }
  }
  return nullptr;
}

absl::StatusOr<Factor> FactorOf(const WorkingTensor& tensor, const EditContext& context) {
  if (!CanSum(tensor.dtype) || tensor.shape.size() < 2 || Elements(tensor) == 0) {
    return context.Invalid(
        "checkpoint",
        absl::StrCat(tensor.key, " is ", NameOf(tensor.dtype), " [",
                     absl::StrJoin(tensor.shape, ", "),
                     "]: an adapter is floating-point, of two dimensions or more"));
  }
  return Factor{tensor.source, tensor.dtype, tensor.shape[0],
                Elements(tensor) / tensor.shape[0]};
}

absl::Status Merge(const Adapter& adapter, WorkingCheckpoint& from, double alpha,
                   EditContext& context) {
  WorkingTensor* weight = FindWeight(adapter.path, context);
  if (weight == nullptr) {
    return context.Missing("checkpoint", "tensor", adapter.path + ".weight");
  }
  auto a = FactorOf(*from.Find("model", adapter.key_a), context);
  if (!a.ok()) return a.status();
  auto b = FactorOf(*from.Find("model", adapter.key_b), context);
  if (!b.ok()) return b.status();
  if (!CanSum(weight->dtype)) {
    return context.Invalid("checkpoint",
                           absl::StrCat(weight->key, " is of type ",
                                        NameOf(weight->dtype), ", not floating-point"));
  }
  if (weight->shape.empty() || b->columns != a->rows || weight->shape[0] != b->rows ||
      Elements(*weight) != b->rows * a->columns) {
    return context.Invalid(
        "checkpoint", absl::StrCat("B * A of ", adapter.path, " is [", b->rows, ", ",
                                   a->columns, "] by rank ", b->columns, " and ", a->rows,
                                   ", while ", weight->key, " is [",
                                   absl::StrJoin(weight->shape, ", "), "]"));
  }
  if (a->rows * a->columns > kMaxFactorElements) {
    return context.Invalid("checkpoint",
                           absl::StrCat(adapter.key_a, " has over ", kMaxFactorElements,
                                        " elements"));
  }
  const double scale = alpha / static_cast<double>(a->rows);
  SourcePtr merged = std::make_shared<LoraTensor>(weight->source, weight->dtype,
                                                  *std::move(a), *std::move(b), scale);
  ReplaceBytes(context, *weight, std::move(merged), weight->dtype, weight->shape);
  return absl::OkStatus();
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
    from = *opened;
    context.resolved.mutable_merge_lora()->set_checkpoint(
        modify::NameOf(*from->base()));
  }
  auto adapters = FindAdapters(*from, context);
  if (!adapters.ok()) return adapters.status();
  absl::flat_hash_set<std::string> merged;
  for (const Adapter& adapter : *adapters) {
    if (auto s = Merge(adapter, *from, edit.alpha(), context); !s.ok()) return s;
    merged.insert(adapter.key_a);
    merged.insert(adapter.key_b);
  }
  return context.checkpoint
      .EraseIf([&](const WorkingTensor& tensor) {
        return tensor.section == "model" && merged.contains(tensor.key);
      })
      .status();
}

}  // namespace modelstore::server::modify
