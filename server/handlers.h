// The unary RPCs, one function each, and what they share. Each checks its
// request, calls storage and converts the answer.
#pragma once

#include <string>

#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "google/protobuf/empty.pb.h"
#include "modelstore/v1/checkpoint_transfer.pb.h"
#include "modelstore/v1/model_store.pb.h"
#include "server/reservation.h"
#include "server/service.h"

namespace modelstore::server {

struct ServiceContext {
  storage::CheckpointStore* store = nullptr;
  ServiceOptions options;
  absl::Time start_time;
  std::shared_ptr<SessionMemory> memory = std::make_shared<SessionMemory>(0);
};

// A checkpoint as a client names it, with the alias resolved.
struct CheckpointRef {
  std::string model_id;
  storage::VersionOrLatest version;
};
absl::StatusOr<CheckpointRef> ResolveCheckpoint(absl::string_view field,
                                                absl::string_view name);

// What CreateUpload and SaveCheckpoint have in common: who saves what.
struct SaveHeader {
  const std::string& parent;
  const v1::Checkpoint& checkpoint;
  const std::string& request_id;
  bool create_model = false;
  int contribution_count = 1;
};
absl::StatusOr<storage::SaveRequest> MakeSaveRequest(ServiceContext& context,
                                                     absl::string_view checkpoint_field,
                                                     const SaveHeader& header);
// The answer to a save: the version that it made.
absl::StatusOr<v1::Checkpoint> CommittedCheckpoint(
    ServiceContext& context, absl::string_view model_id,
    const storage::records::CheckpointRecord& record);

// models_handlers.cc
absl::StatusOr<v1::Model> CreateModel(ServiceContext& context,
                                      const v1::CreateModelRequest& request);
absl::StatusOr<v1::Model> GetModel(ServiceContext& context,
                                   const v1::GetModelRequest& request);
absl::StatusOr<v1::ListModelsResponse> ListModels(ServiceContext& context,
                                                  const v1::ListModelsRequest& request);
absl::StatusOr<v1::DeleteModelResponse> DeleteModel(
    ServiceContext& context, const v1::DeleteModelRequest& request);

// checkpoints_handlers.cc
absl::StatusOr<v1::Checkpoint> GetCheckpoint(ServiceContext& context,
                                             const v1::GetCheckpointRequest& request);
absl::StatusOr<v1::ListCheckpointsResponse> ListCheckpoints(
    ServiceContext& context, const v1::ListCheckpointsRequest& request);
absl::StatusOr<v1::DeleteCheckpointResponse> DeleteCheckpoint(
    ServiceContext& context, const v1::DeleteCheckpointRequest& request);

// tensors_handlers.cc
absl::StatusOr<v1::ListTensorsResponse> ListTensors(
    ServiceContext& context, const v1::ListTensorsRequest& request);
absl::StatusOr<v1::Section> GetSection(ServiceContext& context,
                                       const v1::GetSectionRequest& request);

// uploads_handlers.cc
absl::StatusOr<v1::Upload> CreateUpload(ServiceContext& context,
                                        const v1::CreateUploadRequest& request);
absl::StatusOr<v1::FindMissingChunksResponse> FindMissingChunks(
    ServiceContext& context, const v1::FindMissingChunksRequest& request);
absl::StatusOr<v1::Upload> GetUpload(ServiceContext& context,
                                     const v1::GetUploadRequest& request);
absl::StatusOr<v1::Checkpoint> CommitUpload(ServiceContext& context,
                                            const v1::CommitUploadRequest& request);
absl::StatusOr<google::protobuf::Empty> DeleteUpload(
    ServiceContext& context, const v1::DeleteUploadRequest& request);
absl::StatusOr<v1::ListUploadsResponse> ListUploads(
    ServiceContext& context, const v1::ListUploadsRequest& request);

// info_handlers.cc
absl::StatusOr<v1::ServerInfo> GetServerInfo(ServiceContext& context,
                                             const v1::GetServerInfoRequest& request);
absl::StatusOr<v1::Stats> GetStats(ServiceContext& context,
                                   const v1::GetStatsRequest& request);

}  // namespace modelstore::server
