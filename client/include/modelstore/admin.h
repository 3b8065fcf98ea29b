// What an administrator asks a server: what it is, how full it is, which saves are
// unfinished; and the collection of garbage, which otherwise runs by itself.
//
//   auto stats = modelstore::GetStats(client);
//   if (stats.ok() && stats->disk_free_bytes < (int64_t{10} << 30)) {
//     auto collected = modelstore::CollectGarbage(client);
//     if (collected.ok()) std::cout << collected->freed_bytes << " bytes freed\n";
//   }
//
// Thread safety: free functions over a Client, from any thread.
// Errors: what each call names, and those that client.h tells.
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

// modelstore.v1.ServerInfo tells each field.
struct ServerInfo {
  std::string version;  // such as `0.1.0`
  std::chrono::system_clock::time_point start_time;
  bool with_torch = false;  // edits that need torch can be done
  // SHA-256 as well as XXH3-128.
  bool with_sha256 = false;

  struct Limits {
    int64_t max_chunk_bytes = 0;
    int64_t max_message_bytes = 0;
    int64_t max_tensors_per_checkpoint = 0;
    int64_t max_sections_per_checkpoint = 0;
    int64_t max_attachments_per_checkpoint = 0;
    int64_t max_manifest_bytes = 0;
    int64_t max_value_depth = 0;
    int64_t max_digests_per_call = 0;
    int64_t max_streams = 0;
    int64_t max_streams_per_connection = 0;
    int64_t max_watchers = 0;
    int64_t max_open_uploads = 0;
    int64_t max_open_uploads_per_model = 0;
    std::chrono::milliseconds upload_min_idle{0};
    int64_t memory_budget_bytes = 0;
    int64_t small_save_bytes = 0;
  };
  Limits limits;
};

absl::StatusOr<ServerInfo> GetServerInfo(const Client& client,
                                         const CallOptions& options = {});

// A moment's figures: each is consistent, they are not with one another.
// modelstore.v1.Stats tells each field.
struct StoreStats {
  int64_t model_count = 0;
  int64_t checkpoint_count = 0;
  int64_t open_upload_count = 0;
  int64_t pack_count = 0;
  int64_t pack_bytes = 0;
  int64_t reclaimable_bytes = 0;
  int64_t waiting_bytes = 0;
  int64_t disk_free_bytes = 0;
  int64_t reserved_bytes = 0;
  int64_t active_save_streams = 0;
  int64_t active_load_streams = 0;
  int64_t buffered_bytes = 0;
  int64_t memory_budget_bytes = 0;
  int64_t storage_reopen_count = 0;
  int64_t scrubbed_bytes = 0;
  // When the last pass of the scrub ended; absent before the first.
  std::optional<std::chrono::system_clock::time_point> last_scrub_time;
  int64_t scrub_damaged_tensors = 0;
  int64_t damaged_chunks = 0;
};

absl::StatusOr<StoreStats> GetStats(const Client& client,
                                    const CallOptions& options = {});

// An unfinished save.
struct UploadInfo {
  std::string name;  // `models/{model}/uploads/{upload}`
  std::string request_id;
  std::string base_checkpoint;  // empty: it shares nothing
  int64_t contribution_count = 0;
  int64_t received_bytes = 0;
  int64_t sealed_bytes = 0;  // of these, what a restart of the server keeps
  std::chrono::system_clock::time_point create_time;
  // It is deleted then, unless a call names it before.
  std::chrono::system_clock::time_point expire_time;
};

// Open uploads of `parent`, `models/{model}`; `models/-` means all models.
Listing<UploadInfo> ListUploads(const Client& client, std::string_view parent,
                                const CallOptions& options = {});

// Reclaims what an unfinished save has sent. A sender that still runs is not stopped:
// this library's begins anew, at most twice. Of a committed upload only its entry goes.
// NOT_FOUND if there is no such upload; OK where a repeated attempt finds it gone.
absl::Status DeleteUpload(const Client& client, std::string_view name,
                          const CallOptions& options = {});

struct CollectOptions {
  // Tells what would go and removes nothing.
  bool validate_only = false;
  std::optional<Deadline> deadline = {};
};

struct CollectResult {
  int64_t dropped_packs = 0;      // in which nothing was alive
  int64_t expired_uploads = 0;    // that nobody had named for their time to live
  int64_t freed_bytes = 0;        // gone from the disk
  int64_t waiting_bytes = 0;      // dead, waiting for the grace time or a running load
  int64_t reclaimable_bytes = 0;  // dead, in packs that also hold living chunks
};

// Reclaims the space of what nothing names any more. A deadline that passes stops it and
// harms nothing. After a cut connection the figures are those of the last attempt.
absl::StatusOr<CollectResult> CollectGarbage(const Client& client,
                                             const CollectOptions& options = {});

}  // namespace modelstore
