// Which stored chunks are known to be damaged or gone. Readers report each result here.
// A save does not share these chunks with its base but stores their bytes again, and
// Repair gives those copies to the older versions. One row a pack in the catalog keeps
// this across restarts.
#pragma once

#include <atomic>
#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/container/flat_hash_set.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "modelstore/storage/v1/records.pb.h"
#include "proto/contract/mutex.h"
#include "storage/chunk_store.h"
#include "storage/engine.h"
#include "storage/pack_places.h"
#include "storage/space.h"

namespace modelstore::storage {

// Thread-safe. Chunks and packs are named as versions name them, wherever they were
// copied since.
class DamagedChunks {
 public:
  // All outlive it.
  DamagedChunks(Engine* engine, PackPlaces* places, SpaceAdmission* space)
      : engine_(*engine), places_(*places), space_(*space) {}

  // Reads the rows; deletes those of packs that no version uses any more.
  absl::Status Load() EXCLUDES(mutex_);
  // Once the chunk store is open: finds the packs that the catalog names and that it
  // does not have.
  absl::Status FindLostPacks() EXCLUDES(mutex_);

  // Reports that a read found the chunk damaged or gone. If all tried chunks of its
  // pack are, the whole pack counts, and all packs in the same file. Callers must not
  // report I/O errors, which are no damage.
  void Mark(ChunkId chunk) EXCLUDES(mutex_);
  // Reports that the chunk was read and matches its digest. Cheap unless something is
  // damaged.
  void Clear(ChunkId chunk) EXCLUDES(mutex_);
  // Called after the batch that deletes the pack's record and row. Chunks that no save
  // may share stay known.
  void Forget(uint64_t pack) EXCLUDES(mutex_);

  bool any() const { return any_.load(std::memory_order_acquire); }
  bool Contains(ChunkId chunk) const EXCLUDES(mutex_);
  // Number of marked chunks, plus all chunks of packs marked as a whole.
  absl::StatusOr<int64_t> Count() const EXCLUDES(mutex_);
  // A copy of a damaged chunk, stored by a later save.
  struct Copy {
    ChunkId place;
    std::string digest;

    friend bool operator==(const Copy&, const Copy&) = default;
  };
  struct NewCopy {
    ChunkId damaged;
    Copy copy;
  };
  // Records copies for Repair, at most 4096 a pack.
  void AddCopies(const std::vector<NewCopy>& copies) EXCLUDES(mutex_);
  // The copies of chunks that count as damaged, by pack and sequence. From now on no
  // save shares these chunks, even if they are read well: Repair may remove them.
  std::map<uint64_t, std::map<uint32_t, Copy>> BeginRepair() EXCLUDES(mutex_);
  // Every version uses the copies by now. The chunks no longer count as damaged, but
  // saves still do not share them: an older index may name them.
  void Repaired(uint64_t pack, const std::map<uint32_t, Copy>& copies, bool pack_is_gone)
      EXCLUDES(mutex_);
  // These copies no longer exist.
  void DropCopies(uint64_t pack, const std::map<uint32_t, Copy>& copies) EXCLUDES(mutex_);

  // Writes the rows that have changed. Does nothing on a full disk, where a failed write
  // would close the catalog; a later call writes them.
  void Persist() EXCLUDES(mutex_);

 private:
  struct Pack {
    absl::flat_hash_set<uint32_t> sequences;
    std::map<uint32_t, Copy> copies;
    // `unshared`: Repair may have removed them from manifests; older indexes may name
    // them. `repaired`: those of them that no manifest names. Neither outlives the
    // process.
    absl::flat_hash_set<uint32_t> unshared, repaired;
    bool many = false;        // more than are listed
    bool unreadable = false;  // none of its chunks could be read
    bool lost = false;        // not in the chunk store; not part of the row

    bool whole() const { return many || unreadable || lost; }
    bool counts(uint32_t sequence) const {
      return whole() || sequences.contains(sequence);
    }
    bool written() const {
      return many || unreadable || !sequences.empty() || !copies.empty();
    }
    void ForgetAllButUnshared();
    bool known() const { return written() || lost || !unshared.empty(); }
  };

  // Counts as damaged, or no manifest names it any more.
  bool IsSettled(ChunkId chunk) const EXCLUDES(mutex_);
  // The packs that cannot be read along with `chunk`'s own; none if others of its
  // chunks can be.
  std::vector<uint64_t> UnreadableWith(ChunkId chunk);
  // Removes those of `copies` that the pack still has; returns their sequences.
  std::vector<uint32_t> TakeCopies(uint64_t pack, const std::map<uint32_t, Copy>& copies)
      REQUIRES(mutex_);
  std::string Row(const Pack& pack) const REQUIRES(mutex_);

  Engine& engine_;
  PackPlaces& places_;
  SpaceAdmission& space_;
  mutable Mutex mutex_;
  std::atomic<bool> any_{false};
  absl::flat_hash_map<uint64_t, Pack> packs_ GUARDED_BY(mutex_);
  // Packs whose rows must be written.
  absl::flat_hash_set<uint64_t> unwritten_ GUARDED_BY(mutex_);
  bool writing_ GUARDED_BY(mutex_) = false;
};

}  // namespace modelstore::storage
