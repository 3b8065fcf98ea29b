#include <algorithm>
#include <utility>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "proto/contract/errors.h"
#include "proto/contract/names.h"
#include "storage/garbage/collector.h"
#include "storage/holders.h"
#include "storage/keys.h"
#include "storage/model_change.h"
#include "storage/parts.h"
#include "storage/record_codec.h"
#include "storage/resolve.h"
#include "storage/status_macros.h"

namespace modelstore::storage {
namespace {

// Deleted versions that an error names.
constexpr size_t kNamedVersions = 10;

// See Checkpoints.
class StoredCheckpoints final : public Checkpoints {
 public:
  StoredCheckpoints(StoreCore* core, UploadTable* uploads, Collector* collector)
      : core_(*core), uploads_(*uploads), collector_(*collector) {}

  absl::StatusOr<v1::CheckpointRecord> Get(absl::string_view model_id,
                                           VersionName version) override {
    ASSIGN_OR_RETURN(const v1::ModelRecord model, GetModel(core_, model_id));
    return GetVersion(core_, model, version);
  }

  absl::StatusOr<Page<v1::CheckpointRecord>> List(absl::string_view model_id,
                                                  bool newest_first,
                                                  absl::string_view after,
                                                  int limit) override;
  absl::StatusOr<v1::CheckpointRecord> Change(absl::string_view model_id,
                                              VersionName version, const Update& update,
                                              const ChangeOptions& options) override;
  absl::StatusOr<Freed> Delete(absl::string_view model_id, int64_t version,
                               const ChangeOptions& options) override;
  absl::StatusOr<Deletions> DeleteEach(const v1::ModelRecord& model,
                                       absl::Span<const SeenVersion> versions,
                                       bool validate_only,
                                       const std::function<bool()>& keep_going) override;

  absl::StatusOr<v1::ManifestPage> ReadManifestPage(
      const v1::CheckpointRecord& checkpoint, uint32_t page) override {
    if (page >= checkpoint.manifest_pages()) {
      return absl::NotFoundError("the manifest has no such page");
    }
    ASSIGN_OR_RETURN(
        const std::optional<std::string> bytes,
        core_.catalog().Get(Space::kManifests,
                            keys::ManifestPage(checkpoint.manifest_id(), page)));
    if (!bytes.has_value()) {
      return absl::NotFoundError("the checkpoint does not exist any more");
    }
    return Decode<v1::ManifestPage>(*bytes);
  }

 private:
  // Deletes the record and leaves the bytes to the collector. Returns the model's uid.
  absl::StatusOr<std::string> DeleteRecord(absl::string_view model_id, int64_t version,
                                           const ChangeOptions& options);
  // Adds the deletion of the version to `change`.
  absl::Status PlanDeletion(const v1::CheckpointRecord& record, ModelChange& change);
  // Returns the newest version without `version`; 0 if there is none.
  absl::StatusOr<int64_t> NewestExcept(const v1::ModelRecord& model, int64_t version);

  // Deletes the versions one by one and adds what became of each to `deletions`.
  absl::Status DeleteRecords(const v1::ModelRecord& model,
                             absl::Span<const SeenVersion> versions, bool validate_only,
                             const std::function<bool()>& keep_going,
                             Deletions& deletions);

  StoreCore& core_;
  UploadTable& uploads_;
  Collector& collector_;
};

absl::StatusOr<Page<v1::CheckpointRecord>> StoredCheckpoints::List(
    absl::string_view model_id, bool newest_first, absl::string_view after, int limit) {
  ASSIGN_OR_RETURN(const v1::ModelRecord model, GetModel(core_, model_id));
  KeyRange range = PrefixRange(keys::Versions(model.uid()));
  range.reverse = newest_first;
  if (!after.empty()) {
    int64_t last = 0;
    if (!absl::SimpleAtoi(after, &last) || last < 0) {
      return InvalidField("page_token", "is not one that was given out");
    }
    // A position is the last version on the page. Ranges exclude their end.
    if (newest_first) {
      range.end = keys::Version(model.uid(), last);
    } else {
      range.begin = keys::Version(model.uid(), last + 1);
    }
  }
  Page<v1::CheckpointRecord> page;
  absl::Status status;
  RETURN_IF_ERROR(core_.catalog().Scan(
      Space::kRecords, range, [&](absl::string_view, absl::string_view value) {
        if (page.items.size() == static_cast<size_t>(limit)) {
          page.next = absl::StrCat(page.items.back().version());
          return false;
        }
        absl::StatusOr<v1::CheckpointRecord> record = Decode<v1::CheckpointRecord>(value);
        if (!record.ok()) {
          status = record.status();
          return false;
        }
        // These may take megabytes each, and a page has up to a thousand records.
        record->mutable_metadata()->clear_architecture();
        record->mutable_metadata()->clear_edits();
        page.items.push_back(*std::move(record));
        return true;
      }));
  RETURN_IF_ERROR(status);
  return page;
}

absl::StatusOr<int64_t> StoredCheckpoints::NewestExcept(const v1::ModelRecord& model,
                                                        int64_t version) {
  if (model.latest_version() != version) return model.latest_version();
  KeyRange range = PrefixRange(keys::Versions(model.uid()));
  range.reverse = true;
  range.end = keys::Version(model.uid(), version);
  int64_t newest = 0;
  RETURN_IF_ERROR(core_.catalog().Scan(Space::kRecords, range,
                                       [&](absl::string_view key, absl::string_view) {
                                         newest = keys::VersionOf(key);
                                         return false;
                                       }));
  return newest;
}

// ABORTED if the version has changed since the caller read it.
absl::Status CheckGeneration(const v1::ModelRecord& model,
                             const v1::CheckpointRecord& record,
                             const ChangeOptions& options) {
  if (!options.generation.has_value() || *options.generation == record.generation()) {
    return absl::OkStatus();
  }
  return StaleEtag(CheckpointNameOf(model.model_id(), record.version()));
}

// Every change of a version is a conditional batch on its model's record, so what was
// read of both still holds when the batch is applied.
absl::StatusOr<v1::CheckpointRecord> StoredCheckpoints::Change(
    absl::string_view model_id, VersionName version, const Update& update,
    const ChangeOptions& options) {
  v1::CheckpointRecord record;
  // Unpinning must work on a full disk: it allows the deletion of the version.
  const StoreCore::Room room = update.pinned == false ? StoreCore::Room::kFreesSpace
                                                      : StoreCore::Room::kNormalWrite;
  RETURN_IF_ERROR(
      ChangeModel(core_, model_id, room, [&](ModelChange& change) -> absl::Status {
        v1::ModelRecord& model = change.model;
        RETURN_IF_ERROR(CheckUid(model, options.model_uid));
        ASSIGN_OR_RETURN(record, GetVersion(core_, model, version));
        RETURN_IF_ERROR(CheckGeneration(model, record, options));
        v1::CheckpointMetadata& metadata = *record.mutable_metadata();
        if (update.description) metadata.set_description(*update.description);
        if (update.labels) *metadata.mutable_labels() = *update.labels;
        if (update.pinned && *update.pinned != record.pinned()) {
          record.set_pinned(*update.pinned);
          model.set_pinned_count(model.pinned_count() + (*update.pinned ? 1 : -1));
        }
        if (update.expire_time_us) record.set_expire_time_us(*update.expire_time_us);
        record.set_generation(record.generation() + 1);
        change.batch.Put(Space::kRecords, keys::Version(model.uid(), record.version()),
                         Encode(record));
        change.event.emplace().set_updated_version(record.version());
        change.skip = options.validate_only;
        return absl::OkStatus();
      }).status());
  return record;
}

absl::Status StoredCheckpoints::PlanDeletion(const v1::CheckpointRecord& record,
                                             ModelChange& change) {
  v1::ModelRecord& model = change.model;
  RETURN_IF_ERROR(CheckNotHeld(core_, model, record));
  ASSIGN_OR_RETURN(const int64_t newest, NewestExcept(model, record.version()));
  model.set_latest_version(newest);
  model.set_checkpoint_count(model.checkpoint_count() - 1);
  model.set_logical_bytes(model.logical_bytes() - record.logical_bytes());
  model.set_stored_bytes(model.stored_bytes() - record.stored_bytes());

  // What the collector needs to free the bytes later.
  v1::DeadCheckpointRecord dead;
  dead.set_model_uid(model.uid());
  dead.set_model_id(model.model_id());
  dead.set_version(record.version());
  dead.set_manifest_id(record.manifest_id());
  *dead.mutable_packs() = record.packs();
  dead.set_dead_since_us(core_.clock.NowUs());

  CatalogBatch& batch = change.batch;
  batch.Delete(Space::kRecords, keys::Version(model.uid(), record.version()));
  batch.Put(Space::kRecords, keys::DeadCheckpoint(model.uid(), record.version()),
            Encode(dead));
  if (!record.request_id().empty()) {
    // A repeated save with this request_id makes a new version.
    batch.Delete(Space::kRecords, keys::Request(model.uid(), record.request_id()));
  }
  change.event.emplace().set_deleted_version(record.version());
  // Only leases that have expired are left: CheckNotHeld() refuses the others.
  return core_.catalog().Scan(Space::kRecords,
                              PrefixRange(keys::Leases(model.uid(), record.version())),
                              [&](absl::string_view key, absl::string_view) {
                                batch.Delete(Space::kRecords, std::string(key));
                                return true;
                              });
}

absl::StatusOr<std::string> StoredCheckpoints::DeleteRecord(
    absl::string_view model_id, int64_t version, const ChangeOptions& options) {
  std::string uid;
  RETURN_IF_ERROR(
      ChangeModel(core_, model_id, StoreCore::Room::kFreesSpace,
                  [&](ModelChange& change) -> absl::Status {
                    RETURN_IF_ERROR(CheckUid(change.model, options.model_uid));
                    uid = change.model.uid();
                    ASSIGN_OR_RETURN(const v1::CheckpointRecord record,
                                     GetVersion(core_, change.model, version));
                    RETURN_IF_ERROR(CheckGeneration(change.model, record, options));
                    change.skip = options.validate_only;
                    return PlanDeletion(record, change);
                  })
          .status());
  if (!options.validate_only) core_.garbage_possible = true;
  return uid;
}

absl::StatusOr<Freed> StoredCheckpoints::Delete(absl::string_view model_id,
                                                int64_t version,
                                                const ChangeOptions& options) {
  ASSIGN_OR_RETURN(const std::string uid, DeleteRecord(model_id, version, options));
  if (options.validate_only) return Freed();
  uploads_.DeleteIdle(uid, {version});
  return collector_.AfterDeletion(uid, {version});
}

absl::Status StoredCheckpoints::DeleteRecords(const v1::ModelRecord& model,
                                              absl::Span<const SeenVersion> versions,
                                              bool validate_only,
                                              const std::function<bool()>& keep_going,
                                              Deletions& deletions) {
  for (const SeenVersion& seen : versions) {
    if (!keep_going()) return absl::CancelledError("the deletions were stopped");
    const absl::Status status =
        DeleteRecord(model.model_id(), seen.version,
                     {model.uid(), seen.generation, validate_only})
            .status();
    if (status.ok()) {
      deletions.deleted.push_back(seen.version);
    } else if (absl::IsFailedPrecondition(status)) {
      deletions.held.push_back(seen.version);
    } else if (absl::IsAborted(status)) {
      deletions.changed.push_back(seen.version);
    } else if (absl::IsNotFound(status)) {
      // The version may be gone already, which is no error; the model may not.
      ASSIGN_OR_RETURN(const v1::ModelRecord now, GetModel(core_, model.model_id()));
      RETURN_IF_ERROR(CheckUid(now, model.uid()));
    } else {
      return status;
    }
  }
  return absl::OkStatus();
}

// Text for the message of a failed call, which returns no Deletions.
std::string AlreadyDeleted(const std::vector<int64_t>& versions) {
  const size_t named = std::min(versions.size(), kNamedVersions);
  return absl::StrCat(versions.size(),
                      versions.size() == 1 ? " version is already deleted: "
                                           : " versions are already deleted: ",
                      absl::StrJoin(versions.begin(), versions.begin() + named, ", "),
                      versions.size() > named ? ", ..." : "");
}

absl::StatusOr<Checkpoints::Deletions> StoredCheckpoints::DeleteEach(
    const v1::ModelRecord& model, absl::Span<const SeenVersion> versions,
    bool validate_only, const std::function<bool()>& keep_going) {
  Deletions deletions;
  const absl::Status status =
      DeleteRecords(model, versions, validate_only, keep_going, deletions);
  const absl::flat_hash_set<int64_t> gone(deletions.deleted.begin(),
                                          deletions.deleted.end());
  if (validate_only || gone.empty()) {
    RETURN_IF_ERROR(status);
    return deletions;
  }
  // Also if the call failed midway: some versions are deleted.
  uploads_.DeleteIdle(model.uid(), gone);
  if (!status.ok()) return AppendTo(status, AlreadyDeleted(deletions.deleted));
  ASSIGN_OR_RETURN(deletions.freed, collector_.AfterDeletion(model.uid(), gone));
  return deletions;
}

}  // namespace

std::unique_ptr<Checkpoints> MakeCheckpoints(StoreCore* core, UploadTable* uploads,
                                             Collector* collector) {
  return std::make_unique<StoredCheckpoints>(core, uploads, collector);
}

}  // namespace modelstore::storage
