// Parsing of the resource names in a request and of its preconditions on them.
#pragma once

#include <cstdint>
#include <optional>
#include <string>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "proto/contract/names.h"
#include "server/core/service_context.h"
#include "storage/api/reads.h"
#include "storage/api/types.h"

namespace modelstore::server {

// A checkpoint as named by a client: by number, alias or `latest`. Not resolved.
struct CheckpointRef {
  std::string model_id;
  storage::VersionName version;
};
// Parses `models/{model}/checkpoints/{version}`. INVALID_ARGUMENT naming `field`.
absl::StatusOr<CheckpointRef> ParseCheckpointRef(absl::string_view field,
                                                 absl::string_view name);
// The same, but INVALID_ARGUMENT for an alias or `latest`. For deletions: an alias may
// move between the client's decision and the call.
absl::StatusOr<CheckpointName> ParseNumberedCheckpoint(absl::string_view field,
                                                       absl::string_view name);
// Returns the version that must be the model's latest: absent if the request sets no
// precondition, 0 if the model must have no version. INVALID_ARGUMENT if both fields are
// set, or `version` is not positive.
absl::StatusOr<std::optional<int64_t>> ExpectedLatest(std::optional<int64_t> version,
                                                      bool expect_no_version);
// The same for a request message with both fields.
template <typename Request>
absl::StatusOr<std::optional<int64_t>> ExpectedLatest(const Request& request) {
  return ExpectedLatest(request.has_expected_latest_version()
                            ? std::optional<int64_t>(request.expected_latest_version())
                            : std::nullopt,
                        request.expect_no_version());
}
// Returns the model. NOT_FOUND if it does not exist, or if `uid` is not empty and is not
// the model's: the model was deleted and created again.
absl::StatusOr<storage::records::ModelRecord> ModelOfUid(ServiceContext& context,
                                                         absl::string_view model_id,
                                                         absl::string_view uid);
// Returns `section:key`.
std::string FullTensorName(const storage::records::TensorRecord& tensor);
// Returns the name with the version's number, such as `models/iris/checkpoints/3`.
std::string FullCheckpointName(const storage::Read& read);
// Checks the etag of a request against `present`, the current etag of resource `name`,
// which is at `generation`. Returns the generation that the change must expect; absent
// if the request has no etag. ABORTED if the etags differ.
absl::StatusOr<std::optional<uint64_t>> CheckEtag(absl::string_view name,
                                                  absl::string_view etag,
                                                  absl::string_view present,
                                                  uint64_t generation);

}  // namespace modelstore::server
