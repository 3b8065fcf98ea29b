// Between the API's messages and storage's records. Conversions into records
// are canonical (equal content makes equal records) and expect input that
// validation.h has passed.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/time/time.h"
#include "google/protobuf/duration.pb.h"
#include "modelstore/v1/aliases_leases.pb.h"
#include "modelstore/v1/checkpoint_transfer.pb.h"
#include "modelstore/v1/resources.pb.h"
#include "proto/contract/value_check.h"
#include "storage/api/aliases.h"
#include "storage/api/leases.h"
#include "storage/api/saves.h"
#include "storage/api/types.h"
#include "storage/api/uploads.h"

namespace modelstore::server {

namespace records = ::modelstore::storage::records;

// The bound of google.protobuf.Duration: 10,000 years.
inline constexpr int64_t kMaxDurationSeconds = 315'576'000'000;
absl::Duration ToDuration(const google::protobuf::Duration& duration);

// Into records.
records::ModelRecord ModelToRecord(absl::string_view model_id, const v1::Model& model);
records::CheckpointMetadata MetadataToRecord(const v1::Checkpoint& checkpoint);
// `named` is what ValidateManifestPart() found in the part's sections.
storage::ManifestPart ManifestPartToRecord(v1::ManifestPart part,
                                           std::vector<std::vector<NamedTensor>> named);
// What a record keeps of a section, of an architecture, of one edit.
std::string EncodeSection(v1::Section section);
std::string EncodeArchitecture(const v1::Architecture& architecture);
std::string EncodeEdit(const v1::Edit& edit);

// From records.
v1::Model ModelFromRecord(const records::ModelRecord& record);
// As by CHECKPOINT_VIEW_BASIC.
v1::Checkpoint CheckpointFromRecord(const records::ModelRecord& model,
                                    const records::CheckpointRecord& record);
// Adds what CHECKPOINT_VIEW_FULL has beyond BASIC, apart from the sections' values.
// DATA_LOSS, with the checkpoint's name, if it cannot be read.
absl::Status AddFullMetadata(const records::CheckpointMetadata& metadata,
                             absl::string_view name, v1::Checkpoint* checkpoint);
enum class Pieces { kNone, kBoxes, kHexDigests };
v1::Tensor TensorFromRecord(const records::TensorRecord& record, Pieces pieces);
// Of the checkpoint of this name. DATA_LOSS if the stored value cannot be read.
absl::StatusOr<v1::Section> SectionFromRecord(const records::SectionRecord& record,
                                              absl::string_view checkpoint);
// An encoded v1.Section that holds value and metadata: a view into the record, which
// SectionFromRecord() has accepted and which has a value.
absl::string_view EncodedSection(const records::SectionRecord& record);
v1::Upload UploadFromRecord(const records::UploadRecord& record);
v1::Upload UploadFromState(const storage::UploadState& state);

// Of a whole tensor. 0 for a shape that overflows, which storage never holds.
int64_t StoredTensorBytes(const records::TensorRecord& record);

v1::Alias AliasFrom(absl::string_view model_id, const storage::Aliases::Alias& alias);
v1::AliasMove AliasMoveFromRecord(const records::AliasMoveRecord& record);
v1::Lease LeaseFrom(absl::string_view model_id, const storage::Leases::Lease& lease);
// What storage keeps of a model without understanding it.
std::string EncodeModelExtra(const v1::Model& model);

// Etags name one state of one resource.
std::string ModelEtag(const records::ModelRecord& record);
std::string CheckpointEtag(absl::string_view model_uid,
                           const records::CheckpointRecord& record);

}  // namespace modelstore::server
