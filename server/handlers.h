// The unary RPCs, one function each, and what they share. Each checks its
// request, calls storage and converts the answer.
#pragma once

#include <atomic>
#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "google/protobuf/empty.pb.h"
#include "modelstore/v1/checkpoint_transfer.pb.h"
#include "modelstore/v1/model_store.pb.h"
#include "proto/contract/names.h"
#include "server/helper_threads.h"
#include "server/model_watchers.h"
#include "server/reservation.h"
#include "server/service.h"

namespace modelstore::server {

struct ServiceContext {
  storage::CheckpointStore* store = nullptr;
  ServiceOptions options;
  absl::Time start_time;
  std::shared_ptr<SessionMemory> memory = std::make_shared<SessionMemory>(0);
  std::shared_ptr<HelperThreads> helpers = std::make_shared<HelperThreads>(0);
  std::shared_ptr<ModelWatchers> watchers = std::make_shared<ModelWatchers>();
  // A CollectGarbage call runs its collection; the others wait for it.
  std::shared_ptr<std::atomic<bool>> collecting =
      std::make_shared<std::atomic<bool>>(false);

  // See ServiceOptions::for_each.
  void ForEach(int count, const std::function<void(int)>& each) const {
    if (options.for_each) return options.for_each(count, each);
    for (int i = 0; i < count; ++i) each(i);
  }
};

// A checkpoint as a client names it.
struct CheckpointRef {
  std::string model_id;
  storage::VersionName version;
};
absl::StatusOr<CheckpointRef> ParseCheckpointRef(absl::string_view field,
                                                 absl::string_view name);
// What is destroyed or given back is named by its number: INVALID_ARGUMENT else.
absl::StatusOr<CheckpointName> ParseNumberedCheckpoint(absl::string_view field,
                                                       absl::string_view name);
// The model of this name, whose uid must be this one unless it is empty: NOT_FOUND.
absl::StatusOr<storage::records::ModelRecord> ModelOfUid(ServiceContext& context,
                                                         absl::string_view model_id,
                                                         absl::string_view uid);
// The generation that an etag stands for; absent for an empty one. ABORTED if it
// is not `present`.
absl::StatusOr<std::optional<uint64_t>> CheckEtag(absl::string_view name,
                                                  absl::string_view etag,
                                                  absl::string_view present,
                                                  uint64_t generation);

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
absl::StatusOr<v1::Model> UpdateModel(ServiceContext& context,
                                      const v1::UpdateModelRequest& request);
absl::StatusOr<v1::DeleteModelResponse> DeleteModel(
    ServiceContext& context, const v1::DeleteModelRequest& request);

// checkpoints_handlers.cc
absl::StatusOr<v1::Checkpoint> GetCheckpoint(ServiceContext& context,
                                             const v1::GetCheckpointRequest& request);
absl::StatusOr<v1::Checkpoint> UpdateCheckpoint(
    ServiceContext& context, const v1::UpdateCheckpointRequest& request);
absl::StatusOr<v1::DeleteCheckpointResponse> DeleteCheckpoint(
    ServiceContext& context, const v1::DeleteCheckpointRequest& request);

// copy_checkpoint.cc
absl::StatusOr<v1::Checkpoint> CopyCheckpoint(ServiceContext& context,
                                              const v1::CopyCheckpointRequest& request);

// list_checkpoints.cc
absl::StatusOr<v1::ListCheckpointsResponse> ListCheckpoints(
    ServiceContext& context, const v1::ListCheckpointsRequest& request);

// aliases_handlers.cc
absl::StatusOr<v1::Alias> SetAlias(ServiceContext& context,
                                   const v1::SetAliasRequest& request);
absl::StatusOr<google::protobuf::Empty> DeleteAlias(
    ServiceContext& context, const v1::DeleteAliasRequest& request);
absl::StatusOr<v1::ListAliasesResponse> ListAliases(
    ServiceContext& context, const v1::ListAliasesRequest& request);
absl::StatusOr<v1::ListAliasMovesResponse> ListAliasMoves(
    ServiceContext& context, const v1::ListAliasMovesRequest& request);

// leases_handlers.cc
absl::StatusOr<v1::Lease> AcquireLease(ServiceContext& context,
                                       const v1::AcquireLeaseRequest& request);
absl::StatusOr<google::protobuf::Empty> ReleaseLease(
    ServiceContext& context, const v1::ReleaseLeaseRequest& request);
absl::StatusOr<v1::ListLeasesResponse> ListLeases(ServiceContext& context,
                                                  const v1::ListLeasesRequest& request);

// tensors_handlers.cc
absl::StatusOr<v1::ListTensorsResponse> ListTensors(
    ServiceContext& context, const v1::ListTensorsRequest& request);
absl::StatusOr<v1::Section> GetSection(ServiceContext& context,
                                       const v1::GetSectionRequest& request);

// attachments_handlers.cc
absl::StatusOr<v1::GetAttachmentResponse> GetAttachment(
    ServiceContext& context, const v1::GetAttachmentRequest& request);

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
