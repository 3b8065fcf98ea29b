#include "proto/contract/limits.h"
#include "server/handlers/handlers.h"
#include "server/modify/random_source.h"

namespace modelstore::server {
namespace {

void SetMicros(int64_t micros, google::protobuf::Timestamp* time) {
  time->set_seconds(micros / 1'000'000);
  time->set_nanos(static_cast<int32_t>(micros % 1'000'000) * 1000);
}

}  // namespace

absl::StatusOr<v1::ServerInfo> GetServerInfo(ServiceContext& context,
                                             const v1::GetServerInfoRequest& request) {
  v1::ServerInfo info;
  info.set_version(MODELSTORE_VERSION);
  info.set_with_torch(modify::WithTorch());
  v1::ServerInfo::Limits* limits = info.mutable_limits();
  limits->set_max_chunk_bytes(kMaxChunkBytes);
  limits->set_max_message_bytes(kMaxMessageBytes);
  limits->set_max_tensors_per_checkpoint(kMaxTensors);
  limits->set_max_manifest_bytes(kMaxManifestBytes);
  limits->set_max_sections_per_checkpoint(kMaxSections);
  limits->set_max_attachments_per_checkpoint(kMaxAttachments);
  limits->set_max_value_depth(kMaxValueDepth);
  limits->set_max_digests_per_call(kMaxDigestsPerCall);
  limits->set_max_open_uploads(context.options.max_open_uploads);
  limits->set_max_open_uploads_per_model(context.options.max_open_uploads_per_model);
  const int64_t idle_ms = absl::ToInt64Milliseconds(context.options.upload_min_idle);
  limits->mutable_upload_min_idle()->set_seconds(idle_ms / 1000);
  limits->mutable_upload_min_idle()->set_nanos(
      static_cast<int32_t>(idle_ms % 1000 * 1'000'000));
  limits->set_max_streams(context.options.max_streams);
  limits->set_max_watchers(context.options.max_watchers);
  limits->set_max_streams_per_connection(context.options.max_streams_per_connection);
  limits->set_memory_budget_bytes(context.options.memory_budget_bytes);
  limits->set_small_save_bytes(kSmallSaveBytes);
  info.add_digest_algorithms(v1::DIGEST_ALGORITHM_XXH3_128);
  SetMicros(absl::ToUnixMicros(context.start_time), info.mutable_start_time());
  return info;
}

absl::StatusOr<v1::Stats> GetStats(ServiceContext& context,
                                   const v1::GetStatsRequest& request) {
  auto stored = context.store->maintenance().Stats();
  if (!stored.ok()) return stored.status();
  v1::Stats stats;
  stats.set_model_count(stored->model_count);
  stats.set_checkpoint_count(stored->checkpoint_count);
  stats.set_open_upload_count(stored->open_upload_count);
  stats.set_pack_count(stored->pack_count);
  stats.set_pack_bytes(stored->pack_bytes);
  stats.set_reclaimable_bytes(stored->reclaimable_bytes);
  stats.set_waiting_bytes(stored->waiting_bytes);
  stats.set_disk_free_bytes(stored->disk_free_bytes);
  stats.set_reserved_bytes(stored->reserved_bytes);
  stats.set_storage_reopen_count(stored->reopen_count);
  stats.set_damaged_chunks(stored->damaged_chunks);
  stats.set_memory_budget_bytes(context.options.memory_budget_bytes);
  if (const Gauges* gauges = context.options.gauges.get(); gauges != nullptr) {
    stats.set_active_save_streams(gauges->active_save_streams.load());
    stats.set_active_load_streams(gauges->active_load_streams.load());
    stats.set_buffered_bytes(gauges->buffered_bytes.load());
    stats.set_scrubbed_bytes(gauges->scrubbed_bytes.load());
    stats.set_scrub_damaged_tensors(gauges->scrub_damaged_tensors.load());
    if (const int64_t micros = gauges->last_scrub_time_us.load(); micros != 0) {
      SetMicros(micros, stats.mutable_last_scrub_time());
    }
  }
  return stats;
}

}  // namespace modelstore::server
