// State that all parts of the store share: the engine, the clock, healing after faults,
// and the tables of running saves and readers.
#pragma once

#include <atomic>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/container/flat_hash_set.h"
#include "proto/contract/mutex.h"
#include "storage/api/listener.h"
#include "storage/api/store_options.h"
#include "storage/damage.h"
#include "storage/engine.h"
#include "storage/holds.h"
#include "storage/manifest_cache.h"
#include "storage/pack_places.h"
#include "storage/space.h"
#include "storage/store_clock.h"

namespace modelstore::storage {

// Ids of packs or manifests that are being written and that no record names yet. The
// collector leaves them alone. Thread-safe.
class RunningIds {
 public:
  // Keeps an id in the table for its lifetime. Must not outlive the table.
  class Entry {
   public:
    Entry() = default;
    Entry(RunningIds* owner, uint64_t id) : owner_(owner), id_(id) {}
    Entry(Entry&& other) noexcept { *this = std::move(other); }
    Entry& operator=(Entry&& other) noexcept;
    ~Entry() { Leave(); }

   private:
    void Leave();
    RunningIds* owner_ = nullptr;
    uint64_t id_ = 0;
  };

  Entry Enter(uint64_t id) EXCLUDES(mutex_);
  absl::flat_hash_set<uint64_t> All() const EXCLUDES(mutex_);

 private:
  mutable Mutex mutex_;
  absl::flat_hash_set<uint64_t> ids_ GUARDED_BY(mutex_);
};

// Thread-safe. Owned by the store; every part has a pointer to it.
class StoreCore {
 public:
  StoreCore(StoreOptions options, Engine engine);

  const StoreOptions options;
  Engine engine;
  SpaceAdmission space;
  // Used for all expiry. Times that are only shown are by NowUs().
  StoreClock clock;
  Holds holds;
  ManifestCache manifests;
  PackPlaces places;
  DamagedChunks damage;
  RunningIds running_packs;
  RunningIds running_manifests;
  // Bytes of chunks that are held in memory as inline packs, of all saves.
  std::atomic<int64_t> inline_bytes{0};
  // True if something may have become garbage since the last collection. A collection
  // skips most of its work while this is false.
  std::atomic<bool> garbage_possible{true};

  Catalog& catalog() { return *engine.catalog; }
  ChunkStore& chunks() { return *engine.chunks; }
  // The wall clock's time.
  int64_t NowUs() const { return absl::ToUnixMicros(options.now()); }
  // Nothing expires during this time after startup.
  bool InStartGrace() const { return clock.Uptime() < options.start_grace; }
  // Number of reopenings since startup.
  int64_t reopen_count() const { return reopen_count_; }
  void Event(Listener::Severity severity, absl::string_view message) const;
  // Notifies the watch of a change of the model; empty: any model may have changed.
  void Changed(absl::string_view model_uid) const EXCLUDES(watch_mutex_);
  using ModelWatch = std::function<void(absl::string_view model_uid)>;
  void SetWatch(ModelWatch watch) EXCLUDES(watch_mutex_);

  // Reopens catalog and chunk store if a fault has closed them; otherwise does nothing.
  // One thread reopens, the others wait for it, up to a minute. Must not be called with a
  // lock held that a reader of the catalog may need.
  absl::Status ReopenIfClosed() EXCLUDES(reopen_mutex_);
  // ReleaseBallast() frees the ballast file, so that writes that free space succeed on a
  // full disk. RestoreBallast() allocates it again if it was released and there is room.
  void ReleaseBallast();
  void RestoreBallast();

  // What a write may do on a full disk.
  enum class Room : uint8_t {
    kNormalWrite,
    kFreesSpace,  // Must work on a full disk: may use the ballast.
  };
  // Writes a batch and resolves its outcome: after an undecided write it reopens storage,
  // asks `applied` whether the batch is in the catalog, and writes it again if not, at
  // most three times in all. ABORTED if an expectation differs. UNAVAILABLE if the write
  // failed or its outcome is still unknown; if IsUndecided() is false, nothing was
  // applied.
  absl::Status WriteResolved(const CatalogBatch& batch, Durability durability, Room room,
                             const std::function<absl::StatusOr<bool>()>& applied);
  // Returns an `applied` for a batch that puts this value at the key or, if absent,
  // deletes the key. The value must be one that no other writer writes.
  std::function<absl::StatusOr<bool>()> KeyIs(Space space, std::string key,
                                              std::optional<std::string> value);

  // True for the status of a read that failed although catalog and chunk store are open:
  // the disk cannot read this place now. Other places may be readable, and this one
  // later.
  bool IsReadError(const absl::Status& status) {
    return absl::IsUnavailable(status) && catalog().Health().ok() &&
           chunks().Health().ok();
  }

  // Reads a chunk and reports the result to `damage`. DATA_LOSS if it is gone or does
  // not match its digest.
  absl::StatusOr<PinnedBytes> ReadChecked(ChunkId chunk, const Digest& digest);

  // Returns every pack of the chunk store that has chunks named by the catalog, or that
  // is being written. All others are garbage.
  absl::StatusOr<std::vector<uint64_t>> NamedPacks();

 private:
  // Only by the thread that set `reopening_`. The lock is not held.
  absl::Status ReopenNow();

  std::atomic<int64_t> reopen_count_{0};
  std::atomic<bool> ballast_released_{false};
  Mutex reopen_mutex_;
  CondVar reopened_;
  bool reopening_ GUARDED_BY(reopen_mutex_) = false;
  // Not held while the watch is called.
  mutable Mutex watch_mutex_;
  std::shared_ptr<const ModelWatch> watch_ GUARDED_BY(watch_mutex_);
};

}  // namespace modelstore::storage
