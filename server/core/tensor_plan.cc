#include "server/core/tensor_plan.h"

#include <algorithm>

#include "absl/container/flat_hash_map.h"
#include "absl/strings/escaping.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "proto/contract/digest.h"
#include "proto/contract/errors.h"
#include "proto/contract/message_codec.h"
#include "proto/contract/names.h"
#include "proto/contract/numeric.h"
#include "server/core/convert.h"
#include "server/core/resource_names.h"
#include "server/core/tensor_selector.h"

namespace modelstore::server {
namespace {

// Length of the checksum in a resume_token, which detects truncation and damage.
constexpr size_t kTokenCheckBytes = 8;

// A slice of rows [begin, end) of one tensor.
struct Rows {
  int64_t begin = 0;
  int64_t end = 0;
  int field = 0;      // index in the request, for errors
  bool used = false;  // a selected tensor has this slice

  bool SameAs(const Rows& other) const {
    return begin == other.begin && end == other.end;
  }
};
// By `section:key`.
using Slices = absl::flat_hash_map<std::string, Rows>;

absl::StatusOr<Slices> ParseSlices(const v1::LoadCheckpointRequest& request) {
  Slices slices;
  for (int i = 0; i < request.slices_size(); ++i) {
    const v1::RowSlice& slice = request.slices(i);
    const std::string field = absl::StrCat("slices[", i, "]");
    const TensorName name = ParseTensorName(slice.tensor());
    if (auto s = ValidateKey(absl::StrCat(field, ".tensor"), name.key); !s.ok()) return s;
    if (slice.begin() < 0 || slice.end() < slice.begin()) {
      return InvalidField(field, "0 <= begin <= end expected");
    }
    if (!slices
             .try_emplace(TensorNameOf(name.section, name.key),
                          Rows{slice.begin(), slice.end(), i})
             .second) {
      return InvalidField(field, "this tensor has a slice already");
    }
  }
  return slices;
}

absl::StatusOr<DType> ParseTarget(v1::DType target) {
  auto dtype = DTypeFromNumber(target);
  if (!dtype.ok() || !CanCast(*dtype, DType::kFloat32)) {
    return InvalidField("target_dtype",
                        "a type to cast to: float16, bfloat16, float32 or float64");
  }
  return dtype;
}

// Restricts a planned tensor to rows of its first dimension. `stored_bytes` is the size
// of the whole tensor.
absl::Status ApplySlice(const records::TensorRecord& tensor, const Rows& rows,
                        int64_t stored_bytes, PlannedTensor* planned) {
  const std::string name = FullTensorName(tensor);
  if (tensor.shape_size() == 0) {
    return absl::OutOfRangeError(absl::StrCat("slices[", rows.field, "]: tensor ", name,
                                              " is 0-dimensional and has no rows"));
  }
  if (rows.end > tensor.shape(0)) {
    return absl::OutOfRangeError(absl::StrCat("slices[", rows.field, "]: rows [",
                                              rows.begin, ", ", rows.end, ") of tensor ",
                                              name, ", which has ", tensor.shape(0)));
  }
  const int64_t row_bytes = tensor.shape(0) == 0 ? 0 : stored_bytes / tensor.shape(0);
  planned->rows = rows.end - rows.begin;
  planned->source_begin = rows.begin * row_bytes;
  planned->size_bytes = planned->rows * row_bytes;
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<TensorPlan> TensorPlan::Make(std::shared_ptr<storage::Read> read,
                                            const v1::LoadCheckpointRequest& request) {
  auto bounded =
      CheckSelectionSize(request.selection(), request.slices_size(),
                         request.ByteSizeLong() - request.selection().ByteSizeLong());
  if (!bounded.ok()) return bounded;
  if (auto s = ValidateDevice("device", request.device()); !s.ok()) return s;
  auto selector = TensorSelector::Make(request.selection());
  if (!selector.ok()) return selector.status();
  if (auto s = selector->CheckSections(*read); !s.ok()) return s;
  auto slices = ParseSlices(request);
  if (!slices.ok()) return slices.status();
  std::optional<DType> target;
  if (request.target_dtype() != v1::DTYPE_UNSPECIFIED) {
    auto parsed = ParseTarget(request.target_dtype());
    if (!parsed.ok()) return parsed.status();
    target = *parsed;
  }

  TensorPlan plan;
  plan.read_ = std::move(read);
  const records::ManifestPage& manifest = plan.read_->manifest();
  // `by_name`: index of every tensor so far. `brought`: for each stored tensor, the name
  // and rows of the first tensor of the sequence that provides its bytes. A later one
  // with the same rows is sent without bytes. Only the first is compared, so a tensor
  // that is selected with several slices may be sent more than once.
  absl::flat_hash_map<std::string, int> by_name;
  absl::flat_hash_map<int, std::pair<std::string, Rows>> brought;
  for (int i = 0; i < manifest.tensors_size(); ++i) {
    const records::TensorRecord& tensor = manifest.tensors(i);
    const std::string name = FullTensorName(tensor);
    by_name.emplace(name, i);
    if (!selector->Takes(tensor, name)) continue;
    PlannedTensor planned;
    planned.described = i;
    planned.source = i;
    if (!tensor.tied_to().empty()) {
      auto target_of_tie = by_name.find(tensor.tied_to());
      if (target_of_tie == by_name.end()) {
        return TensorDataLoss(FullCheckpointName(*plan.read_), name,
                              absl::StrCat("it is tied to ", tensor.tied_to(),
                                           ", which no earlier tensor is"));
      }
      planned.source = target_of_tie->second;
    }
    const int64_t stored_bytes = StoredTensorBytes(tensor);
    planned.size_bytes = stored_bytes;
    Rows rows{0, -1};  // the whole tensor
    if (auto slice = slices->find(name); slice != slices->end()) {
      slice->second.used = true;
      rows = slice->second;
      if (auto s = ApplySlice(tensor, rows, stored_bytes, &planned); !s.ok()) return s;
    }
    planned.from = static_cast<DType>(tensor.dtype());
    planned.to = planned.from;
    if (target && IsFloatingPoint(planned.from)) {
      if (!CanCast(planned.from, *target)) {
        return absl::UnimplementedError(absl::StrCat("tensor ", name, ": casts from ",
                                                     std::string(DTypeName(planned.from)),
                                                     " are not built"));
      }
      planned.to = *target;
      planned.size_bytes =
          planned.size_bytes / ElementSize(planned.from) * ElementSize(planned.to);
    }
    const auto [first, is_first] =
        brought.try_emplace(planned.source, std::make_pair(name, rows));
    if (!is_first && first->second.second.SameAs(rows)) {
      planned.tied_to = first->second.first;
      planned.size_bytes = 0;
    }
    planned.position = plan.total_bytes_;
    plan.total_bytes_ += planned.size_bytes;
    plan.tensors_.push_back(std::move(planned));
  }
  if (auto s = selector->CheckMatches(*plan.read_); !s.ok()) return s;
  for (const auto& [name, rows] : *slices) {
    if (rows.used) continue;
    if (!by_name.contains(name)) {
      return DoesNotExist("tensor",
                          absl::StrCat(FullCheckpointName(*plan.read_), "/", name));
    }
    return InvalidField("slices", absl::StrCat(name, " is not among the selected"));
  }
  for (int i = 0; i < manifest.sections_size(); ++i) {
    if (selector->TakesSection(manifest.sections(i).name())) plan.sections_.push_back(i);
  }
  return plan;
}

v1::Tensor TensorPlan::Describe(const PlannedTensor& planned) const {
  v1::Tensor tensor =
      TensorFromRecord(read_->manifest().tensors(planned.described), Pieces::kNone);
  tensor.set_dtype(static_cast<v1::DType>(planned.to));
  if (planned.rows >= 0) tensor.set_shape(0, planned.rows);
  tensor.set_tied_to(planned.tied_to);
  tensor.set_size_bytes(planned.size_bytes);
  return tensor;
}

size_t TensorPlan::Find(int64_t position) const {
  auto after = std::upper_bound(
      tensors_.begin(), tensors_.end(), position,
      [](int64_t p, const PlannedTensor& tensor) { return p < tensor.position; });
  // Several tensors have the same position if all but the last of them are without
  // bytes. upper_bound() is after all of them, so the one before it holds the byte.
  return static_cast<size_t>(after - tensors_.begin()) - 1;
}

std::string MakeResumeToken(const std::string& storage_token,
                            const v1::LoadCheckpointRequest& request) {
  v1::LoadCheckpointRequest kept;
  *kept.mutable_selection() = request.selection();
  *kept.mutable_slices() = request.slices();
  kept.set_target_dtype(request.target_dtype());
  kept.set_device(request.device());
  kept.set_resume_token(storage_token);
  const std::string bytes = SerializeDeterministic(kept);
  const Digest check = ComputeDigest(DigestAlgorithm::kXxh3_128, bytes);
  return absl::WebSafeBase64Escape(
      absl::StrCat(check.bytes().substr(0, kTokenCheckBytes), bytes));
}

absl::StatusOr<v1::LoadCheckpointRequest> ReadResumeToken(absl::string_view token) {
  std::string decoded;
  v1::LoadCheckpointRequest request;
  if (absl::WebSafeBase64Unescape(token, &decoded) && decoded.size() > kTokenCheckBytes) {
    const absl::string_view bytes = absl::string_view(decoded).substr(kTokenCheckBytes);
    const Digest check = ComputeDigest(DigestAlgorithm::kXxh3_128, bytes);
    if (absl::StartsWith(decoded, check.bytes().substr(0, kTokenCheckBytes)) &&
        ParseMessage(bytes, &request)) {
      return request;
    }
  }
  return InvalidField("resume_token", "not a resume_token of this server");
}

}  // namespace modelstore::server
