// Validation of requests, in addition to names (proto/contract/names.h). Unless noted,
// each error is INVALID_ARGUMENT with the path of the invalid field, which starts with
// `field`. Nothing here reads storage.
#pragma once

#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "modelstore/v1/checkpoint_transfer.pb.h"
#include "modelstore/v1/resources.pb.h"
#include "proto/contract/value_check.h"

namespace modelstore::server {

// Checks the fields that a client may set. UNIMPLEMENTED for SHA-256 digests.
absl::Status ValidateModel(absl::string_view field, const v1::Model& model);
// Checks that no number is negative and that keep_best comes with a metric.
absl::Status ValidateRetention(absl::string_view field,
                               const v1::RetentionPolicy& policy);
// Checks the length of a note, the stated reason of a change.
absl::Status ValidateNote(absl::string_view field, absl::string_view note);

// The errors for an update_mask that is empty, or has a path other than `known`.
absl::Status EmptyMask();
absl::Status UnknownMaskPath(absl::string_view path, absl::string_view known);

// Returns expire_time in microseconds since the Unix epoch; 0 if it is not set.
absl::StatusOr<int64_t> ExpiryMicros(absl::string_view field,
                                     const v1::Checkpoint& checkpoint);

// Checks the metadata that a save provides: description, labels, metrics, producer and
// architecture.
absl::Status ValidateCheckpoint(absl::string_view field,
                                const v1::Checkpoint& checkpoint);

// Whether pieces must have digests. kRequired: UploadChunks. kOptional: SaveCheckpoint,
// whose chunks follow in the same stream.
enum class Digests { kRequired, kOptional };

// Checks names and shape, that each piece lies within the shape, and that its number of
// digests matches its chunk size. UNIMPLEMENTED for a box that is not a range of rows.
// Whether the pieces tile the tensor is checked at commit, when all contributions are
// complete.
absl::Status ValidateTensor(absl::string_view field, const v1::Tensor& tensor,
                            Digests digests);

// Checks the value and metadata by CheckValue(), and adds the tensors that the value
// refers to to `named`. Whether these exist is checked at commit.
absl::Status ValidateSection(absl::string_view field, const v1::Section& section,
                             std::vector<NamedTensor>& named);
absl::Status ValidateAttachment(absl::string_view field,
                                const v1::Attachment& attachment);

// Checks all of a part, with paths such as `manifest.tensors[3].shape`. Sets `named` to
// the tensors that each section's value refers to, one entry a section.
absl::Status ValidateManifestPart(absl::string_view field, const v1::ManifestPart& part,
                                  Digests digests,
                                  std::vector<std::vector<NamedTensor>>& named);

}  // namespace modelstore::server
