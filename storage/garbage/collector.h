// Frees what nothing needs: the bytes of deleted checkpoints once nobody reads
// them, the dead part of packs, packs and manifests of failed saves, and the records
// of deleted models.
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

  // Called after the records are deleted: frees what can be freed at once and returns
  // the bytes freed and waiting. Leaves all of it to a running collection.
  absl::StatusOr<Freed> AfterDeletion(const std::string& model_uid,
                                      const absl::flat_hash_set<int64_t>& versions);
  absl::StatusOr<Freed> AfterModelDeletion(const v1::ModelRecord& model);
  // Drops the packs that an upload's deletion has left.
  void AfterUploadDeletion();

  using Progress = std::function<bool(int64_t checked, int64_t total)>;
  // The caller deletes expired uploads before it, as each deletion takes a turn too.
  absl::StatusOr<GarbageResult> Collect(bool validate_only, const Progress& progress);

  // As of the last collection.
  DeadBytes last_measure() EXCLUDES(mutex_);

 private:
  // True if the caller may collect now. `progress`, if given, is asked while it waits,
  // under the lock: false ends the wait.
  bool Begin(absl::Duration patience, const Progress& progress) EXCLUDES(mutex_);
  void End() EXCLUDES(mutex_);
  class Turn;

  absl::StatusOr<bool> VisitBatch(
      KeyRange& range,
      absl::FunctionRef<bool(absl::string_view key, absl::string_view value)> visit);
  absl::StatusOr<int64_t> ExpandBatch(const v1::DeadModelRecord& model,
                                      const std::function<bool()>& keep_going);
  // `keep_going` is called before each batch; if it returns false: CANCELLED, and the
  // next call continues.
  absl::Status ExpandDeadModel(const v1::DeadModelRecord& model,
                               const std::function<bool()>& keep_going);
  absl::Status ExpandDeadModels(const std::function<bool()>& keep_going);
  // Reads the next few thousand rows and moves the begin of `range` behind them.
  absl::StatusOr<std::vector<v1::DeadCheckpointRecord>> ReadDead(KeyRange& range);
  absl::Status FinalizeAll(const PackSizes& sizes,
                           const std::function<bool()>& keep_going,
                           GarbageResult& result);
  // Frees those of `dead` that nobody reads; returns the bytes freed.
  absl::StatusOr<int64_t> Finalize(const std::vector<v1::DeadCheckpointRecord>& dead,
                                   const PackSizes& sizes, GarbageResult& result);
  absl::Status FinalizeOne(const v1::DeadCheckpointRecord& dead, Durability durability,
                           UnusedPacks& unused);
  absl::Status SweepManifests();
  absl::Status DropUnnamed(bool validate_only, const PackSizes& sizes,
                           const Progress& progress, GarbageResult& result);
  // Measures what is dead inside packs, and copies forward.
  absl::Status FreeSpace(bool validate_only, const PackSizes& sizes,
                         const Progress& progress, GarbageResult& result);

  StoreCore& core_;
  // Packs whose damage keeps them from being copied forward; touched by the one
  // that collects.
  absl::flat_hash_set<uint64_t> stuck_;
  Mutex mutex_;
  CondVar ended_;
  bool collecting_ GUARDED_BY(mutex_) = false;
  DeadBytes last_ GUARDED_BY(mutex_);
};

}  // namespace modelstore::storage
