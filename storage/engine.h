// An engine, as storage/rocksdb and storage/memory make them: the two interfaces, and the
// disk below.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>

#include "absl/status/statusor.h"
#include "storage/catalog.h"
#include "storage/chunk_store.h"

namespace modelstore::storage {

// Owned by the store. The functions are called from any thread.
struct Engine {
  std::unique_ptr<Catalog> catalog;
  std::unique_ptr<ChunkStore> chunks;
  // Returns the free bytes of the disk; unset means unbounded.
  std::function<absl::StatusOr<int64_t>()> free_bytes;
  // Free the ballast file, so that a deletion or reopening has room on a full disk, and
  // allocate it again. Either may be unset.
  std::function<void()> release_ballast;
  std::function<void()> restore_ballast;
};

}  // namespace modelstore::storage
