// Maintenance: garbage collection, statistics, healing.
#pragma once

#include <cstdint>
#include <functional>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

namespace modelstore::storage {

struct GarbageResult {
  int64_t dropped_packs = 0;
  int64_t expired_uploads = 0;
  int64_t freed_bytes = 0;
  int64_t waiting_bytes = 0;
  int64_t reclaimable_bytes = 0;
};

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
  int64_t reopen_count = 0;
  // Chunks known to be damaged or gone, including those of lost packs.
  int64_t damaged_chunks = 0;
};

class Maintenance {
 public:
  virtual ~Maintenance() = default;
  // `progress(checked, total)` returns false to stop.
  virtual absl::StatusOr<GarbageResult> CollectGarbage(
      bool validate_only, const std::function<bool(int64_t, int64_t)>& progress) = 0;
  virtual absl::StatusOr<StoreStats> Stats() = 0;
  // Reopens an engine that a fault has closed, if one has. Called periodically
  // and after an undecided commit.
  virtual absl::Status ReopenIfClosed() = 0;
};

}  // namespace modelstore::storage
