// What an engine hands to the store: storage/rocksdb and storage/memory each make one.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>

#include "absl/status/statusor.h"
#include "storage/catalog.h"
#include "storage/chunk_store.h"

namespace modelstore::storage {

// The two interfaces of one engine, and the disk they share.
struct Engine {
  std::unique_ptr<Catalog> catalog;
  std::unique_ptr<ChunkStore> chunks;
  // Free bytes of the disk; unset means without bound.
  std::function<absl::StatusOr<int64_t>()> free_bytes;
  // Frees the ballast, so that a delete or reopen has room, and allocates it again
  // when there is room. Either may be unset.
  std::function<void()> release_ballast;
  std::function<void()> restore_ballast;
};

}  // namespace modelstore::storage
