// Checks of what clients send, beyond names (proto/contract/names.h). Each
// refusal is INVALID_ARGUMENT with the path of the field, from `field` on.
#pragma once

#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "modelstore/v1/checkpoint_transfer.pb.h"
#include "modelstore/v1/resources.pb.h"
#include "proto/contract/value_check.h"

namespace modelstore::server {

absl::Status ValidateModel(absl::string_view field, const v1::Model& model);
// No negative number; keep_best has its metric.
absl::Status ValidateRetention(absl::string_view field,
                               const v1::RetentionPolicy& policy);
// Why somebody did something.
absl::Status ValidateNote(absl::string_view field, absl::string_view note);

// Refusals of an update_mask.
absl::Status EmptyMask();
absl::Status UnknownMaskPath(absl::string_view path, absl::string_view known);

// Microseconds since the epoch of the expiry; 0 for none.
absl::StatusOr<int64_t> ExpiryMicros(absl::string_view field,
                                     const v1::Checkpoint& checkpoint);

// The fields that a saver gives: metadata, not content.
absl::Status ValidateCheckpoint(absl::string_view field,
                                const v1::Checkpoint& checkpoint);

enum class Digests { kRequired, kOptional };

// Names, shape, and pieces that lie within the shape and are cut as they say.
// UNIMPLEMENTED for a box that is not a range of rows. Whether the pieces tile
// the tensor is seen at commit, when all contributions are there.
absl::Status ValidateTensor(absl::string_view field, const v1::Tensor& tensor,
                            Digests digests);

// Its values by CheckValue(), which adds the tensors they name to `named`. That these
// are there is seen at commit.
absl::Status ValidateSection(absl::string_view field, const v1::Section& section,
                             std::vector<NamedTensor>& named);
absl::Status ValidateAttachment(absl::string_view field,
                                const v1::Attachment& attachment);

// All of a part, with paths such as `manifest.tensors[3].shape`. `named` gets the
// tensors that each section's values name.
absl::Status ValidateManifestPart(absl::string_view field, const v1::ManifestPart& part,
                                  Digests digests,
                                  std::vector<std::vector<NamedTensor>>& named);

}  // namespace modelstore::server
