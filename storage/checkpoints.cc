#include <utility>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "proto/contract/errors.h"
#include "proto/contract/names.h"
#include "storage/collector.h"
#include "storage/keys.h"
#include "storage/parts.h"
#include "storage/record_codec.h"
#include "storage/resolve.h"
#include "storage/status_macros.h"

namespace modelstore::storage {
namespace {

constexpr int kLostRaces = 1000;

class StoredCheckpoints final : public Checkpoints {
 public:
  StoredCheckpoints(StoreCore* core, Collector* collector)
      : core_(*core), collector_(*collector) {}

  absl::StatusOr<v1::CheckpointRecord> Get(absl::string_view model_id,
                                           VersionOrLatest version) override {
    ASSIGN_OR_RETURN(const v1::ModelRecord model, GetModel(core_, model_id));
    return GetVersion(core_, model, version);
  }

  absl::StatusOr<Page<v1::CheckpointRecord>> List(absl::string_view model_id,
                                                  bool newest_first,
                                                  absl::string_view after,
                                                  int limit) override;
  absl::StatusOr<Freed> Delete(absl::string_view model_id, int64_t version,
                               std::optional<uint64_t> generation) override;

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
  // One attempt; ABORTED if another writer of the model was faster.
  absl::Status TryDelete(const v1::ModelRecord& model, const std::string& model_bytes,
                         const v1::CheckpointRecord& record,
                         const std::string& record_bytes);
  absl::StatusOr<int64_t> NewestBut(const v1::ModelRecord& model, int64_t version);

  StoreCore& core_;
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
        page.items.push_back(*std::move(record));
        return true;
      }));
  RETURN_IF_ERROR(status);
  return page;
}

absl::StatusOr<int64_t> StoredCheckpoints::NewestBut(const v1::ModelRecord& model,
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

absl::Status StoredCheckpoints::TryDelete(const v1::ModelRecord& model,
                                          const std::string& model_bytes,
                                          const v1::CheckpointRecord& record,
                                          const std::string& record_bytes) {
  ASSIGN_OR_RETURN(const int64_t newest, NewestBut(model, record.version()));
  v1::ModelRecord changed = model;
  changed.set_latest_version(newest);
  changed.set_checkpoint_count(model.checkpoint_count() - 1);
  changed.set_logical_bytes(model.logical_bytes() - record.logical_bytes());
  changed.set_stored_bytes(model.stored_bytes() - record.stored_bytes());
  changed.set_update_time_us(core_.NowUs());
  changed.set_generation(model.generation() + 1);

  v1::DeadCheckpointRecord dead;
  dead.set_model_uid(model.uid());
  dead.set_model_id(model.model_id());
  dead.set_version(record.version());
  dead.set_manifest_id(record.manifest_id());
  *dead.mutable_packs() = record.packs();
  dead.set_dead_since_us(core_.NowUs());

  const std::string version_key = keys::Version(model.uid(), record.version());
  CatalogBatch batch;
  batch.Expect(Space::kRecords, keys::Model(model.model_id()), model_bytes);
  batch.Expect(Space::kRecords, version_key, record_bytes);
  batch.Put(Space::kRecords, keys::Model(model.model_id()), Encode(changed));
  batch.Delete(Space::kRecords, version_key);
  batch.Put(Space::kRecords, keys::DeadCheckpoint(model.uid(), record.version()),
            Encode(dead));
  if (!record.request_id().empty()) {
    batch.Delete(Space::kRecords, keys::Request(model.uid(), record.request_id()));
  }
  return core_.WriteSettled(batch, Durability::kDurable, StoreCore::Room::kFreesSpace,
                            core_.KeyIs(Space::kRecords, version_key, std::nullopt));
}

absl::StatusOr<Freed> StoredCheckpoints::Delete(absl::string_view model_id,
                                                int64_t version,
                                                std::optional<uint64_t> generation) {
  for (int attempt = 0; attempt < kLostRaces; ++attempt) {
    ASSIGN_OR_RETURN(const std::optional<std::string> model_bytes,
                     core_.catalog().Get(Space::kRecords, keys::Model(model_id)));
    if (!model_bytes.has_value()) return NoSuch("model", ModelName(model_id));
    ASSIGN_OR_RETURN(const v1::ModelRecord model, Decode<v1::ModelRecord>(*model_bytes));
    ASSIGN_OR_RETURN(
        const std::optional<std::string> record_bytes,
        core_.catalog().Get(Space::kRecords, keys::Version(model.uid(), version)));
    if (!record_bytes.has_value()) {
      return NoSuch("checkpoint", CheckpointNameOf(model_id, version));
    }
    ASSIGN_OR_RETURN(const v1::CheckpointRecord record,
                     Decode<v1::CheckpointRecord>(*record_bytes));
    if (generation.has_value() && *generation != record.generation()) {
      return absl::AbortedError(absl::StrCat(CheckpointNameOf(model_id, version),
                                             ": the etag differs: read it again"));
    }
    const absl::Status status = TryDelete(model, *model_bytes, record, *record_bytes);
    if (absl::IsAborted(status)) continue;
    RETURN_IF_ERROR(status);
    core_.garbage_possible = true;
    return collector_.AfterDeletion(model.uid(), version);
  }
  return absl::AbortedError(
      absl::StrCat(ModelName(model_id), ": too many writers commit at once"));
}

}  // namespace

std::unique_ptr<Checkpoints> MakeCheckpoints(StoreCore* core, Collector* collector) {
  return std::make_unique<StoredCheckpoints>(core, collector);
}

}  // namespace modelstore::storage
