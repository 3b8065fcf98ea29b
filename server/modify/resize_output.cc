// Changes the number of outputs of a layer: the rows of its weight, and of its bias.
#include <algorithm>
#include <optional>
#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "proto/contract/architecture/architecture.h"
#include "proto/contract/architecture/value.h"
#include "proto/contract/numeric.h"
#include "server/modify/apply_edit.h"
#include "server/modify/module_tensors.h"
#include "server/modify/new_rows.h"

namespace modelstore::server::modify {
namespace {

using Resize = v1::Edit::ResizeOutput;

// Maximum number of runs of rows that a resized tensor is composed of.
constexpr int64_t kMaxRuns = 65'536;

// Name of the argument with the number of outputs; null for types without outputs.
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

// How the dimension of outputs changes, for all tensors of the module.
struct Plan {
  int64_t old_size = 0;
  int64_t size = 0;
  // The rows of the result in order, as runs of old rows and of new ones.
  std::vector<RowRun> rows;
  int64_t kept = 0;
  Resize::NewRows new_rows = Resize::NEW_ROWS_DEFAULT;
  // Dimension of the weight with the outputs: 1 for transposed convolutions, else 0.
  int dimension = 0;
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
    AddRow(row, plan.rows);
  }
  // Without `keep_rows`, the first rows are kept, as many as fit. New rows always go
  // last.
  plan.kept = edit.keep_rows_size();
  if (edit.keep_rows().empty()) {
    plan.kept = std::min(old_size, edit.size());
    if (plan.kept > 0) plan.rows.push_back({0, plan.kept});
  }
  if (static_cast<int64_t>(plan.rows.size()) > kMaxRuns) {
    return context.Invalid(
        "keep_rows",
        absl::StrCat("has ", plan.rows.size(),
                     " runs of rows that follow each other, of at most ", kMaxRuns));
  }
  if (plan.new_rows == Resize::NEW_ROWS_MEAN && plan.kept == 0) {
    return context.Invalid("new_rows", "NEW_ROWS_MEAN needs rows that are kept");
  }
  if (plan.kept < plan.size) plan.rows.push_back({-1, plan.size - plan.kept});
  return plan;
}

// Composes the tensor's bytes from the planned rows. Each run of old rows is one part. If
// there is one slice and all rows are kept in order, the result is the tensor's own
// source, whose chunks are shared.
absl::StatusOr<SourcePtr> Rearrange(const WorkingTensor& tensor, const Plan& plan,
                                    int dimension, SourcePtr drawn,
                                    EditContext& context) {
  const NewRowsOf made(tensor, {plan.old_size, plan.size, plan.rows, plan.new_rows},
                       dimension, std::move(drawn));
  const int64_t row_bytes = made.row_bytes();
  const int64_t slices = Product(tensor.shape, 0, dimension);
  const auto runs = static_cast<int64_t>(plan.rows.size());
  if (slices > kMaxRuns / runs) {
    return context.Invalid("keep_rows",
                           absl::StrCat(tensor.key, " would be put together of ", runs,
                                        " runs of rows in each of ", slices,
                                        " slices, of at most ", kMaxRuns, " altogether"));
  }
  if (auto s = context.resources.Reserve(slices * runs * kPartBytes); !s.ok()) return s;
  std::vector<SourcePtr> parts;
  for (int64_t slice = 0; slice < slices; ++slice) {
    int64_t row = 0;
    for (const RowRun& run : plan.rows) {
      if (run.is_new()) {
        auto rows = made.Make(slice, row, run.count, context.resources);
        if (!rows.ok()) return rows.status();
        parts.push_back(*std::move(rows));
      } else {
        const int64_t from = (slice * plan.old_size + run.first) * row_bytes;
        parts.push_back(RangeSource(tensor.source, from, from + run.count * row_bytes));
      }
      row += run.count;
    }
  }
  return parts.size() == 1 ? parts[0] : ConcatSource(std::move(parts));
}

absl::Status CheckType(const WorkingTensor& tensor, const Plan& plan,
                       const EditContext& context) {
  const bool made = plan.kept < plan.size && plan.new_rows != Resize::NEW_ROWS_ZEROS;
  if (!made || CanCast(DType::kFloat32, tensor.dtype)) return absl::OkStatus();
  return context.Invalid(
      "new_rows",
      absl::StrCat(tensor.key, " is of type ", std::string(DTypeName(tensor.dtype)),
                   ": its new rows can only be NEW_ROWS_ZEROS"));
}

// Checks the size of the new tensor and counts its new elements against the limits.
absl::Status ReserveMemory(const WorkingTensor& tensor, const Plan& plan,
                           const std::vector<int64_t>& shape,
                           const EditContext& context) {
  auto bytes = TensorBytes(tensor.dtype, shape);
  if (!bytes.ok()) return context.At("size", bytes.status());
  const int64_t elements = *bytes / ElementSize(tensor.dtype);
  // Drawn elements have been counted by MakeTensors(), with all rows of the module.
  if (plan.new_rows == Resize::NEW_ROWS_DEFAULT || plan.size == plan.kept)
    return absl::OkStatus();
  const int64_t made = elements / plan.size * (plan.size - plan.kept);
  if (made > kMaxNewElements) {
    return context.Invalid("size",
                           absl::StrCat("makes ", made, " new elements of ", tensor.key,
                                        "; one edit makes at most ", kMaxNewElements));
  }
  return context.At("size", context.resources.TakeElements(made));
}

absl::Status ResizeTensor(const std::string& key, const Plan& plan, int dimension,
                          const NewTensor* drawn, EditContext& context) {
  WorkingTensor& tensor = *context.checkpoint.Find("model", key);
  if (static_cast<int>(tensor.shape.size()) <= dimension ||
      tensor.shape[dimension] != plan.old_size) {
    return context.Invalid("path", absl::StrCat(key, " has not ", plan.old_size,
                                                " outputs as the module has"));
  }
  if (auto s = CheckType(tensor, plan, context); !s.ok()) return s;
  std::vector<int64_t> shape = tensor.shape;
  shape[dimension] = plan.size;
  if (auto s = ReserveMemory(tensor, plan, shape, context); !s.ok()) return s;
  if (drawn != nullptr && drawn->spec.shape != shape) {
    return context.Invalid(
        "path",
        absl::StrCat(key, " would be [", absl::StrJoin(shape, ", "),
                     "], and a new module has [", absl::StrJoin(drawn->spec.shape, ", "),
                     "]: their other sizes differ"));
  }
  auto source = Rearrange(tensor, plan, dimension,
                          drawn == nullptr ? nullptr : drawn->source, context);
  if (!source.ok()) return source.status();
  // Tracks which rows of the original tensor are kept, for the optimizer's state:
  // directly, or through an earlier resize.
  std::optional<std::vector<RowRun>> rows;
  if (dimension == 0 && context.checkpoint.HasOriginalValues(tensor)) {
    rows = plan.rows;
  } else if (dimension == 0 && tensor.kept_rows.has_value() &&
             &WithoutCasts(*tensor.kept_rows->of) == &WithoutCasts(*tensor.source)) {
    rows = ComposeRows(tensor.kept_rows->rows, plan.rows);
  }
  if (auto s = ReplaceBytes(context, tensor, *source, tensor.dtype, std::move(shape));
      !s.ok()) {
    return s;
  }
  for (WorkingTensor* member : context.checkpoint.TiedTo(tensor)) {
    member->kept_rows.reset();
    if (rows.has_value()) member->kept_rows = {*source, *rows};
  }
  return absl::OkStatus();
}

// Applies the edit to one module, given by its path and, if the architecture is known,
// its node in the tree.
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
      if (auto s = CheckModule(*module); !s.ok()) return s;
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
  // Checks that the module's arguments are valid and that its tensors have the shapes
  // that follow from them, since the edit relies on both.
  absl::Status CheckModule(const ModuleTree& module) const {
    if (auto s = CheckArguments(context_.Field("path"), module); !s.ok()) return s;
    if (!CheckComplete("arguments", module).ok()) return absl::OkStatus();
    const auto tensors = ModuleTensors(module);
    if (!tensors.ok()) return context_.At("path", tensors.status());
    for (const TensorSpec& spec : *tensors) {
      const std::string key = JoinModulePath(edit_.path(), spec.key);
      const WorkingTensor* tensor = context_.checkpoint.Find("model", key);
      if (tensor == nullptr || tensor->shape == spec.shape) continue;
      return context_.Invalid(
          "path", absl::StrCat(key, " is [", absl::StrJoin(tensor->shape, ", "),
                               "] as stored and [", absl::StrJoin(spec.shape, ", "),
                               "] by the architecture: replace the module, or save it "
                               "with an architecture that fits"));
    }
    return absl::OkStatus();
  }

  // Checks the groups of a convolution, and sets `dimension` for a transposed one.
  absl::Status CheckGroups(const ModuleTree& module, int& dimension) const {
    if (!absl::StartsWith(module.type(), "Conv")) return absl::OkStatus();
    const v1::Value* value = FindArgument(module, "groups");
    // The arguments of an incomplete module are unchecked.
    const int64_t groups =
        value == nullptr ? 1 : std::max<int64_t>(1, AsInt(*value).value_or(1));
    const bool transposed = absl::StartsWith(module.type(), "ConvTranspose");
    if (transposed) dimension = 1;
    if (groups > 1 && transposed) {
      return context_.Invalid("path",
                              "outputs of a transposed convolution in groups are "
                              "not rows: replace it");
    }
    if (edit_.size() % groups == 0) return absl::OkStatus();
    return context_.Invalid("size", absl::StrCat("is no multiple of groups, ", groups));
  }

  // Makes a module of the new size, from which the new rows are taken: they are
  // initialized as in a new layer of that size.
  absl::Status Draw(const ModuleTree* module, const Plan& plan) {
    if (plan.new_rows != Resize::NEW_ROWS_DEFAULT || plan.kept == plan.size) {
      return absl::OkStatus();
    }
    if (module == nullptr) {
      return context_.Invalid(
          "new_rows",
          "the architecture is not known: say NEW_ROWS_ZEROS or NEW_ROWS_MEAN");
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
      (tensor.spec.key == "bias" ? drawn_bias_ : drawn_weight_) = std::move(tensor);
    }
    return absl::OkStatus();
  }

  // Resizes the module and all modules whose weight is tied to its weight.
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
    auto s = ResizeTensor(weight, plan, plan.dimension, Drawn(drawn_weight_), context_);
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
    // If the resized module has no bias, there are no drawn values for the bias of a
    // module that is tied to it.
    if (!drawn_bias_.has_value() && own.new_rows == Resize::NEW_ROWS_DEFAULT) {
      own.new_rows = Resize::NEW_ROWS_ZEROS;
    }
    return ResizeTensor(key, own, 0, Drawn(drawn_bias_), context_);
  }

  static const NewTensor* Drawn(const std::optional<NewTensor>& tensor) {
    return tensor.has_value() ? &*tensor : nullptr;
  }

  const Resize& edit_;
  EditContext& context_;
  std::optional<NewTensor> drawn_weight_;
  std::optional<NewTensor> drawn_bias_;
};

}  // namespace

absl::Status ApplyResizeOutput(const Resize& edit, EditContext& context) {
  if (edit.path().empty()) return context.Invalid("path", "is required");
  if (edit.size() <= 0) return context.Invalid("size", "must be above 0");
  if (edit.size() > kMaxArgumentSize) {
    return context.Invalid(
        "size", absl::StrCat("is ", edit.size(), ", of at most ", kMaxArgumentSize));
  }
  const NeighbourWatch watch(context);
  auto s = Resizer(edit, context).Run(TreeOf(context, edit.path()));
  if (!s.ok()) return s;
  watch.Warn(context);
  return absl::OkStatus();
}

}  // namespace modelstore::server::modify
