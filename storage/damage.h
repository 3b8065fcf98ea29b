// Which stored chunks are known to be damaged or gone. Readers report each result here.
// A save shares none of these chunks with its base and stores their bytes anew instead,
// and Repair gives those to the older versions. One row a pack in the catalog, so that
// a restart forgets nothing.
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
#include "storage/checkpoint_store.h"
#include "storage/chunk_store.h"
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

  // A read found the chunk damaged or gone. If that is so of every chunk of its pack
  // that is tried, the whole pack counts, and each other that lies in the same file.
  // An error of the disk is no damage: not to be reported here.
  void Mark(ChunkId chunk) EXCLUDES(mutex_);
  // The chunk was read and matches its digest. Cheap unless something is damaged.
  void Clear(ChunkId chunk) EXCLUDES(mutex_);
  // The pack's record was deleted, and its row in the same batch. What no save shares
  // any more stays known.
  void Forget(uint64_t pack) EXCLUDES(mutex_);

  bool any() const { return any_.load(std::memory_order_acquire); }
  bool Contains(ChunkId chunk) const EXCLUDES(mutex_);
  // Chunks that are marked, and all of the packs that are marked as a whole.
  absl::StatusOr<int64_t> Count() const EXCLUDES(mutex_);
  // A whole copy of a chunk that is damaged, as a later save stored it.
  struct Copy {
    ChunkId place;
    std::string digest;

    friend bool operator==(const Copy&, const Copy&) = default;
  };
  struct NewCopy {
    ChunkId damaged;
    Copy copy;
  };
  // Notes copies for Repair, at most 4096 a pack.
  void AddCopies(const std::vector<NewCopy>& copies) EXCLUDES(mutex_);
  // The copies of chunks that count as damaged, by pack and sequence. From now on no
  // save shares these chunks, whatever is read of them: Repair may take them away.
  std::map<uint64_t, std::map<uint32_t, Copy>> BeginRepair() EXCLUDES(mutex_);
  // Every version uses the copies by now. The chunks no longer count as damaged, but
  // saves still do not share them: an older index may name them.
  void Repaired(uint64_t pack, const std::map<uint32_t, Copy>& copies, bool pack_is_gone)
      EXCLUDES(mutex_);
  // These copies are not there any more.
  void DropCopies(uint64_t pack, const std::map<uint32_t, Copy>& copies) EXCLUDES(mutex_);

  // Writes what could not be written when it was noticed. Not on a full disk, where a
  // failed write would close the catalog.
  void WriteDown() EXCLUDES(mutex_);

 private:
  struct Pack {
    absl::flat_hash_set<uint32_t> sequences;
    std::map<uint32_t, Copy> copies;
    // Repair may have taken them out of manifests: an older index may name them. Of
    // these, those that no manifest names any more. Both forgotten with the process.
    absl::flat_hash_set<uint32_t> unshared, repaired;
    bool many = false;        // more than are listed
    bool unreadable = false;  // none of its chunks could be read
    bool lost = false;        // the chunk store does not have it: not written down

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
  // Takes copies off a pack that are still the ones it has; returns their sequences.
  std::vector<uint32_t> TakeCopies(uint64_t pack, const std::map<uint32_t, Copy>& copies)
      REQUIRES(mutex_);
  std::string Row(const Pack& pack) const REQUIRES(mutex_);

  Engine& engine_;
  PackPlaces& places_;
  SpaceAdmission& space_;
  mutable Mutex mutex_;
  std::atomic<bool> any_{false};
  absl::flat_hash_map<uint64_t, Pack> packs_ GUARDED_BY(mutex_);
  // Packs whose rows are not what is known of them.
  absl::flat_hash_set<uint64_t> unwritten_ GUARDED_BY(mutex_);
  bool writing_ GUARDED_BY(mutex_) = false;
};

}  // namespace modelstore::storage
