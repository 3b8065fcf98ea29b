#include "modelstore/inspect.h"

#include "client/internal/convert.h"
#include "client/internal/operation.h"
#include "modelstore/v1/operations.pb.h"

namespace modelstore {
namespace {

// Nullopt for an unset or unknown number.
std::optional<DType> ToDType(v1::DType dtype) {
  auto known = DTypeFromNumber(dtype);
  if (!known.ok()) return std::nullopt;
  return *known;
}

static_assert(static_cast<int>(DifferenceKind::kContent) ==
                  v1::CompareCheckpointsResponse::TensorDifference::Kind_MAX,
              "every number of the protocol has a name");

TensorDifference ToDifference(
    const v1::CompareCheckpointsResponse::TensorDifference& proto) {
  TensorDifference difference;
  difference.tensor = proto.tensor();
  difference.kind = internal::ToKnown(proto.kind(), DifferenceKind::kContent);
  difference.dtype = ToDType(proto.dtype());
  difference.other_dtype = ToDType(proto.other_dtype());
  difference.shape.assign(proto.shape().begin(), proto.shape().end());
  difference.other_shape.assign(proto.other_shape().begin(), proto.other_shape().end());
  if (proto.has_norm()) {
    difference.measure = {proto.max_abs_difference(), proto.difference_norm(),
                          proto.norm(), proto.differing_elements(),
                          proto.nan_differences()};
  }
  return difference;
}

void TakeResult(const v1::CompareCheckpointsResponse::Result& proto,
                CompareReport* report) {
  report->checkpoint = proto.checkpoint();
  report->other = proto.other();
  report->identical = proto.identical();
  report->equal_tensors = proto.equal_tensors();
  report->different_tensors = proto.different_tensors();
  report->added_tensors = proto.added_tensors();
  report->removed_tensors = proto.removed_tensors();
  report->different_sections.assign(proto.different_sections().begin(),
                                    proto.different_sections().end());
  report->different_architecture = proto.different_architecture();
}

void TakeResult(const v1::VerifyCheckpointResponse::Result& proto, VerifyReport* report) {
  report->checkpoint = proto.checkpoint();
  report->verified_tensors = proto.verified_tensors();
  report->verified_bytes = proto.verified_bytes();
  report->damaged_tensors = proto.damaged_tensors();
  report->nan_count = proto.nan_count();
  report->infinity_count = proto.infinity_count();
}

}  // namespace

absl::StatusOr<VerifyReport> VerifyCheckpoint(const Client& client, std::string_view name,
                                              const VerifyOptions& options) {
  v1::VerifyCheckpointRequest request;
  request.set_name(std::string(name));
  *request.mutable_selection() = internal::ToSelection(options.selection);
  request.set_count_non_finite(options.count_non_finite);
  request.set_max_bytes_per_second(options.max_bytes_per_second);
  auto connection = client.connection();
  if (!connection.ok()) return connection.status();
  return internal::RunOperation<v1::VerifyCheckpointResponse, VerifyReport>(
      **connection, "VerifyCheckpoint", request,
      internal::TransferDeadline(options.deadline),
      [](const v1::VerifyCheckpointResponse& response, VerifyReport& report) {
        if (response.has_finding()) {
          const auto& f = response.finding();
          report.findings.push_back({f.tensor(), f.damage(), f.damaged_bytes(),
                                     f.nan_count(), f.infinity_count()});
        }
        if (response.has_result()) TakeResult(response.result(), &report);
      });
}

absl::StatusOr<CompareReport> CompareCheckpoints(const Client& client,
                                                 std::string_view name,
                                                 std::string_view other,
                                                 const CompareOptions& options) {
  v1::CompareCheckpointsRequest request;
  request.set_name(std::string(name));
  request.set_other(std::string(other));
  *request.mutable_selection() = internal::ToSelection(options.selection);
  request.set_with_norms(options.with_norms);
  auto connection = client.connection();
  if (!connection.ok()) return connection.status();
  return internal::RunOperation<v1::CompareCheckpointsResponse, CompareReport>(
      **connection, "CompareCheckpoints", request,
      internal::TransferDeadline(options.deadline),
      [](const v1::CompareCheckpointsResponse& response, CompareReport& report) {
        for (const auto& difference : response.differences().tensors()) {
          report.differences.push_back(ToDifference(difference));
        }
        if (response.has_result()) TakeResult(response.result(), &report);
      });
}

}  // namespace modelstore
