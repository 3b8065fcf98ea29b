// The resources that a request names, and the conditions that it sets on them.
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

// A checkpoint as a client names it.
struct CheckpointRef {
  std::string model_id;
  storage::VersionName version;
};
absl::StatusOr<CheckpointRef> ParseCheckpointRef(absl::string_view field,
                                                 absl::string_view name);
// What is destroyed is named by its number: INVALID_ARGUMENT else.
absl::StatusOr<CheckpointName> ParseNumberedCheckpoint(absl::string_view field,
                                                       absl::string_view name);
// The version that must be the model's latest: absent if the request sets no condition,
// 0 if it expects that the model has none. INVALID_ARGUMENT for both, or for a number
// that is no version.
absl::StatusOr<std::optional<int64_t>> ExpectedLatest(std::optional<int64_t> version,
                                                      bool expect_no_version);
// The same of a request that has both fields.
template <typename Request>
absl::StatusOr<std::optional<int64_t>> ExpectedLatest(const Request& request) {
  return ExpectedLatest(request.has_expected_latest_version()
                            ? std::optional<int64_t>(request.expected_latest_version())
                            : std::nullopt,
                        request.expect_no_version());
}
// The model of this name, whose uid must be this one unless it is empty: NOT_FOUND.
absl::StatusOr<storage::records::ModelRecord> ModelOfUid(ServiceContext& context,
                                                         absl::string_view model_id,
                                                         absl::string_view uid);
// `section:key`; `models/m/checkpoints/3`.
std::string FullTensorName(const storage::records::TensorRecord& tensor);
std::string FullCheckpointName(const storage::Read& read);
// The generation that an etag stands for; absent for an empty one. ABORTED if it
// is not `present`.
absl::StatusOr<std::optional<uint64_t>> CheckEtag(absl::string_view name,
                                                  absl::string_view etag,
                                                  absl::string_view present,
                                                  uint64_t generation);

}  // namespace modelstore::server
