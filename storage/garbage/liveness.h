// Measures how much of the packs is dead. The disk holds no counts per chunk: the
// catalog tells which version uses which pack, and the manifests which chunks.
#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/status/statusor.h"
#include "storage/core.h"

namespace modelstore::storage {

struct DeadBytes {
  // Used by deleted versions alone, and still readable for them.
  int64_t waiting_bytes = 0;
  // Used by nobody, in packs with living chunks.
  int64_t reclaimable_bytes = 0;
};

// Bytes on the disk by pack. Inline packs are not in it.
using PackSizes = absl::flat_hash_map<uint64_t, int64_t>;
absl::StatusOr<PackSizes> ReadPackSizes(StoreCore& core);

// What lies in one pack of the chunk store, or in an inline one.
struct PackState {
  // Of all its chunks, without the engine's own overhead.
  int64_t chunk_bytes = 0;
  int64_t waiting_bytes = 0;
  int64_t reclaimable_bytes = 0;
  // The packs whose chunks lie here: itself, or those that were copied here.
  std::vector<uint64_t> logical_packs;
  // Of their sequences; not all of them have a chunk.
  uint64_t chunk_count = 0;
};

struct Liveness {
  DeadBytes bytes;
  absl::flat_hash_map<uint64_t, PackState> packs;
};

// Which deleted versions to count; absent: all.
using DeadFilter = std::function<bool(const std::string& model_uid, int64_t version)>;

// Over these packs, as versions name them, or over all if absent. A pack that only
// deleted versions use waits with its whole size. Runs beside writers: what changes
// meanwhile counts as before or as after.
absl::StatusOr<Liveness> MeasureLiveness(
    StoreCore& core, const PackSizes& sizes,
    const std::optional<std::vector<uint64_t>>& packs, const DeadFilter& filter);

}  // namespace modelstore::storage
