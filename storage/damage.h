// Table of the stored chunks that are known to be damaged or gone. Readers report the
// result of each read here. A save does not share these chunks with its base but stores
// their bytes again, and Repair gives these copies to the older versions. The catalog has
// one row for each pack with damage, so that the table survives restarts.
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

// Thread-safe. Chunks and packs are named as manifests name them, wherever they have been
// copied since.
class DamagedChunks {
 public:
  // All arguments must outlive it.
  DamagedChunks(Engine* engine, PackPlaces* places, SpaceAdmission* space)
      : engine_(*engine), places_(*places), space_(*space) {}

  // Loads the rows at startup and deletes those of packs that no version uses any more.
  absl::Status Load() EXCLUDES(mutex_);
  // Finds the packs that the catalog names and that the chunk store does not have. To be
  // called each time after the chunk store was opened.
  absl::Status FindLostPacks() EXCLUDES(mutex_);

  // Reports that a read found the chunk damaged or gone. If a sample of its pack's chunks
  // is unreadable too, the whole pack counts as damaged, and so do all packs in the same
  // file. Callers must not report I/O errors, which are not damage. May read chunks and
  // write to the catalog.
  void Mark(ChunkId chunk) EXCLUDES(mutex_);
  // Reports that the chunk was read and matches its digest. Costs one atomic load while
  // nothing is damaged.
  void Clear(ChunkId chunk) EXCLUDES(mutex_);
  // Called after the batch that deletes the pack's record and row. Chunks that Repair has
  // excluded from sharing stay excluded.
  void Forget(uint64_t pack) EXCLUDES(mutex_);

  // True if anything is known to be damaged: lets callers skip the lock.
  bool any() const { return any_.load(std::memory_order_acquire); }
  // True if a save must not share the chunk.
  bool Contains(ChunkId chunk) const EXCLUDES(mutex_);
  // Number of marked chunks, plus all chunks of packs marked as a whole.
  absl::StatusOr<int64_t> Count() const EXCLUDES(mutex_);
  // A copy of a damaged chunk that a later save stored.
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
  // Returns the copies of chunks that count as damaged, by pack and sequence. From now on
  // no save shares these chunks, even if a later read finds them intact, because Repair
  // may remove them from manifests.
  std::map<uint64_t, std::map<uint32_t, Copy>> BeginRepair() EXCLUDES(mutex_);
  // Called once every version uses the copies. The chunks no longer count as damaged, but
  // saves still do not share them, because an older index may name them.
  void Repaired(uint64_t pack, const std::map<uint32_t, Copy>& copies, bool pack_is_gone)
      EXCLUDES(mutex_);
  // Forgets copies that no longer exist.
  void DropCopies(uint64_t pack, const std::map<uint32_t, Copy>& copies) EXCLUDES(mutex_);

  // Writes the rows that have changed. Does nothing on a full disk, because a failed
  // write would close the catalog; a later call writes them.
  void Persist() EXCLUDES(mutex_);

 private:
  struct Pack {
    // Sequences of damaged chunks, and copies of them by sequence.
    absl::flat_hash_set<uint32_t> sequences;
    std::map<uint32_t, Copy> copies;
    // `unshared`: chunks that Repair may have removed from manifests, while older indexes
    // may still name them. `repaired`: those of them that no manifest names any more.
    // Neither is stored.
    absl::flat_hash_set<uint32_t> unshared, repaired;
    bool many = false;        // more than are listed
    bool unreadable = false;  // none of its chunks could be read
    bool lost = false;        // not in the chunk store; not part of the row

    // Whether all chunks of the pack count as damaged; whether this one does; whether
    // there is a row to store; whether there is anything to remember.
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

  // True if a report about the chunk adds nothing: it already counts as damaged, or no
  // manifest names it any more.
  bool IsSettled(ChunkId chunk) const EXCLUDES(mutex_);
  // Returns the packs in the same file as `chunk` if that file seems to be unreadable as
  // a whole; none if other chunks of it can be read. Reads a few chunks.
  std::vector<uint64_t> UnreadableWith(ChunkId chunk);
  // Removes those of `copies` that the pack still has, unchanged, and returns their
  // sequences.
  std::vector<uint32_t> TakeCopies(uint64_t pack, const std::map<uint32_t, Copy>& copies)
      REQUIRES(mutex_);
  std::string Row(const Pack& pack) const REQUIRES(mutex_);

  Engine& engine_;
  PackPlaces& places_;
  SpaceAdmission& space_;
  // Never held during a read or write of the disk.
  mutable Mutex mutex_;
  // Whether `packs_` has entries. Written with the lock held.
  std::atomic<bool> any_{false};
  absl::flat_hash_map<uint64_t, Pack> packs_ GUARDED_BY(mutex_);
  // Packs whose rows must be written.
  absl::flat_hash_set<uint64_t> unwritten_ GUARDED_BY(mutex_);
  // True while a thread is in Persist(): it also writes the rows that others change.
  bool writing_ GUARDED_BY(mutex_) = false;
};

}  // namespace modelstore::storage
