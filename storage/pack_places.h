// Maps packs to where their chunks are stored now. Manifests, indexes and uploads always
// name a chunk by the pack that it was saved in. Copying forward moves its bytes and
// writes the new place to the catalog's PackRecord, which is authoritative; this is a
// cache of it.
#pragma once

#include <cstdint>

#include "absl/container/flat_hash_map.h"
#include "absl/functional/function_ref.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "modelstore/storage/v1/records.pb.h"
#include "proto/contract/mutex.h"
#include "storage/chunk_store.h"
#include "storage/engine.h"

namespace modelstore::storage {

// Visits every PackRecord. DATA_LOSS at a damaged one: the pack that it names is not
// known, so callers must not conclude that packs are unnamed.
absl::Status ScanPackRecords(
    Catalog& catalog,
    absl::FunctionRef<void(uint64_t pack, const v1::PackRecord& record)> visit);

// Thread-safe.
class PackPlaces {
 public:
  // `engine` outlives it.
  explicit PackPlaces(Engine* engine) : engine_(*engine) {}

  // Reads a chunk wherever it is stored, in a pack or in the catalog. NOT_FOUND if it is
  // gone. The caller checks the digest.
  absl::StatusOr<PinnedBytes> Read(ChunkId chunk) EXCLUDES(mutex_);

  // Called after the chunks of `pack` were moved: later reads use the new place.
  void Moved(uint64_t pack, const v1::PackPlace& place) EXCLUDES(mutex_);
  // Called after the pack's record was deleted.
  void Forget(uint64_t pack) EXCLUDES(mutex_);

 private:
  struct Place {
    uint64_t pack = 0;
    uint32_t shift = 0;
  };

  // The place of a chunk as far as it is known; LookUp() asks the catalog.
  ChunkId Locate(ChunkId chunk) EXCLUDES(mutex_);
  absl::Status LookUp(uint64_t pack) EXCLUDES(mutex_);

  Engine& engine_;
  Mutex mutex_;
  // Filled in when a pack is moved, and when a read does not find a chunk: after a
  // restart, or after a move whose outcome was unknown for a time. So a pack that never
  // moved costs no look-up.
  absl::flat_hash_map<uint64_t, Place> places_ GUARDED_BY(mutex_);
};

}  // namespace modelstore::storage
