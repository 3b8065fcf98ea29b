// Ends a version's use of a pack.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/string_view.h"
#include "storage/core.h"

namespace modelstore::storage {

// Packs that no version uses any more, to be dropped after the batch is durable.
struct UnusedPacks {
  // Packs of the chunk store that held their own chunks.
  std::vector<uint64_t> packs;
  // Packs to which chunks of them were copied. They may also hold chunks of other packs,
  // so their other uses must be checked.
  std::vector<uint64_t> shared;
  // Bytes of the inline chunks that the batch deletes.
  int64_t inline_bytes = 0;
  // Ids of all released packs, as manifests name them. Their records are deleted.
  std::vector<uint64_t> gone;

  void Add(const UnusedPacks& other);
};

// Adds to `batch` the deletion of a version's use of `pack` and, if no other version uses
// it, of the pack's records and inline chunks. Only the collecting thread calls it.
// DATA_LOSS if the pack's record is damaged, as it is then unknown where the chunks are.
absl::Status ReleasePack(StoreCore& core, uint64_t pack, absl::string_view uid,
                         int64_t version, CatalogBatch& batch, UnusedPacks& unused);

}  // namespace modelstore::storage
