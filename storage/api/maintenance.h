// Maintenance: garbage collection, statistics, healing.
#pragma once

#include <cstdint>
#include <functional>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

namespace modelstore::storage {

// What a collection did, or, if only validated, would do.
struct GarbageResult {
  // Packs without living chunks.
  int64_t dropped_packs = 0;
  int64_t expired_uploads = 0;
  // Bytes gone from the disk; dead bytes that wait for readers or the grace time; and
  // dead bytes inside packs that also have living chunks.
  int64_t freed_bytes = 0;
  int64_t waiting_bytes = 0;
  int64_t reclaimable_bytes = 0;
};

// Figures of the store at one moment. Each is consistent by itself; together they may
// differ by changes in progress.
struct StoreStats {
  int64_t model_count = 0;
  int64_t checkpoint_count = 0;
  int64_t open_upload_count = 0;
  int64_t pack_count = 0;
  // Bytes of all packs on the disk.
  int64_t pack_bytes = 0;
  // As of the last collection; see GarbageResult.
  int64_t reclaimable_bytes = 0;
  int64_t waiting_bytes = 0;
  int64_t disk_free_bytes = 0;
  // Bytes granted to running saves and not written yet.
  int64_t reserved_bytes = 0;
  // How often storage was reopened after a fault, since startup.
  int64_t reopen_count = 0;
  // Chunks known to be damaged or gone, including those of lost packs.
  int64_t damaged_chunks = 0;
};

// Garbage collection, statistics and healing. Thread-safe.
class Maintenance {
 public:
  virtual ~Maintenance() = default;
  // Runs one collection; see storage/garbage/collector.h. With `validate_only` changes
  // nothing. `progress`, which may be unset, is called with the packs checked and the
  // packs in all; if it returns false: CANCELLED. UNAVAILABLE if another collection is
  // running and does not end within minutes.
  virtual absl::StatusOr<GarbageResult> CollectGarbage(
      bool validate_only, const std::function<bool(int64_t, int64_t)>& progress) = 0;
  // Reads every model record.
  virtual absl::StatusOr<StoreStats> Stats() = 0;
  // Reopens the engine if a fault has closed it, and writes what earlier failures kept
  // from being written. To be called every few seconds.
  virtual absl::Status ReopenIfClosed() = 0;
};

}  // namespace modelstore::storage
