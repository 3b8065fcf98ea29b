// Cache of manifests: one copy in memory, however many reads and saves share it.
#pragma once

#include <cstdint>
#include <deque>
#include <memory>
#include <optional>

#include "absl/container/flat_hash_map.h"
#include "absl/status/statusor.h"
#include "modelstore/storage/v1/records.pb.h"
#include "proto/contract/digest.h"
#include "proto/contract/mutex.h"
#include "storage/catalog.h"
#include "storage/chunk_store.h"

namespace modelstore::storage {

// A chunk that is already stored.
struct HeldChunk {
  ChunkId id;
  uint32_t size_bytes = 0;
  // Whether all bytes are 0 or 1; see HoldsOnlyBools(). Known for chunks of stored bool
  // tensors, and for chunks received since startup.
  enum class Bools : uint8_t { kUnknown, kOnly, kNotOnly };
  Bools bools = Bools::kUnknown;
};

// The chunks of a checkpoint by digest. Immutable.
class ChunkIndex {
 public:
  ChunkIndex(const v1::ManifestPage& manifest, DigestAlgorithm algorithm);

  std::optional<HeldChunk> Find(const Digest& digest) const {
    auto it = chunks_.find(digest);
    if (it == chunks_.end()) return std::nullopt;
    return it->second;
  }
  size_t size() const { return chunks_.size(); }

 private:
  absl::flat_hash_map<Digest, HeldChunk> chunks_;
};

// Size of chunk `index` of a piece of `piece_bytes` bytes: all chunks but the last have
// the same size.
inline int64_t ChunkBytes(int64_t piece_bytes, int64_t chunk_size_bytes, int64_t index) {
  return std::min(chunk_size_bytes, piece_bytes - index * chunk_size_bytes);
}
// Size in bytes of a piece of a tensor. Does not check for overflow: the commit did.
int64_t PieceBytes(const v1::TensorRecord& tensor, const v1::PieceRecord& piece);

// Thread-safe.
// The maps have weak pointers: a manifest stays in memory while a read or save uses it.
class ManifestCache {
 public:
  explicit ManifestCache(Catalog* catalog) : catalog_(catalog) {}

  // Returns the whole manifest. DATA_LOSS if a page is missing or damaged. By id alone,
  // missing pages at the end are not noticed.
  absl::StatusOr<std::shared_ptr<const v1::ManifestPage>> Load(
      const v1::CheckpointRecord& checkpoint) EXCLUDES(mutex_);
  absl::StatusOr<std::shared_ptr<const v1::ManifestPage>> Load(uint64_t manifest_id)
      EXCLUDES(mutex_);

  // Returns the index of the checkpoint's chunks, built from its manifest. Errors as
  // Load().
  absl::StatusOr<std::shared_ptr<const ChunkIndex>> LoadIndex(
      const v1::CheckpointRecord& checkpoint, DigestAlgorithm algorithm) EXCLUDES(mutex_);

  // Called after the manifest's places were changed: later calls read it again.
  void Forget(uint64_t manifest_id) EXCLUDES(mutex_);

 private:
  absl::StatusOr<std::shared_ptr<const v1::ManifestPage>> LoadPages(
      uint64_t manifest_id, std::optional<uint32_t> pages) EXCLUDES(mutex_);

  Catalog* const catalog_;
  Mutex mutex_;
  // Number of Forget() calls: a manifest read before one is not cached after it.
  uint64_t forgotten_ GUARDED_BY(mutex_) = 0;
  absl::flat_hash_map<uint64_t, std::weak_ptr<const v1::ManifestPage>> manifests_
      GUARDED_BY(mutex_);
  absl::flat_hash_map<uint64_t, std::weak_ptr<const ChunkIndex>> indexes_
      GUARDED_BY(mutex_);
  // The last few small indexes, kept in memory because the calls of one save use the same
  // base one after the other.
  std::deque<std::shared_ptr<const ChunkIndex>> recent_ GUARDED_BY(mutex_);
};

}  // namespace modelstore::storage
