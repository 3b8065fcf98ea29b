// Administration of a server: its version and limits, its usage, its unfinished saves,
// and garbage collection. The server also collects garbage periodically by itself.
//
//   auto stats = modelstore::GetStats(client);
//   if (stats.ok() && stats->disk_free_bytes < (int64_t{10} << 30)) {
//     auto collected = modelstore::CollectGarbage(client);
//     if (collected.ok()) std::cout << collected->freed_bytes << " bytes freed\n";
//   }
//
// Thread safety: free functions over a Client, from any thread.
// Errors: those listed at each call, and the general ones of client.h.
// Retries: every call here is safe to repeat and is repeated on UNAVAILABLE until
// ConnectOptions.retry_timeout.
#pragma once

#include <chrono>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "modelstore/client.h"
#include "modelstore/listing.h"
#include "modelstore/options.h"

namespace modelstore {

// What a server is and accepts, from modelstore.v1.ServerInfo.
struct ServerInfo {
  std::string version;  // of the server, such as `0.1.0`
  std::chrono::system_clock::time_point start_time;
  // The server was built with torch, which some edits need (modify.h).
  bool with_torch = false;
  // The server supports SHA-256 digests beside XXH3-128.
  bool with_sha256 = false;

  // Limits that the server enforces. The library respects them by itself.
  struct Limits {
    int64_t max_chunk_bytes = 0;
    // Of one message of any method.
    int64_t max_message_bytes = 0;
    // Over all sections.
    int64_t max_tensors_per_checkpoint = 0;
    int64_t max_sections_per_checkpoint = 0;
    int64_t max_attachments_per_checkpoint = 0;
    // Tensor table and values of one checkpoint, as stored. Without attachments.
    int64_t max_manifest_bytes = 0;
    // Nesting of a Value.
    int64_t max_value_depth = 0;
    // Digests in one FindMissingChunks call.
    int64_t max_digests_per_call = 0;
    // Concurrent streams of the whole server, watchers excluded.
    int64_t max_streams = 0;
    int64_t max_streams_per_connection = 0;
    // Concurrent ModelWatcher streams of the whole server.
    int64_t max_watchers = 0;
    // Open uploads of the whole server, and of one model. At either limit a new upload
    // replaces one that has been idle for upload_min_idle.
    int64_t max_open_uploads = 0;
    int64_t max_open_uploads_per_model = 0;
    std::chrono::milliseconds upload_min_idle{0};
    // Payload bytes of all streams that the server holds in memory at once. Streams
    // wait for their share.
    int64_t memory_budget_bytes = 0;
    // A save with fewer bytes to send uses one SaveCheckpoint stream.
    int64_t small_save_bytes = 0;
  };
  Limits limits;
};

absl::StatusOr<ServerInfo> GetServerInfo(const Client& client,
                                         const CallOptions& options = {});

// Usage at one moment. Each figure is exact, but they are not read at the same instant.
struct StoreStats {
  int64_t model_count = 0;
  int64_t checkpoint_count = 0;
  int64_t open_upload_count = 0;
  // Packs are the files that hold chunks.
  int64_t pack_count = 0;
  int64_t pack_bytes = 0;
  // Unreferenced chunks in packs that also hold referenced ones.
  int64_t reclaimable_bytes = 0;
  // Bytes whose deletion waits for the grace time or for a running load.
  int64_t waiting_bytes = 0;
  int64_t disk_free_bytes = 0;
  // Disk space reserved for running saves.
  int64_t reserved_bytes = 0;
  int64_t active_save_streams = 0;
  int64_t active_load_streams = 0;
  // Payload bytes in the server's memory now, and their maximum.
  int64_t buffered_bytes = 0;
  int64_t memory_budget_bytes = 0;
  // How often the storage was closed after a fault and reopened, since startup.
  int64_t storage_reopen_count = 0;
  // Bytes that the background scrub has read and checked since startup.
  int64_t scrubbed_bytes = 0;
  // When the last full scrub ended; absent before the first one.
  std::optional<std::chrono::system_clock::time_point> last_scrub_time;
  // Damaged tensors found by the current scrub, or by the last one if none runs.
  int64_t scrub_damaged_tensors = 0;
  // Stored chunks known to be damaged or lost. Saves do not share them.
  int64_t damaged_chunks = 0;
};

absl::StatusOr<StoreStats> GetStats(const Client& client,
                                    const CallOptions& options = {});

// An unfinished save.
struct UploadInfo {
  std::string name;  // `models/{model}/uploads/{upload}`
  std::string request_id;
  std::string base_checkpoint;     // empty: shares no chunks
  int64_t contribution_count = 0;  // number of workers that save it together
  int64_t received_bytes = 0;
  int64_t sealed_bytes = 0;  // of received_bytes: survives a restart of the server
  std::chrono::system_clock::time_point create_time;
  // Deleted at this time. Every call that names the upload extends it.
  std::chrono::system_clock::time_point expire_time;
};

// Open uploads of `parent`, `models/{model}`; `models/-` means all models.
Listing<UploadInfo> ListUploads(const Client& client, std::string_view parent,
                                const CallOptions& options = {});

// Deletes an unfinished save and reclaims the bytes that it has sent. Does not stop its
// sender: a save of this library starts over, at most twice. For a committed upload only
// the entry is deleted, not the version. NOT_FOUND if there is no such upload; OK if a
// retry of this call finds it already deleted.
absl::Status DeleteUpload(const Client& client, std::string_view name,
                          const CallOptions& options = {});

struct CollectOptions {
  // Reports what would be removed without removing it.
  bool validate_only = false;
  std::optional<Deadline> deadline = {};
};

struct CollectResult {
  int64_t dropped_packs = 0;      // packs without any referenced chunk
  int64_t expired_uploads = 0;    // uploads whose time to live had passed
  int64_t freed_bytes = 0;        // disk space freed
  int64_t waiting_bytes = 0;      // unreferenced; wait for the grace time or a load
  int64_t reclaimable_bytes = 0;  // unreferenced, in packs with referenced chunks
};

// Reclaims the space of chunks that no version or open upload references. If the
// deadline passes, the collection stops; what it has freed stays freed. After a broken
// connection the result counts the last attempt only.
absl::StatusOr<CollectResult> CollectGarbage(const Client& client,
                                             const CollectOptions& options = {});

}  // namespace modelstore
