#include "storage/checkpoint_store.h"

#include <utility>

#include "storage/core.h"
#include "storage/garbage/collector.h"
#include "storage/keys.h"
#include "storage/parts.h"
#include "storage/record_codec.h"
#include "storage/status_macros.h"

namespace modelstore::storage {
namespace {

// See Maintenance.
class StoreMaintenance final : public Maintenance {
 public:
  StoreMaintenance(StoreCore* core, UploadTable* uploads, Collector* collector)
      : core_(*core), uploads_(*uploads), collector_(*collector) {}

  absl::StatusOr<GarbageResult> CollectGarbage(
      bool validate_only,
      const std::function<bool(int64_t, int64_t)>& progress) override {
    int64_t expired = 0;
    // Before the collection takes its turn, which deletions of uploads take too.
    if (!validate_only && !core_.InStartGrace()) {
      expired = uploads_.SweepExpired(core_.clock.Now());
    }
    ASSIGN_OR_RETURN(GarbageResult result, collector_.Collect(validate_only, progress));
    result.expired_uploads = expired;
    return result;
  }

  absl::StatusOr<StoreStats> Stats() override {
    StoreStats stats;
    absl::Status status;
    RETURN_IF_ERROR(core_.catalog().Scan(Space::kRecords, PrefixRange(keys::Models()),
                                         [&](absl::string_view, absl::string_view value) {
                                           absl::StatusOr<v1::ModelRecord> model =
                                               Decode<v1::ModelRecord>(value);
                                           if (!model.ok()) {
                                             status = model.status();
                                             return false;
                                           }
                                           ++stats.model_count;
                                           stats.checkpoint_count +=
                                               model->checkpoint_count();
                                           return true;
                                         }));
    RETURN_IF_ERROR(status);
    ASSIGN_OR_RETURN(const std::vector<PackInfo> packs, core_.chunks().ListPacks());
    stats.pack_count = static_cast<int64_t>(packs.size());
    for (const PackInfo& pack : packs) stats.pack_bytes += pack.size_bytes;
    stats.open_upload_count = uploads_.open_count();
    const DeadBytes dead = collector_.last_measure();
    stats.reclaimable_bytes = dead.reclaimable_bytes;
    stats.waiting_bytes = dead.waiting_bytes;
    ASSIGN_OR_RETURN(stats.disk_free_bytes, core_.space.FreeBytes());
    stats.reserved_bytes = core_.space.reserved_bytes();
    stats.reopen_count = core_.reopen_count();
    ASSIGN_OR_RETURN(stats.damaged_chunks, core_.damage.Count());
    return stats;
  }

  absl::Status ReopenIfClosed() override {
    RETURN_IF_ERROR(core_.ReopenIfClosed());
    core_.damage.Persist();
    // Not on a full disk: a failed write would close the catalog.
    if (core_.space.CheckSpace(1).ok()) core_.clock.Persist(core_.catalog());
    return absl::OkStatus();
  }

 private:
  StoreCore& core_;
  UploadTable& uploads_;
  Collector& collector_;
};

// Joins the parts. Members are destroyed in reverse order, so the parts go before the
// core that they use.
class Store final : public CheckpointStore {
 public:
  Store(StoreOptions options, Engine engine)
      : core_(std::move(options), std::move(engine)),
        collector_(&core_),
        saves_(MakeSaves(&core_)),
        uploads_(MakeUploads(&core_, &collector_)),
        models_(MakeModels(&core_, uploads_.get(), &collector_)),
        checkpoints_(MakeCheckpoints(&core_, uploads_.get(), &collector_)),
        aliases_(MakeAliases(&core_)),
        leases_(MakeLeases(&core_)),
        reads_(MakeReads(&core_)),
        maintenance_(MakeMaintenance(&core_, uploads_.get(), &collector_)) {}

  absl::Status Recover() { return storage::Recover(core_, *uploads_); }

  Models& models() override { return *models_; }
  Checkpoints& checkpoints() override { return *checkpoints_; }
  Aliases& aliases() override { return *aliases_; }
  Leases& leases() override { return *leases_; }
  Saves& saves() override { return *saves_; }
  Uploads& uploads() override { return *uploads_; }
  Reads& reads() override { return *reads_; }
  Maintenance& maintenance() override { return *maintenance_; }
  void WatchModels(StoreCore::ModelWatch changed) override {
    core_.SetWatch(std::move(changed));
  }

 private:
  StoreCore core_;
  Collector collector_;
  const std::unique_ptr<Saves> saves_;
  const std::unique_ptr<UploadTable> uploads_;
  const std::unique_ptr<Models> models_;
  const std::unique_ptr<Checkpoints> checkpoints_;
  const std::unique_ptr<Aliases> aliases_;
  const std::unique_ptr<Leases> leases_;
  const std::unique_ptr<Reads> reads_;
  const std::unique_ptr<Maintenance> maintenance_;
};

}  // namespace

std::unique_ptr<Maintenance> MakeMaintenance(StoreCore* core, UploadTable* uploads,
                                             Collector* collector) {
  return std::make_unique<StoreMaintenance>(core, uploads, collector);
}

absl::StatusOr<std::unique_ptr<CheckpointStore>> CheckpointStore::Open(
    StoreOptions options, Engine engine) {
  auto store = std::make_unique<Store>(std::move(options), std::move(engine));
  RETURN_IF_ERROR(store->Recover());
  return store;
}

}  // namespace modelstore::storage
