// Receives the chunks of one save: drops those that are stored already and packs the
// rest. Used by uploads, with any number of streams, and by one-shot saves.
//
// While a save is small, its chunks are kept in memory as one inline pack, which becomes
// an ordinary pack once the save has grown. A pack is open, then sealing, then sealed.
// It may fail at any point: the save then no longer holds its chunks, and the feeders
// get the error.
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

// A pack on its way.
struct IntakePack {
  enum class State : uint8_t { kOpen, kSealing, kSealed, kFailed };

  // Guarded by the slot while open, then touched by the one thread that seals.
  bool is_inline = true;
  std::unique_ptr<PackWriter> writer;  // null: inline, or published
  std::vector<std::string> inline_chunks;
  v1::SealedPackRecord record;
  int64_t bytes = 0;
  RunningIds::Entry running;

  // Guarded by the intake's mutex.
  State state = State::kOpen;
  absl::Status failure;
};

// Where sealed packs are written down. A one-shot save has none: its inline
// chunks wait for the commit's own batch.
class PackJournal {
 public:
  virtual ~PackJournal() = default;
  // Durably, before the pack is published; an inline pack's chunks with it.
  virtual absl::Status Record(const v1::SealedPackRecord& record,
                              const std::vector<std::string>& inline_chunks) = 0;
};

// A chunk that a save stored again because its base's is damaged.
struct Renewal {
  DamagedChunks::NewCopy copy;
  int64_t bytes = 0;
};

class ChunkIntake {
 public:
  // A sealed pack, with what a commit must write about it.
  struct Sealed {
    uint64_t pack = 0;
    int64_t bytes = 0;
    uint32_t chunks = 0;
    std::vector<std::string> inline_chunks;  // one-shot saves only
  };

  // One stream that brings chunks. Used by one thread at a time.
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
    // That it wrote to and does not know to be sealed.
    std::vector<std::shared_ptr<IntakePack>> packs_;
  };

  // `journal` may be null; not owned.
  ChunkIntake(StoreCore* core, DigestAlgorithm algorithm, PackJournal* journal);
  // Abandons what is not sealed.
  ~ChunkIntake();

  // A checkpoint whose chunks need not come again. Before the first Put().
  void AddBase(std::shared_ptr<const ChunkIndex> base) EXCLUDES(mutex_);
  // Takes over a pack that an earlier run had sealed.
  void Restore(const v1::SealedPackRecord& record) EXCLUDES(mutex_);

  // The chunk, if a base or the save itself holds it and it is not known to be damaged.
  std::optional<HeldChunk> Find(const Digest& digest) EXCLUDES(mutex_);

  // True if a base has the chunk damaged and no base has it whole: it must be sent
  // again.
  bool IsDamaged(const Digest& digest) EXCLUDES(mutex_);
  // The save's own chunks that bases have damaged, one entry a base.
  std::vector<Renewal> Renewals() EXCLUDES(mutex_);

  // Returns false if the chunk was dropped as a duplicate.
  absl::StatusOr<bool> Put(Feeder& feeder, const ReceivedChunk& chunk) EXCLUDES(mutex_);

  // Seals what the feeder wrote. The first failure of any of its packs.
  absl::Status Seal(Feeder& feeder) EXCLUDES(mutex_);
  // From now on Put() answers `reason`; OK opens the intake again.
  void Refuse(absl::Status reason) EXCLUDES(mutex_);
  // Once refusing: waits for every running Put() and seals everything. What
  // Find() knows afterwards is sealed. UNAVAILABLE after a minute.
  absl::Status SealAll() EXCLUDES(mutex_);
  // Once refusing: waits likewise and abandons what is open.
  absl::Status AbandonOpen() EXCLUDES(mutex_);

  // Once refusing, and committed or deleted: Find() knows nothing any more, and no
  // space is reserved.
  void ForgetChunks() EXCLUDES(mutex_);

  std::vector<Sealed> sealed() EXCLUDES(mutex_);
  int64_t received_bytes() EXCLUDES(mutex_);
  int64_t sealed_bytes() EXCLUDES(mutex_);

 private:
  using PackPtr = std::shared_ptr<IntakePack>;
  struct Held {
    ChunkId id;
    uint32_t size_bytes = 0;
    bool pending = false;  // claimed, not appended yet
    HeldChunk::Bools bools = HeldChunk::Bools::kUnknown;
  };
  // Up to two packs are open. Lock order: a slot's mutex, then mutex_.
  struct Slot {
    Mutex mutex;
    PackPtr pack GUARDED_BY(mutex);
  };

  // Until no Put() is between its claim and its append, and nothing is sealing.
  absl::Status WaitUntilIdle() EXCLUDES(mutex_);
  std::optional<HeldChunk> FindInBases(const Digest& digest) const REQUIRES(mutex_);
  bool IsDamagedInBases(const Digest& digest) const REQUIRES(mutex_);
  absl::StatusOr<bool> Claim(const Digest& digest, int64_t bytes) EXCLUDES(mutex_);
  void ReleaseClaim(const Digest& digest, int64_t bytes) EXCLUDES(mutex_);
  size_t ChooseSlot(const Feeder& feeder) EXCLUDES(mutex_);
  absl::Status Append(Feeder& feeder, Slot& slot, const ReceivedChunk& chunk,
                      PackPtr& full) EXCLUDES(mutex_);
  absl::Status EnsurePack(Slot& slot) REQUIRES(slot.mutex) EXCLUDES(mutex_);
  bool IsSmall() EXCLUDES(mutex_);
  absl::Status OpenWriter(IntakePack& pack);
  absl::Status MoveOut(IntakePack& pack) EXCLUDES(mutex_);
  PackPtr Detach(Slot& slot) REQUIRES(slot.mutex) EXCLUDES(mutex_);
  absl::Status SealDetached(const PackPtr& pack) EXCLUDES(mutex_);
  absl::Status WriteOut(IntakePack& pack);
  void ReleaseInline(IntakePack& pack);
  void Forget(const PackPtr& pack, const absl::Status& failure) EXCLUDES(mutex_);

  StoreCore* const core_;
  const DigestAlgorithm algorithm_;
  PackJournal* const journal_;
  std::array<Slot, 2> slots_;

  Mutex mutex_;
  CondVar changed_;
  SpaceGrant grant_ GUARDED_BY(mutex_);
  absl::Status refusal_ GUARDED_BY(mutex_);
  std::vector<std::shared_ptr<const ChunkIndex>> bases_ GUARDED_BY(mutex_);
  absl::flat_hash_map<Digest, Held> held_ GUARDED_BY(mutex_);
  std::vector<Sealed> sealed_ GUARDED_BY(mutex_);
  // Kept with their packs until these are written down by the commit.
  std::vector<RunningIds::Entry> running_ GUARDED_BY(mutex_);
  int64_t received_bytes_ GUARDED_BY(mutex_) = 0;
  int pending_ GUARDED_BY(mutex_) = 0;
  int sealing_ GUARDED_BY(mutex_) = 0;
  std::array<int, 2> feeders_ GUARDED_BY(mutex_) = {};
};

}  // namespace modelstore::storage
