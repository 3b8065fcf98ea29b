// Edits that compute new values: they only describe the computation, which runs once all
// edits are accepted.
#include <cmath>
#include <utility>

#include "absl/container/flat_hash_set.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "proto/contract/names.h"
#include "proto/contract/numeric.h"
#include "proto/contract/weighted_sum.h"
#include "server/modify/apply_edit.h"
#include "server/modify/key_selection.h"

namespace modelstore::server::modify {
namespace {

constexpr int kMaxAveraged = 256;
// Allows for coefficients that are rounded.
constexpr double kSumTolerance = 1e-6;

std::string NameOf(DType dtype) { return std::string(DTypeName(dtype)); }

// Positions of the tensors to cast, in any order and possibly repeated. A key must name a
// floating-point tensor; of the tensors that match a pattern, others are skipped.
absl::StatusOr<std::vector<size_t>> CastTargets(const v1::Edit::Cast& edit,
                                                const std::string& section,
                                                EditContext& context) {
  std::vector<size_t> targets;
  const auto& tensors = context.checkpoint.tensors();
  for (int k = 0; k < edit.keys_size(); ++k) {
    const std::string field = absl::StrCat("keys[", k, "]");
    WorkingTensor* tensor = context.checkpoint.Find(section, edit.keys(k));
    if (tensor == nullptr) {
      return context.Missing(field, "tensor", TensorNameOf(section, edit.keys(k)));
    }
    if (!IsFloatingPoint(tensor->dtype)) {
      return context.Invalid(
          field, absl::StrCat(edit.keys(k), " is of type ", NameOf(tensor->dtype),
                              ": only floating-point tensors are cast"));
    }
    targets.push_back(tensor - tensors.data());
  }
  if (edit.keys_size() > 0 && edit.patterns_size() == 0) return targets;
  auto selected = SelectKeys(section, {}, edit.patterns(), context);
  if (!selected.ok()) return selected.status();
  for (const size_t t : *selected) {
    if (IsFloatingPoint(tensors[t].dtype)) targets.push_back(t);
  }
  return targets;
}

// Checks the coefficients, which are optional: without them all checkpoints weigh the
// same.
absl::Status CheckCoefficients(const v1::Edit::Average& edit,
                               const EditContext& context) {
  if (edit.checkpoints_size() < 2 || edit.checkpoints_size() > kMaxAveraged) {
    return context.Invalid("checkpoints", absl::StrCat("from 2 to ", kMaxAveraged));
  }
  if (edit.coefficients_size() == 0) return absl::OkStatus();
  if (edit.coefficients_size() != edit.checkpoints_size()) {
    return context.Invalid("coefficients",
                           absl::StrCat("are ", edit.coefficients_size(), " for ",
                                        edit.checkpoints_size(), " checkpoints"));
  }
  double sum = 0;
  for (int c = 0; c < edit.coefficients_size(); ++c) {
    if (!std::isfinite(edit.coefficients(c))) {
      return context.Invalid(absl::StrCat("coefficients[", c, "]"), "must be finite");
    }
    sum += edit.coefficients(c);
  }
  if (edit.any_sum() || std::abs(sum - 1) <= kSumTolerance) return absl::OkStatus();
  return context.Invalid(
      "coefficients",
      absl::StrCat("sum to ", sum, ", not to 1: set any_sum to allow it"));
}

// Finds the tensor of one key in each checkpoint. All must have the same dtype and shape.
absl::StatusOr<std::vector<WorkingTensor*>> Averaged(
    const std::string& key, const std::vector<WorkingCheckpoint*>& checkpoints,
    const EditContext& context) {
  std::vector<WorkingTensor*> tensors;
  auto name = [&](size_t c) { return modify::NameOf(*checkpoints[c]->base()); };
  auto field = [](size_t c) { return absl::StrCat("checkpoints[", c, "]"); };
  for (size_t c = 0; c < checkpoints.size(); ++c) {
    // A checkpoint may be listed several times in a row: it is looked up once.
    if (c > 0 && checkpoints[c] == checkpoints[c - 1]) {
      tensors.push_back(tensors.back());
      continue;
    }
    WorkingTensor* tensor = checkpoints[c]->Find("model", key);
    if (tensor == nullptr) {
      return context.Missing(field(c), "tensor", absl::StrCat(name(c), "/model:", key));
    }
    if (c > 0 &&
        (tensor->dtype != tensors[0]->dtype || tensor->shape != tensors[0]->shape)) {
      return context.Invalid(
          field(c),
          absl::StrCat(key, " is ", NameOf(tensor->dtype), " [",
                       absl::StrJoin(tensor->shape, ", "), "] in ", name(c), " and ",
                       NameOf(tensors[0]->dtype), " [",
                       absl::StrJoin(tensors[0]->shape, ", "), "] in ", name(0)));
    }
    tensors.push_back(tensor);
  }
  return tensors;
}

// The floating-point type that is summed: a complex element is two numbers of half its
// width.
DType SummedAs(DType dtype) {
  switch (dtype) {
    case DType::kComplex32:
      return DType::kFloat16;
    case DType::kComplex64:
      return DType::kFloat32;
    case DType::kComplex128:
      return DType::kFloat64;
    default:
      return dtype;
  }
}

// Running statistics of batch normalization.
bool IsStatistic(const std::string& key) {
  return absl::EndsWith(key, "running_mean") || absl::EndsWith(key, "running_var");
}

}  // namespace

absl::Status ApplyCast(const v1::Edit::Cast& edit, EditContext& context) {
  auto dtype = DTypeFromNumber(edit.dtype());
  if (!dtype.ok() || !CanCast(*dtype, *dtype)) {
    return context.Invalid(
        "dtype", "must be DTYPE_FLOAT16, DTYPE_BFLOAT16, DTYPE_FLOAT32 or DTYPE_FLOAT64");
  }
  auto section = SectionOf(edit.section(), context);
  if (!section.ok()) return section.status();
  auto targets = CastTargets(edit, *section, context);
  if (!targets.ok()) return targets.status();
  for (const size_t t : *targets) {
    WorkingTensor& tensor = context.checkpoint.tensors()[t];
    // It had this type before, or was cast together with a tensor that it is tied to.
    if (tensor.dtype == *dtype) continue;
    if (!CanCast(tensor.dtype, *dtype)) {
      return context.Invalid(
          "dtype", absl::StrCat(tensor.key, " is of type ", NameOf(tensor.dtype),
                                ", which this server does not cast"));
    }
    auto s =
        ReplaceBytes(context, tensor, CastSource(tensor.source, tensor.dtype, *dtype),
                     *dtype, tensor.shape);
    if (!s.ok()) return s;
  }
  return absl::OkStatus();
}

absl::Status ApplyAverage(const v1::Edit::Average& edit, EditContext& context) {
  if (auto s = CheckCoefficients(edit, context); !s.ok()) return s;
  std::vector<double> coefficients(edit.coefficients().begin(),
                                   edit.coefficients().end());
  // Fills in equal weights if there are no coefficients; otherwise changes nothing.
  coefficients.resize(edit.checkpoints_size(), 1.0 / edit.checkpoints_size());
  std::vector<WorkingCheckpoint*> checkpoints;
  for (int c = 0; c < edit.checkpoints_size(); ++c) {
    auto opened = context.sources.Open(edit.checkpoints(c));
    if (!opened.ok()) {
      return context.At(absl::StrCat("checkpoints[", c, "]"), opened.status());
    }
    checkpoints.push_back(*opened);
    // Stores the version, because an alias or `latest` may be another one later.
    context.resolved.mutable_average()->set_checkpoints(
        c, modify::NameOf(*(*opened)->base()));
  }
  auto selected = SelectKeys("model", edit.keys(), edit.patterns(), context);
  if (!selected.ok()) return selected.status();
  absl::flat_hash_set<int> done;
  for (const size_t t : *selected) {
    WorkingTensor& tensor = context.checkpoint.tensors()[t];
    // Tied tensors are averaged once, under the key of the first one.
    if (tensor.tied_group != 0 && !context.untie &&
        !done.insert(tensor.tied_group).second) {
      continue;
    }
    if (auto s = context.resources.CheckCancelled(); !s.ok()) return s;
    auto tensors = Averaged(tensor.key, checkpoints, context);
    if (!tensors.ok()) return tensors.status();
    const WorkingTensor& first = *tensors->front();
    // Integers and bools, such as num_batches_tracked, are taken from the first
    // checkpoint.
    SourcePtr source = first.source;
    if (IsFloatingPoint(first.dtype) || IsComplex(first.dtype)) {
      if (!CanSum(SummedAs(first.dtype))) {
        return context.Invalid(
            edit.keys().empty() ? "patterns" : "keys",
            absl::StrCat(tensor.key, " is of type ", NameOf(first.dtype),
                         ", which this server does not average"));
      }
      auto s = context.resources.Reserve(
          kPartBytes + edit.checkpoints_size() *
                           static_cast<int64_t>(sizeof(SourcePtr) + sizeof(double)));
      if (!s.ok()) return context.At("checkpoints", s);
      std::vector<SourcePtr> sources;
      sources.reserve(tensors->size());
      for (const WorkingTensor* one : *tensors) sources.push_back(one->source);
      source = AverageSource(std::move(sources), coefficients, SummedAs(first.dtype));
      if (IsStatistic(tensor.key)) {
        context.Warn(Warning::KIND_STATISTICS_AVERAGED, tensor.key,
                     "are running statistics, which no training has seen together with "
                     "the averaged weights: run a few batches in training mode");
      }
    }
    auto s = ReplaceBytes(context, tensor, std::move(source), first.dtype, first.shape);
    if (!s.ok()) return s;
  }
  return absl::OkStatus();
}

}  // namespace modelstore::server::modify
