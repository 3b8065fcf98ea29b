// Maps packs to where their chunks lie now. Manifests, indexes and uploads always name
// a chunk by the pack that it was saved in; copying forward moves its bytes and writes
// the new place into the catalog's PackRecord, which is authoritative.
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

// Every PackRecord. DATA_LOSS for one that is damaged: what it names is not known.
absl::Status ScanPackRecords(
    Catalog& catalog,
    absl::FunctionRef<void(uint64_t pack, const v1::PackRecord& record)> visit);

// Thread-safe.
class PackPlaces {
 public:
  // `engine` outlives it.
  explicit PackPlaces(Engine* engine) : engine_(*engine) {}

  // Reads a chunk wherever it lies, in a pack or in the catalog. NOT_FOUND if it
  // is gone. The caller checks the digest.
  absl::StatusOr<PinnedBytes> Read(ChunkId chunk) EXCLUDES(mutex_);

  // Called after the chunks of `pack` were moved: later reads use the new place.
  void Moved(uint64_t pack, const v1::PackPlace& place) EXCLUDES(mutex_);
  // Called after its record was deleted.
  void Forget(uint64_t pack) EXCLUDES(mutex_);

 private:
  struct Place {
    uint64_t pack = 0;
    uint32_t shift = 0;
  };

  ChunkId Locate(ChunkId chunk) EXCLUDES(mutex_);
  absl::Status LookUp(uint64_t pack) EXCLUDES(mutex_);

  Engine& engine_;
  Mutex mutex_;
  // Learnt when a pack is moved, or when it is looked for in vain: after a restart,
  // or where the move's own outcome was not known for a time.
  absl::flat_hash_map<uint64_t, Place> places_ GUARDED_BY(mutex_);
};

}  // namespace modelstore::storage
