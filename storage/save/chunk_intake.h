// Receives the chunks of one save: drops those that are already stored and writes the
// rest to packs. Used by uploads, with any number of streams, and by one-shot and derived
// saves.
//
// While a save is small, its chunks are kept in memory as one inline pack, which becomes
// an ordinary pack once the save has grown. A pack is open, then sealing, then sealed. It
// may fail at any point before it is sealed: the save then no longer holds its chunks,
// the feeders that wrote to it get the error, and clients must send these chunks again.
#pragma once

#include <array>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/container/flat_hash_set.h"
#include "absl/status/status.h"
#include "modelstore/storage/v1/records.pb.h"
#include "proto/contract/digest.h"
#include "proto/contract/mutex.h"
#include "storage/core.h"
#include "storage/save/chunk_digest.h"

namespace modelstore::storage {

// A pack of the save that may not be sealed yet.
struct IntakePack {
  enum class State : uint8_t { kOpen, kSealing, kSealed, kFailed };

  // Guarded by the slot's mutex while the pack is open; afterwards used only by the
  // thread that seals it.
  bool is_inline = true;
  std::unique_ptr<PackWriter> writer;  // null: inline, or published
  std::vector<std::string> inline_chunks;
  v1::SealedPackRecord record;
  int64_t bytes = 0;
  // Protects the pack from the collector until a record names it.
  RunningIds::Entry running;

  // Guarded by the intake's mutex.
  State state = State::kOpen;
  absl::Status failure;
};

// Records sealed packs durably, so that a restart knows what an upload holds. A one-shot
// or derived save has no journal: its inline chunks are written by the batch of the
// commit.
class PackJournal {
 public:
  virtual ~PackJournal() = default;
  // Called before the pack is published, so that a published pack always has a record.
  // Writes the chunks of an inline pack in the same batch. Returns once both are durable.
  virtual absl::Status Record(const v1::SealedPackRecord& record,
                              const std::vector<std::string>& inline_chunks) = 0;
};

// A chunk that a save stored again because the base's copy is damaged.
struct Renewal {
  DamagedChunks::NewCopy copy;
  // Size of the chunk in the first entry for it, 0 in the entries for further bases.
  int64_t bytes = 0;
};

// Thread-safe, except that each Feeder is used by one thread at a time. Lock order: a
// slot's mutex before `mutex_`. No lock is held while a pack is sealed.
class ChunkIntake {
 public:
  // A sealed pack, with what a commit must write about it.
  struct Sealed {
    uint64_t pack = 0;
    int64_t bytes = 0;
    uint32_t chunks = 0;
    std::vector<std::string> inline_chunks;  // one-shot saves only
  };

  // One stream of chunks. Used by one thread at a time. Must not outlive the intake.
  class Feeder {
   public:
    explicit Feeder(ChunkIntake* intake);
    ~Feeder();
    Feeder(const Feeder&) = delete;
    Feeder& operator=(const Feeder&) = delete;

   private:
    friend class ChunkIntake;
    ChunkIntake* const intake_;
    size_t slot_ = 0;
    // Packs that it wrote to and that it has not seen sealed. Seal() waits for them.
    std::vector<std::shared_ptr<IntakePack>> packs_;
  };

  // `journal` may be null; not owned.
  ChunkIntake(StoreCore* core, DigestAlgorithm algorithm, PackJournal* journal);
  // Abandons packs that are not sealed.
  ~ChunkIntake();

  // Adds a checkpoint whose chunks need not be sent again. To be called before the first
  // Put(). The caller keeps the checkpoint held until the save ends.
  void AddBase(std::shared_ptr<const ChunkIndex> base) EXCLUDES(mutex_);
  // Takes over a pack that the upload sealed before a restart.
  void Restore(const v1::SealedPackRecord& record) EXCLUDES(mutex_);

  // Returns the chunk if a base or the save itself holds it and it is not known to be
  // damaged. Chunks in open packs count as held.
  std::optional<HeldChunk> Find(const Digest& digest) EXCLUDES(mutex_);

  // Returns true if a base has a damaged copy of the chunk and no base has an intact one:
  // it must be sent again.
  bool IsDamaged(const Digest& digest) EXCLUDES(mutex_);
  // Returns the save's own chunks of which bases have damaged copies: one entry for each
  // chunk and base.
  std::vector<Renewal> Renewals() EXCLUDES(mutex_);

  // Writes a chunk whose digest has been checked. Returns false if it was dropped as a
  // duplicate. Seals the pack, in the calling thread, if it is full. Waits up to 30 s for
  // another stream that is writing the same chunk. RESOURCE_EXHAUSTED if the disk is
  // full, UNAVAILABLE if storage is overloaded or closed.
  absl::StatusOr<bool> Put(Feeder& feeder, const ReceivedChunk& chunk) EXCLUDES(mutex_);

  // Seals the packs that the feeder wrote to, and waits for those that others are
  // sealing. Returns the first failure of any of them; UNAVAILABLE after a minute.
  absl::Status Seal(Feeder& feeder) EXCLUDES(mutex_);
  // From now on Put() returns `reason`; OK opens the intake again. Put() calls already
  // past this check complete.
  void Refuse(absl::Status reason) EXCLUDES(mutex_);
  // To be called after Refuse(). Waits for every running Put() and seals all packs: every
  // chunk that Find() returns afterwards is durable. UNAVAILABLE after a minute.
  absl::Status SealAll() EXCLUDES(mutex_);
  // To be called after Refuse(). Waits likewise, and abandons the open packs.
  absl::Status AbandonOpen() EXCLUDES(mutex_);

  // To be called after Refuse(), once the save is committed or deleted. Frees the memory
  // of the index and the reserved space; Find() finds nothing afterwards.
  void ForgetChunks() EXCLUDES(mutex_);

  // The packs sealed so far.
  std::vector<Sealed> sealed() EXCLUDES(mutex_);
  // Bytes of chunks that were not duplicates, in open and sealed packs.
  int64_t received_bytes() EXCLUDES(mutex_);
  // The part of received_bytes() that a restart keeps.
  int64_t sealed_bytes() EXCLUDES(mutex_);

 private:
  using PackPtr = std::shared_ptr<IntakePack>;
  struct Held {
    ChunkId id;
    uint32_t size_bytes = 0;
    bool pending = false;  // claimed, not appended yet
    HeldChunk::Bools bools = HeldChunk::Bools::kUnknown;
  };
  // Holds one open pack. There are two slots, so that two streams can write at a time; a
  // slot's mutex is held for one append at a time.
  struct Slot {
    Mutex mutex;
    PackPtr pack GUARDED_BY(mutex);
  };

  // Waits until no Put() is between its claim and its append, and no pack is being
  // sealed. UNAVAILABLE after a minute.
  absl::Status WaitUntilIdle() EXCLUDES(mutex_);
  std::optional<HeldChunk> FindInBases(const Digest& digest) const REQUIRES(mutex_);
  bool IsDamagedInBases(const Digest& digest) const REQUIRES(mutex_);
  // Reserves the right to append a chunk, so that no other stream appends the same bytes,
  // and its space. Ends by Append() or ReleaseClaim().
  absl::StatusOr<bool> Claim(const Digest& digest, int64_t bytes) EXCLUDES(mutex_);
  void ReleaseClaim(const Digest& digest, int64_t bytes) EXCLUDES(mutex_);
  size_t ChooseSlot(const Feeder& feeder) EXCLUDES(mutex_);
  // Appends a claimed chunk to the slot's pack. Sets `full` to the pack if it has to be
  // sealed; the slot is then empty.
  absl::Status Append(Feeder& feeder, Slot& slot, const ReceivedChunk& chunk,
                      PackPtr& full) EXCLUDES(mutex_);
  // Makes the slot's pack one that can take a chunk: opens one if there is none, and
  // converts an inline pack if the save is no longer small.
  absl::Status EnsurePack(Slot& slot) REQUIRES(slot.mutex) EXCLUDES(mutex_);
  bool IsSmall() EXCLUDES(mutex_);
  absl::Status OpenWriter(IntakePack& pack);
  absl::Status MoveOut(IntakePack& pack) EXCLUDES(mutex_);
  // Takes the pack out of its slot, for the caller to seal. It counts in `sealing_` until
  // SealDetached() returns.
  PackPtr Detach(Slot& slot) REQUIRES(slot.mutex) EXCLUDES(mutex_);
  absl::Status SealDetached(const PackPtr& pack) EXCLUDES(mutex_);
  absl::Status WriteOut(IntakePack& pack);
  void ReleaseInline(IntakePack& pack);
  // Marks a pack as failed and drops its chunks from the index.
  void Forget(const PackPtr& pack, const absl::Status& failure) EXCLUDES(mutex_);

  StoreCore* const core_;
  const DigestAlgorithm algorithm_;
  PackJournal* const journal_;
  std::array<Slot, 2> slots_;

  Mutex mutex_;
  CondVar changed_;
  // Space for received bytes that are not written yet.
  SpaceGrant grant_ GUARDED_BY(mutex_);
  absl::Status refusal_ GUARDED_BY(mutex_);
  // Indexes of the bases; their checkpoints are held by the owner of the intake.
  std::vector<std::shared_ptr<const ChunkIndex>> bases_ GUARDED_BY(mutex_);
  // Chunks of the save itself, those of bases excluded.
  absl::flat_hash_map<Digest, Held> held_ GUARDED_BY(mutex_);
  std::vector<Sealed> sealed_ GUARDED_BY(mutex_);
  // Entries of sealed packs without a journal: the collector must leave them alone until
  // the commit records them.
  std::vector<RunningIds::Entry> running_ GUARDED_BY(mutex_);
  int64_t received_bytes_ GUARDED_BY(mutex_) = 0;
  // Claims that have not ended; packs that are being sealed; feeders by slot.
  int pending_ GUARDED_BY(mutex_) = 0;
  int sealing_ GUARDED_BY(mutex_) = 0;
  std::array<int, 2> feeders_ GUARDED_BY(mutex_) = {};
};

}  // namespace modelstore::storage
