// What the requests that make a version have in common.
#pragma once

#include <string>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "modelstore/v1/resources.pb.h"
#include "server/core/service_context.h"
#include "storage/api/saves.h"

namespace modelstore::server {

// What CreateUpload and SaveCheckpoint have in common: who saves what.
struct SaveHeader {
  const std::string& parent;
  const v1::Checkpoint& checkpoint;
  const std::string& request_id;
  bool create_model = false;
  bool no_base = false;
  int contribution_count = 1;
};
absl::StatusOr<storage::SaveRequest> MakeSaveRequest(ServiceContext& context,
                                                     absl::string_view checkpoint_field,
                                                     const SaveHeader& header);
// The answer to a save: the version that it made.
absl::StatusOr<v1::Checkpoint> CommittedCheckpoint(
    ServiceContext& context, absl::string_view model_id,
    const storage::records::CheckpointRecord& record);

}  // namespace modelstore::server
