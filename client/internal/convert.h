// Converts between protobuf messages and the public structs.
#pragma once

#include <string_view>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "google/protobuf/duration.pb.h"
#include "modelstore/lifecycle.h"
#include "modelstore/options.h"
#include "modelstore/resources.h"
#include "modelstore/tensor.h"
#include "modelstore/v1/aliases_leases.pb.h"
#include "modelstore/v1/checkpoint_transfer.pb.h"
#include "modelstore/v1/resources.pb.h"
#include "proto/contract/value_check.h"

namespace modelstore::internal {

// The enumerator with the protocol's number; Enum::kUnknown for a number beyond `last`,
// which a newer server may send.
template <typename Enum>
Enum ToKnown(int number, Enum last) {
  const bool known = number >= 0 && number <= static_cast<int>(last);
  return known ? static_cast<Enum>(number) : Enum::kUnknown;
}

// A value's name in the protocol, which begins with the enum's, without that: `SAVED` of
// ORIGIN_SAVED.
std::string_view WithoutPrefix(std::string_view name, std::string_view prefix);

std::chrono::system_clock::time_point ToTime(const google::protobuf::Timestamp& time);
google::protobuf::Timestamp ToTimestamp(std::chrono::system_clock::time_point time);
Timeout ToTimeout(const google::protobuf::Duration& duration);
google::protobuf::Duration ToDuration(Timeout timeout);
CheckpointInfo ToCheckpointInfo(const v1::Checkpoint& checkpoint);
ModelInfo ToModelInfo(const v1::Model& model);
AliasMove ToAliasMove(const v1::AliasMove& move);

// INTERNAL for an unknown dtype, or a size that does not match the shape. The size is
// never trusted, because it determines how much memory is written.
absl::StatusOr<TensorInfo> ToTensorInfo(const v1::Tensor& tensor);
absl::StatusOr<SectionContent> ToSectionContent(const v1::Section& section);

// Sets what a version says of itself, and who makes it.
void ToMetadata(const CheckpointMetadata& metadata, v1::Checkpoint* out);
// The same of a save, and its architecture.
void ToMetadata(const SaveContent& content, v1::Checkpoint* out);
// INVALID_ARGUMENT for values that Python cannot reproduce. Appends the tensors that the
// values reference to `tensors`.
absl::Status ToSection(const SectionContent& section, v1::Section* out,
                       std::vector<NamedTensor>* tensors);
// Sets everything but the pieces.
void ToTensor(const TensorInfo& info, v1::Tensor* out);

// The condition on the model's latest version.
template <typename Options, typename Request>
void SetExpectedLatest(const Options& options, Request* out) {
  if (options.expected_latest_version.has_value()) {
    out->set_expected_latest_version(*options.expected_latest_version);
  }
  out->set_expect_no_version(options.expect_no_version);
}

v1::TensorSelection ToSelection(const TensorSelection& selection);
void ToLoadRequest(const LoadOptions& options, v1::LoadCheckpointRequest* out);

}  // namespace modelstore::internal
