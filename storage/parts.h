// The parts behind CheckpointStore, and what they need of each other.
#pragma once

#include <memory>

#include "absl/container/flat_hash_set.h"
#include "storage/api/aliases.h"
#include "storage/api/checkpoints.h"
#include "storage/api/leases.h"
#include "storage/api/maintenance.h"
#include "storage/api/models.h"
#include "storage/api/reads.h"
#include "storage/api/saves.h"
#include "storage/api/uploads.h"
#include "storage/core.h"
#include "storage/save/open_upload.h"

namespace modelstore::storage {

class Collector;

// The table of uploads, with the functions for other parts of storage. Thread-safe but
// for Restore().
class UploadTable : public Uploads, public UploadOwner {
 public:
  // Adds an upload that was open before a restart. Called during recovery, before any
  // other call.
  virtual void Restore(std::shared_ptr<OpenUpload> upload) = 0;
  // Deletes expired uploads and returns their number.
  virtual int64_t SweepExpired(absl::Time now) = 0;
  // Deletes the uploads of a deleted model, and idle uploads of other models whose base
  // is one of its versions.
  virtual void DeleteOfModel(absl::string_view model_uid) = 0;
  // Deletes the idle uploads whose base is one of these versions of the model with this
  // uid: an abandoned upload would keep their bytes until it expires.
  virtual void DeleteIdle(absl::string_view base_model_uid,
                          const absl::flat_hash_set<int64_t>& base_versions) = 0;
  // Number of uploads that are neither committed nor deleted.
  virtual int64_t open_count() = 0;
};

// Make the parts. The arguments must outlive them.
std::unique_ptr<UploadTable> MakeUploads(StoreCore* core, Collector* collector);
std::unique_ptr<Saves> MakeSaves(StoreCore* core);
std::unique_ptr<Models> MakeModels(StoreCore* core, UploadTable* uploads,
                                   Collector* collector);
std::unique_ptr<Checkpoints> MakeCheckpoints(StoreCore* core, UploadTable* uploads,
                                             Collector* collector);
std::unique_ptr<Aliases> MakeAliases(StoreCore* core);
std::unique_ptr<Leases> MakeLeases(StoreCore* core);
std::unique_ptr<Reads> MakeReads(StoreCore* core);
std::unique_ptr<Maintenance> MakeMaintenance(StoreCore* core, UploadTable* uploads,
                                             Collector* collector);
absl::StatusOr<std::unique_ptr<OneShotSave>> StartOneShotSave(StoreCore* core,
                                                              const SaveRequest& request);
absl::StatusOr<std::unique_ptr<DerivedSave>> StartDerivedSave(
    StoreCore* core, SaveRequest request, std::vector<std::shared_ptr<Read>> sources);

// Recovers after a stop of any kind: opens the chunk store, drops packs of unfinished
// saves, and restores open uploads. Called once, before any other thread uses the store.
absl::Status Recover(StoreCore& core, UploadTable& uploads);

}  // namespace modelstore::storage
