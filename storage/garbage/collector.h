// Frees what is no longer needed: the bytes of deleted checkpoints once nobody reads
// them, the dead part of packs, packs and manifests of failed saves, and the records of
// deleted models.
//
// A deletion moves a version's record to a DeadCheckpointRecord, and a model's to a
// DeadModelRecord, in one small batch. A collection then expands dead models to dead
// checkpoints, repairs versions that name damaged chunks, finalizes dead checkpoints that
// nobody holds (deletes manifest and pack uses, drops packs without uses), drops packs
// that no record names, and copies living chunks out of mostly dead packs. Each step can
// be repeated after a crash.
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "proto/contract/mutex.h"
#include "storage/api/maintenance.h"
#include "storage/api/types.h"
#include "storage/core.h"
#include "storage/garbage/liveness.h"
#include "storage/garbage/pack_release.h"

namespace modelstore::storage {

// Thread-safe; one collection at a time.
class Collector {
 public:
  explicit Collector(StoreCore* core) : core_(*core) {}

  // Called after the versions' records were deleted. Frees what can be freed at once and
  // returns the bytes freed and waiting. If a collection is running it waits up to 200 ms
  // and then leaves the rest to it. Never fails: the deletion is already durable.
  absl::StatusOr<Freed> AfterDeletion(const std::string& model_uid,
                                      const absl::flat_hash_set<int64_t>& versions);
  // The same after the deletion of a model. Handles only the first rows of a large model;
  // the next collection does the rest.
  absl::StatusOr<Freed> AfterModelDeletion(const v1::ModelRecord& model);
  // Drops the packs that a deleted upload left behind.
  void AfterUploadDeletion();

  // Called with packs checked and packs in all, often enough to report progress.
  // Returning false stops the collection.
  using Progress = std::function<bool(int64_t checked, int64_t total)>;
  // Runs a collection. With `validate_only` measures and frees nothing. CANCELLED if
  // `progress` returns false; UNAVAILABLE if another collection is still running after
  // five minutes. The caller must delete expired uploads before, not from within: each
  // deletion takes the turn too.
  absl::StatusOr<GarbageResult> Collect(bool validate_only, const Progress& progress);

  // The dead bytes that the last collection measured; 0 before the first.
  DeadBytes last_measure() EXCLUDES(mutex_);

 private:
  // Waits up to `patience` for the turn to collect and returns true if it was taken;
  // End() gives it back. `progress`, if given, is called during the wait with the lock
  // held; if it returns false the wait ends.
  bool Begin(absl::Duration patience, const Progress& progress) EXCLUDES(mutex_);
  void End() EXCLUDES(mutex_);
  // Takes the turn for its lifetime.
  class Turn;

  // Visits rows of `range` until `visit` returns false and moves the begin of the range
  // behind the last visited one. Returns true if rows are left.
  absl::StatusOr<bool> VisitBatch(
      KeyRange& range,
      absl::FunctionRef<bool(absl::string_view key, absl::string_view value)> visit);
  // Makes one pass over a dead model's rows, in batches: turns versions into dead
  // versions and deletes the other rows. Returns the number of changes.
  absl::StatusOr<int64_t> ExpandBatch(const v1::DeadModelRecord& model,
                                      const std::function<bool()>& keep_going);
  // Repeats ExpandBatch() until a pass finds nothing, then deletes the model's own
  // record. `keep_going` is called before each batch; if it returns false: CANCELLED, and
  // the next call continues.
  absl::Status ExpandDeadModel(const v1::DeadModelRecord& model,
                               const std::function<bool()>& keep_going);
  absl::Status ExpandDeadModels(const std::function<bool()>& keep_going);
  // Reads up to 4096 dead checkpoints and moves the begin of `range` behind them.
  absl::StatusOr<std::vector<v1::DeadCheckpointRecord>> ReadDead(KeyRange& range);
  // Finalize() for all dead checkpoints, batch by batch.
  absl::Status FinalizeAll(const PackSizes& sizes,
                           const std::function<bool()>& keep_going,
                           GarbageResult& result);
  // Frees those of `dead` that nobody holds and whose grace time is over. Returns the
  // bytes freed.
  absl::StatusOr<int64_t> Finalize(const std::vector<v1::DeadCheckpointRecord>& dead,
                                   const PackSizes& sizes, GarbageResult& result);
  // Deletes the records of one dead checkpoint; adds packs without further uses to
  // `unused`.
  absl::Status FinalizeOne(const v1::DeadCheckpointRecord& dead, Durability durability,
                           UnusedPacks& unused);
  // Deletes manifests of commits that did not happen.
  absl::Status SweepManifests();
  // Drops the packs of `sizes` that no record names: those of failed saves.
  absl::Status DropUnnamed(bool validate_only, const PackSizes& sizes,
                           const Progress& progress, GarbageResult& result);
  // Measures what is dead inside packs, copies forward, and stores the measure for
  // last_measure().
  absl::Status FreeSpace(bool validate_only, const PackSizes& sizes,
                         const Progress& progress, GarbageResult& result);

  StoreCore& core_;
  // Packs that are not copied forward because they are damaged. Used only by the thread
  // that has the turn.
  absl::flat_hash_set<uint64_t> stuck_;
  Mutex mutex_;
  CondVar ended_;
  bool collecting_ GUARDED_BY(mutex_) = false;
  DeadBytes last_ GUARDED_BY(mutex_);
};

}  // namespace modelstore::storage
