// More or fewer outputs of a layer: rows of its weight, and of its bias.
#include <algorithm>
#include <numeric>
#include <optional>
#include <utility>

#include "absl/container/flat_hash_set.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "proto/contract/architecture.h"
#include "proto/contract/architecture_value.h"
#include "proto/contract/numeric.h"
#include "server/modify/module_edit.h"
#include "server/modify/repeat_source.h"

namespace modelstore::server::modify {
namespace {

using Resize = v1::Edit::ResizeOutput;

// Runs of rows that a tensor is put together of: beyond that, it is refused.
constexpr int64_t kMaxRuns = 65'536;

// Name of the argument that counts the outputs; null for other types.
const char* OutputArgument(absl::string_view type) {
  if (type == "Linear" || type == "NonDynamicallyQuantizableLinear") {
    return "out_features";
  }
  if (absl::StartsWith(type, "Conv")) return "out_channels";
  return type == "Embedding" || type == "EmbeddingBag" ? "num_embeddings" : nullptr;
}

void SetArgument(ModuleTree& module, absl::string_view name, int64_t value) {
  for (auto& argument : *module.mutable_arguments()) {
    if (argument.name() == name) *argument.mutable_value() = IntValue(value);
  }
}

// What is done to the dimension of outputs of each tensor.
struct Plan {
  int64_t old_size = 0;
  int64_t size = 0;
  // The old row of each new one; -1 for those that are made.
  std::vector<int64_t> rows;
  Resize::NewRows new_rows = Resize::DEFAULT;
  // Dimension of the weight that counts outputs: 1 of transposed convolutions.
  int dimension = 0;

  int64_t kept() const {
    return std::count_if(rows.begin(), rows.end(), [](int64_t row) { return row >= 0; });
  }
};

absl::StatusOr<Plan> MakePlan(const Resize& edit, int64_t old_size,
                              const EditContext& context) {
  Plan plan;
  plan.old_size = old_size;
  plan.size = edit.size();
  if (edit.new_rows() != Resize::NEW_ROWS_UNSPECIFIED) plan.new_rows = edit.new_rows();
  if (!Resize::NewRows_IsValid(plan.new_rows)) {
    return context.Invalid("new_rows", "unknown");
  }
  if (edit.keep_rows_size() > edit.size()) {
    return context.Invalid("keep_rows", absl::StrCat("more than size, ", edit.size()));
  }
  for (int i = 0; i < edit.keep_rows_size(); ++i) {
    const int64_t row = edit.keep_rows(i);
    if (row < 0 || row >= old_size) {
      return context.Invalid(absl::StrCat("keep_rows[", i, "]"),
                             absl::StrCat(row, " is none of ", old_size, " rows"));
    }
    plan.rows.push_back(row);
  }
  if (edit.keep_rows().empty()) {
    plan.rows.resize(std::min(old_size, edit.size()));
    std::iota(plan.rows.begin(), plan.rows.end(), 0);
  }
  if (plan.new_rows == Resize::MEAN && plan.rows.empty()) {
    return context.Invalid("new_rows", "MEAN needs rows that are kept");
  }
  plan.rows.resize(edit.size(), -1);
  return plan;
}

int64_t Product(const std::vector<int64_t>& shape, size_t begin, size_t end) {
  int64_t product = 1;
  for (size_t d = begin; d < end; ++d) product *= shape[d];
  return product;
}

// The new rows of one tensor, all of them, as one source per slice of the dimensions
// before the one that is resized.
class NewRowsOf {
 public:
  // `drawn` has the new shape and float32; null unless rows are made by default.
  NewRowsOf(const WorkingTensor& tensor, const Plan& plan, int dimension, SourcePtr drawn)
      : tensor_(tensor), plan_(plan), drawn_(std::move(drawn)) {
    const auto& shape = tensor.shape;
    row_elements_ = Product(shape, dimension + 1, shape.size());
    row_bytes_ = row_elements_ * ElementSize(tensor.dtype);
  }

  int64_t row_bytes() const { return row_bytes_; }

  absl::StatusOr<SourcePtr> Make(int64_t slice, int64_t first_row, int64_t count) const {
    if (plan_.new_rows == Resize::ZEROS) {
      return RepeatSource(tensor_.dtype, 0, count * row_elements_);
    }
    if (plan_.new_rows == Resize::MEAN) return Mean(slice, count);
    const int64_t bytes = row_elements_ * ElementSize(DType::kFloat32);
    const int64_t begin = (slice * plan_.size + first_row) * bytes;
    SourcePtr rows = RangeSource(drawn_, begin, begin + count * bytes);
    if (tensor_.dtype == DType::kFloat32) return rows;
    return CastSource(std::move(rows), DType::kFloat32, tensor_.dtype);
  }

 private:
  // Reads the slice once: what it takes is one row in memory.
  absl::StatusOr<SourcePtr> Mean(int64_t slice, int64_t count) const {
    std::vector<int64_t> times(plan_.old_size, 0);
    for (const int64_t row : plan_.rows) {
      if (row >= 0) ++times[row];
    }
    std::vector<double> sums(row_elements_, 0.0), block;
    int64_t at = 0;
    const int64_t slice_bytes = plan_.old_size * row_bytes_;
    auto s = tensor_.source->Visit(
        slice * slice_bytes, (slice + 1) * slice_bytes, [&](absl::string_view bytes) {
          block.resize(bytes.size() / ElementSize(tensor_.dtype));
          auto cast = Cast(tensor_.dtype, bytes.data(), DType::kFloat64,
                           reinterpret_cast<char*>(block.data()),
                           static_cast<int64_t>(block.size()));
          for (size_t i = 0; cast.ok() && i < block.size(); ++i, ++at) {
            const auto weight = static_cast<double>(times[at / row_elements_]);
            if (weight > 0) sums[at % row_elements_] += weight * block[i];
          }
          return cast;
        });
    if (!s.ok()) return s;
    for (double& sum : sums) sum /= static_cast<double>(plan_.kept());
    std::string mean(row_bytes_, '\0');
    s = Cast(DType::kFloat64, reinterpret_cast<const char*>(sums.data()), tensor_.dtype,
             mean.data(), row_elements_);
    if (!s.ok()) return s;
    const SourcePtr row = BytesSource(std::move(mean));
    return count == 1 ? row : ConcatSource(std::vector<SourcePtr>(count, row));
  }

  const WorkingTensor& tensor_;
  const Plan& plan_;
  const SourcePtr drawn_;
  int64_t row_elements_ = 1;
  int64_t row_bytes_ = 0;
};

// The tensor's bytes with its rows as planned: runs of old rows that follow each other
// are one part, and all of them unchanged the stored tensor itself.
absl::StatusOr<SourcePtr> Rearrange(const WorkingTensor& tensor, const Plan& plan,
                                    int dimension, SourcePtr drawn,
                                    const EditContext& context) {
  const NewRowsOf made(tensor, plan, dimension, std::move(drawn));
  const int64_t row_bytes = made.row_bytes();
  const int64_t slices = Product(tensor.shape, 0, dimension);
  std::vector<SourcePtr> parts;
  for (int64_t slice = 0; slice < slices; ++slice) {
    for (size_t begin = 0, end; begin < plan.rows.size(); begin = end) {
      const int64_t first = plan.rows[begin];
      end = begin + 1;
      while (end < plan.rows.size() &&
             plan.rows[end] == (first < 0 ? -1 : first + static_cast<int64_t>(end - begin))) {
        ++end;
      }
      if (static_cast<int64_t>(parts.size()) == kMaxRuns) {
        return context.Invalid("keep_rows",
                               absl::StrCat("more than ", kMaxRuns, " runs of rows"));
      }
      if (first < 0) {
        auto rows = made.Make(slice, static_cast<int64_t>(begin),
                              static_cast<int64_t>(end - begin));
        if (!rows.ok()) return rows.status();
        parts.push_back(*std::move(rows));
      } else {
        const int64_t from = (slice * plan.old_size + first) * row_bytes;
        const auto bytes = static_cast<int64_t>(end - begin) * row_bytes;
        parts.push_back(RangeSource(tensor.source, from, from + bytes));
      }
    }
  }
  return parts.size() == 1 ? parts[0] : ConcatSource(std::move(parts));
}

absl::Status CheckType(const WorkingTensor& tensor, const Plan& plan,
                       const EditContext& context) {
  const bool made = plan.kept() < plan.size && plan.new_rows != Resize::ZEROS;
  if (!made || CanCast(DType::kFloat32, tensor.dtype)) return absl::OkStatus();
  return context.Invalid("new_rows", absl::StrCat(tensor.key, " is of type ",
                                                  std::string(DTypeName(tensor.dtype)),
                                                  ": its new rows can only be ZEROS"));
}

absl::Status ResizeTensor(const std::string& key, const Plan& plan, int dimension,
                          SourcePtr drawn, EditContext& context) {
  WorkingTensor& tensor = *context.checkpoint.Find("model", key);
  if (static_cast<int>(tensor.shape.size()) <= dimension ||
      tensor.shape[dimension] != plan.old_size) {
    return context.Invalid("path", absl::StrCat(key, " has not ", plan.old_size,
                                                " outputs as the module has"));
  }
  if (auto s = CheckType(tensor, plan, context); !s.ok()) return s;
  auto source = Rearrange(tensor, plan, dimension, std::move(drawn), context);
  if (!source.ok()) return source.status();
  std::vector<int64_t> shape = tensor.shape;
  shape[dimension] = plan.size;
  std::optional<std::vector<int64_t>> rows;
  if (dimension == 0 && context.checkpoint.HasOriginalBytes(tensor)) {
    rows = plan.rows;
  } else if (dimension == 0 && tensor.kept_rows.has_value() &&
             tensor.kept_rows->of == tensor.source) {
    rows = plan.rows;
    for (int64_t& row : *rows) row = row < 0 ? -1 : tensor.kept_rows->rows[row];
  }
  ReplaceBytes(context, tensor, *source, tensor.dtype, std::move(shape));
  for (WorkingTensor* member : context.checkpoint.TiedTo(tensor)) {
    member->kept_rows.reset();
    if (rows.has_value()) member->kept_rows = {*source, *rows};
  }
  return absl::OkStatus();
}

// A module of which one tensor is resized: by its path, and, where it is known, its
// place in the tree.
class Resizer {
 public:
  Resizer(const Resize& edit, EditContext& context) : edit_(edit), context_(context) {}

  absl::Status Run(ModuleTree* tree) {
    const std::string weight = JoinModulePath(edit_.path(), "weight");
    WorkingTensor* tensor = context_.checkpoint.Find("model", weight);
    ModuleTree* module = tree == nullptr ? nullptr : FindModule(*tree, edit_.path());
    if (tree != nullptr && module == nullptr) {
      return context_.Missing("path", "module", edit_.path());
    }
    if (tensor == nullptr) return context_.Missing("path", "tensor", weight);
    int dimension = 0;
    if (module != nullptr) {
      if (OutputArgument(module->type()) == nullptr) {
        return context_.Invalid(
            "path", absl::StrCat(edit_.path(), " is a ", module->type(),
                                 "; Linear, convolutions and Embedding have outputs"));
      }
      if (auto s = CheckGroups(*module, dimension); !s.ok()) return s;
    }
    if (static_cast<int>(tensor->shape.size()) < 2) {
      return context_.Invalid("path", absl::StrCat(weight, " has no rows of outputs"));
    }
    auto plan = MakePlan(edit_, tensor->shape[dimension], context_);
    if (!plan.ok()) return plan.status();
    plan->dimension = dimension;
    if (auto s = Draw(module, *plan); !s.ok()) return s;
    return ResizeAll(tree, *plan);
  }

 private:
  absl::Status CheckGroups(const ModuleTree& module, int& dimension) const {
    if (!absl::StartsWith(module.type(), "Conv")) return absl::OkStatus();
    const v1::Value* value = FindArgument(module, "groups");
    const int64_t groups = value == nullptr ? 1 : AsInt(*value).value_or(1);
    const bool transposed = absl::StartsWith(module.type(), "ConvTranspose");
    if (transposed) dimension = 1;
    if (groups > 1 && transposed) {
      return context_.Invalid("path", "outputs of a transposed convolution in groups are "
                                      "not rows: replace it");
    }
    if (edit_.size() % groups == 0) return absl::OkStatus();
    return context_.Invalid("size", absl::StrCat("is no multiple of groups, ", groups));
  }

  // A module of the new size, of which the new rows are taken.
  absl::Status Draw(const ModuleTree* module, const Plan& plan) {
    if (plan.new_rows != Resize::DEFAULT || plan.kept() == plan.size) {
      return absl::OkStatus();
    }
    if (module == nullptr) {
      return context_.Invalid("new_rows",
                              "the architecture is not known: say ZEROS or MEAN");
    }
    ModuleTree larger = *module;
    larger.clear_children();
    SetArgument(larger, OutputArgument(module->type()), plan.size);
    v1::Initialization how = edit_.initialization();
    auto made = MakeTensors(larger, how, context_);
    if (!made.ok()) return made.status();
    if (how.has_seed()) {
      *context_.resolved.mutable_resize_output()->mutable_initialization() = how;
    }
    for (NewTensor& tensor : *made) {
      (tensor.spec.key == "bias" ? drawn_bias_ : drawn_weight_) = tensor.source;
    }
    return absl::OkStatus();
  }

  // The module, and those whose weight is tied to its.
  absl::Status ResizeAll(ModuleTree* tree, const Plan& plan) {
    const std::string weight = JoinModulePath(edit_.path(), "weight");
    std::vector<std::string> paths = {edit_.path()};
    WorkingTensor& tensor = *context_.checkpoint.Find("model", weight);
    if (!context_.untie) {
      for (const WorkingTensor* tied : context_.checkpoint.TiedTo(tensor)) {
        if (tied->key == weight || tied->section != "model") continue;
        paths.emplace_back(SplitModulePath(tied->key).first);
      }
    }
    auto s = ResizeTensor(weight, plan, plan.dimension, drawn_weight_, context_);
    if (!s.ok()) return s;
    for (const std::string& path : paths) {
      if (s = ResizeBias(path, plan); !s.ok()) return s;
      ModuleTree* module = tree == nullptr ? nullptr : FindModule(*tree, path);
      const char* argument = module == nullptr ? nullptr : OutputArgument(module->type());
      if (argument != nullptr) SetArgument(*module, argument, plan.size);
    }
    return absl::OkStatus();
  }

  absl::Status ResizeBias(const std::string& path, const Plan& plan) {
    const std::string key = JoinModulePath(path, "bias");
    const WorkingTensor* bias = context_.checkpoint.Find("model", key);
    if (bias == nullptr || bias->shape != std::vector<int64_t>{plan.old_size}) {
      return absl::OkStatus();
    }
    Plan own = plan;
    // Of a module that is only tied nothing was drawn.
    if (drawn_bias_ == nullptr && own.new_rows == Resize::DEFAULT) {
      own.new_rows = Resize::ZEROS;
    }
    return ResizeTensor(key, own, 0, drawn_bias_, context_);
  }

  const Resize& edit_;
  EditContext& context_;
  SourcePtr drawn_weight_;
  SourcePtr drawn_bias_;
};

}  // namespace

absl::Status ApplyResizeOutput(const Resize& edit, EditContext& context) {
  if (edit.path().empty()) return context.Invalid("path", "is required");
  if (edit.size() <= 0) return context.Invalid("size", "must be above 0");
  if (edit.size() > kMaxArgumentSize) return context.Invalid("size", "is too large");
  const NeighbourWatch watch(context);
  auto s = Resizer(edit, context).Run(TreeOf(context, edit.path()));
  if (!s.ok()) return s;
  watch.Warn(context);
  return absl::OkStatus();
}

}  // namespace modelstore::server::modify
