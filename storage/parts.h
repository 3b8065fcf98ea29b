// The parts behind the front door; CheckpointStore::Open() puts them together.
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

// The table of uploads, with calls for other parts of storage.
class UploadTable : public Uploads, public UploadOwner {
 public:
  // At open, before anyone calls.
  virtual void Restore(std::shared_ptr<OpenUpload> upload) = 0;
  // Deletes expired uploads and returns their number.
  virtual int64_t SweepExpired(absl::Time now) = 0;
  // Deletes the uploads of a deleted model, and idle ones of other models that build on
  // its versions.
  virtual void DeleteOfModel(absl::string_view model_uid) = 0;
  // Deletes the idle uploads that build on these versions of the model of this uid: an
  // abandoned one would keep their bytes until it expires.
  virtual void DeleteIdle(absl::string_view base_model_uid,
                          const absl::flat_hash_set<int64_t>& base_versions) = 0;
  virtual int64_t open_count() = 0;
};

// `core` outlives all of them.
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

// Brings catalog and chunk store into agreement after a stop of any kind.
absl::Status Recover(StoreCore& core, UploadTable& uploads);

}  // namespace modelstore::storage
