// Conversion between messages of the API and records of storage. Conversions into records
// are canonical: equal content makes equal records. They expect input that validation.h
// has accepted.
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

// Maximum of google.protobuf.Duration: 10,000 years.
inline constexpr int64_t kMaxDurationSeconds = 315'576'000'000;
absl::Duration ToDuration(const google::protobuf::Duration& duration);

// Into records.
records::ModelRecord ModelToRecord(absl::string_view model_id, const v1::Model& model);
records::CheckpointMetadata MetadataToRecord(const v1::Checkpoint& checkpoint);
// `named` has the tensors that ValidateManifestPart() found in the values of each
// section.
storage::ManifestPart ManifestPartToRecord(v1::ManifestPart part,
                                           std::vector<std::vector<NamedTensor>> named);
// Encode what a record stores of a section (without name and totals, which are fields of
// the record), an architecture, and one edit.
std::string EncodeSection(v1::Section section);
std::string EncodeArchitecture(const v1::Architecture& architecture);
std::string EncodeEdit(const v1::Edit& edit);

// From records.
v1::Model ModelFromRecord(const records::ModelRecord& record);
// Fills the fields of CHECKPOINT_VIEW_BASIC. `model` provides the aliases of the version.
v1::Checkpoint CheckpointFromRecord(const records::ModelRecord& model,
                                    const records::CheckpointRecord& record);
// Adds the fields that CHECKPOINT_VIEW_FULL has in addition, except the values of
// sections. DATA_LOSS, with `name` of the checkpoint, if a stored field cannot be
// decoded.
absl::Status AddFullMetadata(const records::CheckpointMetadata& metadata,
                             absl::string_view name, v1::Checkpoint* checkpoint);
// What to include of a tensor's pieces: nothing, boxes and chunk size, or also digests.
enum class Pieces { kNone, kBoxes, kHexDigests };
v1::Tensor TensorFromRecord(const records::TensorRecord& record, Pieces pieces);
// `checkpoint` is its name, for errors. DATA_LOSS if the stored value cannot be decoded,
// UNIMPLEMENTED if a newer server wrote it.
absl::StatusOr<v1::Section> SectionFromRecord(const records::SectionRecord& record,
                                              absl::string_view checkpoint);
// Returns the encoding of a v1.Section that holds value and metadata, as a view into the
// record. SectionFromRecord() must have accepted the record, and its value must not be
// empty.
absl::string_view EncodedSection(const records::SectionRecord& record);
v1::Upload UploadFromRecord(const records::UploadRecord& record);
v1::Upload UploadFromState(const storage::UploadState& state);

// Returns the size of the whole tensor in bytes; 0 if its shape overflows, which storage
// never contains.
int64_t StoredTensorBytes(const records::TensorRecord& record);

v1::Alias AliasFrom(absl::string_view model_id, const storage::Aliases::Alias& alias);
v1::AliasMove AliasMoveFromRecord(const records::AliasMoveRecord& record);
v1::Lease LeaseFrom(absl::string_view model_id, const storage::Leases::Lease& lease);
// Encodes the fields of a model that storage keeps as opaque bytes: the retention policy.
std::string EncodeModelExtra(const v1::Model& model);

// An etag identifies one state of one resource: uid of the model, version, generation.
std::string ModelEtag(const records::ModelRecord& record);
std::string CheckpointEtag(absl::string_view model_uid,
                           const records::CheckpointRecord& record);

}  // namespace modelstore::server
