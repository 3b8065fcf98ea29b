// Measures how much of the packs is dead. There are no stored reference counts per chunk:
// the catalog records which version uses which pack, and with how many bytes, and the
// manifests which chunks. Manifests are read only for packs where the catalog's figures
// do not suffice.
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
  // Bytes that only deleted versions use. Still readable until these are finalized.
  int64_t waiting_bytes = 0;
  // Bytes that no version uses, in packs that also have living chunks.
  int64_t reclaimable_bytes = 0;
};

// Bytes on the disk, by pack. Has no inline packs.
using PackSizes = absl::flat_hash_map<uint64_t, int64_t>;
absl::StatusOr<PackSizes> ReadPackSizes(StoreCore& core);

// State of one pack of the chunk store, or of an inline pack.
struct PackState {
  // Bytes of all its chunks, without the engine's overhead.
  int64_t chunk_bytes = 0;
  int64_t waiting_bytes = 0;
  int64_t reclaimable_bytes = 0;
  // The packs whose chunks are stored here, as manifests name them: itself, or those that
  // were copied here.
  std::vector<uint64_t> logical_packs;
  // Number of their sequences; some have no chunk any more.
  uint64_t chunk_count = 0;
};

// Totals, and the state of each pack by the id of its host.
struct Liveness {
  DeadBytes bytes;
  absl::flat_hash_map<uint64_t, PackState> packs;
};

// Which deleted versions to count; absent: all.
using DeadFilter = std::function<bool(const std::string& model_uid, int64_t version)>;

// Measures these packs, as versions name them, or all if absent. A pack that only deleted
// versions use counts as waiting with its whole size on disk. Takes no lock: a concurrent
// change may be counted or not. Reads every PackRecord and use, and the manifests of
// versions that share a pack.
absl::StatusOr<Liveness> MeasureLiveness(
    StoreCore& core, const PackSizes& sizes,
    const std::optional<std::vector<uint64_t>>& packs, const DeadFilter& filter);

}  // namespace modelstore::storage
