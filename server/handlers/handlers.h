// The unary RPCs, one function each: it validates the request, calls storage, and
// converts the result. The API documents fields and errors (proto/modelstore/v1). All
// functions are thread-safe and run on threads of the storage pool, because they block on
// storage.
#pragma once

#include <atomic>
#include <memory>

#include "absl/status/statusor.h"
#include "google/protobuf/empty.pb.h"
#include "modelstore/v1/checkpoint_transfer.pb.h"
#include "modelstore/v1/model_store.pb.h"
#include "server/core/service_context.h"

namespace modelstore::server {

// models.cc
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

// checkpoints.cc
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

// aliases.cc
absl::StatusOr<v1::Alias> SetAlias(ServiceContext& context,
                                   const v1::SetAliasRequest& request);
absl::StatusOr<google::protobuf::Empty> DeleteAlias(
    ServiceContext& context, const v1::DeleteAliasRequest& request);
absl::StatusOr<v1::ListAliasesResponse> ListAliases(
    ServiceContext& context, const v1::ListAliasesRequest& request);
absl::StatusOr<v1::ListAliasMovesResponse> ListAliasMoves(
    ServiceContext& context, const v1::ListAliasMovesRequest& request);

// leases.cc
absl::StatusOr<v1::Lease> AcquireLease(ServiceContext& context,
                                       const v1::AcquireLeaseRequest& request);
absl::StatusOr<google::protobuf::Empty> ReleaseLease(
    ServiceContext& context, const v1::ReleaseLeaseRequest& request);
absl::StatusOr<v1::ListLeasesResponse> ListLeases(ServiceContext& context,
                                                  const v1::ListLeasesRequest& request);

// tensors.cc
absl::StatusOr<v1::ListTensorsResponse> ListTensors(
    ServiceContext& context, const v1::ListTensorsRequest& request);
absl::StatusOr<v1::Section> GetSection(ServiceContext& context,
                                       const v1::GetSectionRequest& request);

// attachments.cc
absl::StatusOr<v1::GetAttachmentResponse> GetAttachment(
    ServiceContext& context, const v1::GetAttachmentRequest& request);

// uploads.cc
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

// info.cc
absl::StatusOr<v1::ServerInfo> GetServerInfo(ServiceContext& context,
                                             const v1::GetServerInfoRequest& request);
absl::StatusOr<v1::Stats> GetStats(ServiceContext& context,
                                   const v1::GetStatsRequest& request);

}  // namespace modelstore::server
