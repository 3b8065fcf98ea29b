#include "modelstore/admin.h"

#include "client/internal/convert.h"
#include "client/internal/operation.h"
#include "google/protobuf/empty.pb.h"
#include "modelstore/v1/checkpoint_transfer.pb.h"
#include "modelstore/v1/model_store.pb.h"

namespace modelstore {
namespace {

using internal::CallDeadline;
using internal::CallStore;
using internal::ToTime;

ServerInfo::Limits ToLimits(const v1::ServerInfo::Limits& from) {
  ServerInfo::Limits limits;
  limits.max_chunk_bytes = from.max_chunk_bytes();
  limits.max_message_bytes = from.max_message_bytes();
  limits.max_tensors_per_checkpoint = from.max_tensors_per_checkpoint();
  limits.max_sections_per_checkpoint = from.max_sections_per_checkpoint();
  limits.max_attachments_per_checkpoint = from.max_attachments_per_checkpoint();
  limits.max_manifest_bytes = from.max_manifest_bytes();
  limits.max_value_depth = from.max_value_depth();
  limits.max_digests_per_call = from.max_digests_per_call();
  limits.max_streams = from.max_streams();
  limits.max_streams_per_connection = from.max_streams_per_connection();
  limits.max_watchers = from.max_watchers();
  limits.max_open_uploads = from.max_open_uploads();
  limits.max_open_uploads_per_model = from.max_open_uploads_per_model();
  limits.upload_min_idle =
      std::chrono::milliseconds(from.upload_min_idle().seconds() * 1000 +
                                from.upload_min_idle().nanos() / 1'000'000);
  limits.memory_budget_bytes = from.memory_budget_bytes();
  limits.small_save_bytes = from.small_save_bytes();
  return limits;
}

StoreStats ToStats(const v1::Stats& from) {
  StoreStats stats;
  stats.model_count = from.model_count();
  stats.checkpoint_count = from.checkpoint_count();
  stats.open_upload_count = from.open_upload_count();
  stats.pack_count = from.pack_count();
  stats.pack_bytes = from.pack_bytes();
  stats.reclaimable_bytes = from.reclaimable_bytes();
  stats.waiting_bytes = from.waiting_bytes();
  stats.disk_free_bytes = from.disk_free_bytes();
  stats.reserved_bytes = from.reserved_bytes();
  stats.active_save_streams = from.active_save_streams();
  stats.active_load_streams = from.active_load_streams();
  stats.buffered_bytes = from.buffered_bytes();
  stats.memory_budget_bytes = from.memory_budget_bytes();
  stats.storage_reopen_count = from.storage_reopen_count();
  stats.scrubbed_bytes = from.scrubbed_bytes();
  if (from.has_last_scrub_time()) stats.last_scrub_time = ToTime(from.last_scrub_time());
  stats.scrub_damaged_tensors = from.scrub_damaged_tensors();
  stats.damaged_chunks = from.damaged_chunks();
  return stats;
}

UploadInfo ToUploadInfo(const v1::Upload& from) {
  UploadInfo upload;
  upload.name = from.name();
  upload.request_id = from.request_id();
  upload.base_checkpoint = from.checkpoint().base_checkpoint();
  upload.contribution_count = from.contribution_count();
  upload.received_bytes = from.received_bytes();
  upload.sealed_bytes = from.sealed_bytes();
  upload.create_time = ToTime(from.create_time());
  upload.expire_time = ToTime(from.expire_time());
  return upload;
}

CollectResult ToCollectResult(const v1::CollectGarbageResponse::Result& from) {
  return {from.dropped_packs(), from.expired_uploads(), from.freed_bytes(),
          from.waiting_bytes(), from.reclaimable_bytes()};
}

}  // namespace

absl::StatusOr<ServerInfo> GetServerInfo(const Client& client,
                                         const CallOptions& options) {
  const auto answer =
      CallStore<v1::ServerInfo>(client, "GetServerInfo", v1::GetServerInfoRequest(),
                                CallDeadline(client, options.deadline));
  if (!answer.ok()) return answer.status();
  ServerInfo info;
  info.version = answer->version();
  info.start_time = ToTime(answer->start_time());
  info.with_torch = answer->with_torch();
  for (const int algorithm : answer->digest_algorithms()) {
    info.with_sha256 |= algorithm == v1::DIGEST_ALGORITHM_SHA256;
  }
  info.limits = ToLimits(answer->limits());
  return info;
}

absl::StatusOr<StoreStats> GetStats(const Client& client, const CallOptions& options) {
  const auto answer = CallStore<v1::Stats>(client, "GetStats", v1::GetStatsRequest(),
                                           CallDeadline(client, options.deadline));
  if (!answer.ok()) return answer.status();
  return ToStats(*answer);
}

Listing<UploadInfo> ListUploads(const Client& client, std::string_view parent,
                                const CallOptions& options) {
  const Deadline deadline = CallDeadline(client, options.deadline);
  v1::ListUploadsRequest request;
  request.set_parent(std::string(parent));
  request.set_page_size(1000);
  std::vector<UploadInfo> uploads;
  while (true) {
    const auto page =
        CallStore<v1::ListUploadsResponse>(client, "ListUploads", request, deadline);
    if (!page.ok()) return page.status();
    for (const v1::Upload& upload : page->uploads()) {
      uploads.push_back(ToUploadInfo(upload));
    }
    if (page->next_page_token().empty()) return uploads;
    request.set_page_token(page->next_page_token());
  }
}

absl::Status DeleteUpload(const Client& client, std::string_view name,
                          const CallOptions& options) {
  v1::DeleteUploadRequest request;
  request.set_name(std::string(name));
  // Upload ids are never reused, so a retry cannot delete another upload.
  return internal::CallDelete<google::protobuf::Empty>(
      client, "DeleteUpload", request, CallDeadline(client, options.deadline),
      internal::kTransfer);
}

absl::StatusOr<CollectResult> CollectGarbage(const Client& client,
                                             const CollectOptions& options) {
  v1::CollectGarbageRequest request;
  request.set_validate_only(options.validate_only);
  auto connection = client.connection();
  if (!connection.ok()) return connection.status();
  return internal::RunOperation<v1::CollectGarbageResponse, CollectResult>(
      **connection, "CollectGarbage", request,
      internal::TransferDeadline(options.deadline),
      [](const v1::CollectGarbageResponse& response, CollectResult& result) {
        if (response.has_result()) result = ToCollectResult(response.result());
      });
}

}  // namespace modelstore
