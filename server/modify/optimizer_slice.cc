#include "server/modify/optimizer_slice.h"

#include <algorithm>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "proto/contract/errors.h"
#include "proto/contract/names.h"
#include "server/modify/optimizer_index.h"
#include "server/modify/repeat_source.h"

namespace modelstore::server::modify {
namespace {

// Whether the initial value of the field is one constant. Rprop's `step_size` starts at
// the learning rate and ASGD's `ax` is a running average of the parameter: neither is
// known here.
bool BeginsAsNumber(absl::string_view field) {
  return IsElementwise(field) && field != "step_size" && field != "ax";
}

bool HasShape(const WorkingTensor& tensor,
              const google::protobuf::RepeatedField<int64_t>& shape) {
  return std::equal(tensor.shape.begin(), tensor.shape.end(), shape.begin(), shape.end());
}

// Composes the rows of a state tensor: ranges of the old one, and `fill` in new rows.
absl::StatusOr<SourcePtr> RowsOf(const WorkingTensor& field,
                                 const std::vector<RowRun>& rows, double fill) {
  int64_t row_elements = 1;
  for (size_t d = 1; d < field.shape.size(); ++d) row_elements *= field.shape[d];
  const int64_t row_bytes = row_elements * ElementSize(field.dtype);
  std::vector<SourcePtr> parts;
  for (const RowRun& run : rows) {
    if (!run.is_new()) {
      parts.push_back(RangeSource(field.source, run.first * row_bytes,
                                  (run.first + run.count) * row_bytes));
      continue;
    }
    auto fresh = RepeatSource(field.dtype, fill, run.count * row_elements);
    if (!fresh.ok()) return fresh.status();
    parts.push_back(*std::move(fresh));
  }
  return parts.size() == 1 ? parts[0] : ConcatSource(std::move(parts));
}

}  // namespace

bool CanSliceState(const WorkingTensor& parameter, absl::string_view section,
                   const v1::Value* state, WorkingCheckpoint& checkpoint) {
  // `kept_rows` is outdated if a later edit has given the parameter other bytes.
  if (state == nullptr || !parameter.kept_rows.has_value() ||
      &WithoutCasts(*parameter.kept_rows->of) != &WithoutCasts(*parameter.source)) {
    return false;
  }
  const auto& old = checkpoint.base()->manifest().tensors(*parameter.origin);
  for (const auto& entry : state->dict_value().entries()) {
    if (!entry.value().has_tensor_value()) continue;
    const WorkingTensor* field = checkpoint.Find(section, entry.value().tensor_value());
    if (field == nullptr) return false;
    if (field->shape.empty()) continue;
    if (!HasShape(*field, old.shape()) || !BeginsAsNumber(entry.key().string_value())) {
      return false;
    }
  }
  return true;
}

absl::Status SliceState(const WorkingTensor& parameter, absl::string_view section,
                        const v1::Value& state, double sum, WorkingCheckpoint& checkpoint,
                        EditResources& resources,
                        absl::flat_hash_set<std::string>& sliced) {
  for (const auto& entry : state.dict_value().entries()) {
    if (!entry.value().has_tensor_value()) continue;
    WorkingTensor* field = checkpoint.Find(section, entry.value().tensor_value());
    if (field->shape.empty()) continue;
    if (!sliced.insert(field->key).second) {
      return InvalidField("edits", absl::StrCat(TensorNameOf(section, field->key),
                                                " is the state of two parameters, whose "
                                                "rows cannot follow both"));
    }
    const double fill = entry.key().string_value() == "sum" ? sum : 0;
    const std::vector<RowRun>& runs = parameter.kept_rows->rows;
    auto s = resources.Reserve(static_cast<int64_t>(runs.size()) * kPartBytes);
    if (!s.ok()) return s;
    auto rows = RowsOf(*field, runs, fill);
    if (!rows.ok()) return rows.status();
    // Tensors tied to it keep all their rows.
    checkpoint.Untie(*field);
    field->source = *std::move(rows);
    field->shape = parameter.shape;
  }
  return absl::OkStatus();
}

}  // namespace modelstore::server::modify
