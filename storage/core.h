// What all parts of the store share: the engine, the clock, healing, and the
// tables of what is running now.
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

// Ids of packs or manifests that are being made and that no record names yet:
// the collector leaves them alone. Thread-safe.
class RunningIds {
 public:
  // An id stays in the table for as long as this lives.
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

class StoreCore {
 public:
  StoreCore(StoreOptions options, Engine engine);

  const StoreOptions options;
  Engine engine;
  SpaceAdmission space;
  // Used for all expiry. Times that are only shown use NowUs().
  StoreClock clock;
  Holds holds;
  ManifestCache manifests;
  PackPlaces places;
  DamagedChunks damage;
  RunningIds running_packs;
  RunningIds running_manifests;
  // Bytes of chunks that wait in memory to become inline packs.
  std::atomic<int64_t> inline_bytes{0};
  // Something may have become garbage since the collector looked last.
  std::atomic<bool> garbage_possible{true};

  Catalog& catalog() { return *engine.catalog; }
  ChunkStore& chunks() { return *engine.chunks; }
  // The wall clock's time.
  int64_t NowUs() const { return absl::ToUnixMicros(options.now()); }
  // Nothing expires during this time after startup.
  bool InStartGrace() const { return clock.Uptime() < options.start_grace; }
  int64_t reopen_count() const { return reopen_count_; }
  void Event(Listener::Severity severity, absl::string_view message) const;
  // Notifies the watch of a change of the model; empty: any model may have changed.
  void Changed(absl::string_view model_uid) const EXCLUDES(watch_mutex_);
  using ModelWatch = std::function<void(absl::string_view model_uid)>;
  void SetWatch(ModelWatch watch) EXCLUDES(watch_mutex_);

  // Reopens what a fault has closed. One call at a time; the others wait for it.
  absl::Status ReopenIfClosed() EXCLUDES(reopen_mutex_);
  // Frees the ballast, or allocates it again if there is room.
  void ReleaseBallast();
  void RestoreBallast();

  enum class Room : uint8_t {
    kNormalWrite,
    kFreesSpace,  // Must work on a full disk: may use the ballast.
  };
  // Writes a batch and settles its outcome: after an undecided write it heals, calls
  // `applied`, and retries if the batch was not applied. UNAVAILABLE if the write failed
  // or its outcome stays unknown; nothing was applied if IsUndecided() is false.
  absl::Status WriteResolved(const CatalogBatch& batch, Durability durability, Room room,
                             const std::function<absl::StatusOr<bool>()>& applied);
  // `applied` for a batch that puts (or deletes, if absent) this key.
  std::function<absl::StatusOr<bool>()> KeyIs(Space space, std::string key,
                                              std::optional<std::string> value);

  // True for the status of a read that failed although catalog and chunk store are open:
  // the disk cannot read this place. It may be able to later, and other places now.
  bool IsReadError(const absl::Status& status) {
    return absl::IsUnavailable(status) && catalog().Health().ok() &&
           chunks().Health().ok();
  }

  // Reads a chunk and reports the result to `damage`. DATA_LOSS if it is gone or does
  // not match its digest.
  absl::StatusOr<PinnedBytes> ReadChecked(ChunkId chunk, const Digest& digest);

  // Every pack that holds chunks the catalog names, or that is being written.
  absl::StatusOr<std::vector<uint64_t>> NamedPacks();

 private:
  absl::Status ReopenNow();

  std::atomic<int64_t> reopen_count_{0};
  std::atomic<bool> ballast_released_{false};
  Mutex reopen_mutex_;
  CondVar reopened_;
  bool reopening_ GUARDED_BY(reopen_mutex_) = false;
  mutable Mutex watch_mutex_;
  std::shared_ptr<const ModelWatch> watch_ GUARDED_BY(watch_mutex_);
};

}  // namespace modelstore::storage
