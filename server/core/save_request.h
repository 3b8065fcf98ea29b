// Shared by the RPCs that create a version: SaveCheckpoint, CreateUpload, CommitUpload,
// CopyCheckpoint.
#pragma once

#include <string>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "modelstore/v1/resources.pb.h"
#include "server/core/service_context.h"
#include "storage/api/saves.h"

namespace modelstore::server {

// The fields that CreateUpload and SaveCheckpoint have in common. Holds references into
// the request.
struct SaveHeader {
  const std::string& parent;
  const v1::Checkpoint& checkpoint;
  const std::string& request_id;
  bool create_model = false;
  bool no_base = false;
  int contribution_count = 1;
};
// Validates the header, resolves the base checkpoint to a version number, and computes
// the digest that identifies a repeated request. `checkpoint_field` is the path of
// `header.checkpoint` in the request, for errors. Errors: INVALID_ARGUMENT, NOT_FOUND for
// the base.
absl::StatusOr<storage::SaveRequest> MakeSaveRequest(ServiceContext& context,
                                                     absl::string_view checkpoint_field,
                                                     const SaveHeader& header);
// Returns the response to a save: the committed version `record`. Succeeds even if the
// model has been deleted since the commit.
absl::StatusOr<v1::Checkpoint> CommittedCheckpoint(
    ServiceContext& context, absl::string_view model_id,
    const storage::records::CheckpointRecord& record);

}  // namespace modelstore::server
