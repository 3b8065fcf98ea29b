// Ends a version's use of a pack.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/string_view.h"
#include "storage/core.h"

namespace modelstore::storage {

// Packs that no version uses any more.
struct UnusedPacks {
  std::vector<uint64_t> packs;
  // Packs that held chunks of it, and may hold those of others.
  std::vector<uint64_t> shared;
  int64_t inline_bytes = 0;
  // Ids of all released packs, as manifests name them. Their records are deleted.
  std::vector<uint64_t> gone;

  void Add(const UnusedPacks& other);
};

// Adds to `batch` the deletion of a version's use of `pack` and, if no other version
// uses it, of the pack's records and inline chunks. Only the collecting thread calls it.
absl::Status ReleasePack(StoreCore& core, uint64_t pack, absl::string_view uid,
                         int64_t version, CatalogBatch& batch, UnusedPacks& unused);

}  // namespace modelstore::storage
