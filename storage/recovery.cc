#include <utility>

#include "absl/container/flat_hash_set.h"
#include "absl/strings/str_cat.h"
#include "storage/keys.h"
#include "storage/parts.h"
#include "storage/random_id.h"
#include "storage/record_codec.h"
#include "storage/resolve.h"
#include "storage/status_macros.h"

namespace modelstore::storage {
namespace {

// Version of the format in storage/FORMAT.md.
constexpr uint32_t kFormat = 1;

// Recovery after a start, in the order of Run().
class Recovery {
 public:
  Recovery(StoreCore& core, UploadTable& uploads) : core_(core), uploads_(uploads) {}
  absl::Status Run();

 private:
  // FAILED_PRECONDITION for a store of another format. Marks a new one.
  absl::Status CheckFormat();
  // Opens the chunk store and drops the packs that the catalog does not name.
  absl::Status OpenChunks();
  // Restores the open uploads, and deletes journal entries whose packs were never
  // published.
  absl::Status RestoreUploads();
  absl::Status RestoreUpload(const v1::UploadRecord& record);

  StoreCore& core_;
  UploadTable& uploads_;
  // Packs of the chunk store, and deletions of stale journal entries.
  absl::flat_hash_set<uint64_t> listed_;
  CatalogBatch stale_;
};

absl::Status Recovery::CheckFormat() {
  ASSIGN_OR_RETURN(const std::optional<v1::StoreRecord> store,
                   GetRecord<v1::StoreRecord>(core_.catalog(), keys::Store()));
  if (store.has_value()) {
    if (store->format() == kFormat) return absl::OkStatus();
    return absl::FailedPreconditionError(
        absl::StrCat("the store has format ", store->format(), ", this program knows ",
                     kFormat, ": use a newer one"));
  }
  v1::StoreRecord fresh;
  fresh.set_format(kFormat);
  fresh.set_uid(RandomHexId());
  CatalogBatch batch;
  batch.Put(Space::kRecords, keys::Store(), Encode(fresh));
  return core_.WriteResolved(batch, Durability::kDurable, StoreCore::Room::kNormalWrite,
                             core_.KeyIs(Space::kRecords, keys::Store(), Encode(fresh)));
}

absl::Status Recovery::OpenChunks() {
  ASSIGN_OR_RETURN(const std::vector<uint64_t> named, core_.NamedPacks());
  RETURN_IF_ERROR(core_.chunks().Reopen(named));
  ASSIGN_OR_RETURN(const std::vector<PackInfo> packs, core_.chunks().ListPacks());
  const absl::flat_hash_set<uint64_t> names(named.begin(), named.end());
  std::vector<uint64_t> unnamed;
  for (const PackInfo& pack : packs) {
    listed_.insert(pack.pack);
    if (!names.contains(pack.pack)) unnamed.push_back(pack.pack);
  }
  RETURN_IF_ERROR(core_.damage.Load());
  RETURN_IF_ERROR(core_.damage.FindLostPacks());
  if (unnamed.empty()) return absl::OkStatus();
  core_.Event(Listener::Severity::kInfo,
              absl::StrCat("dropping ", unnamed.size(), " packs of unfinished saves"));
  // If this fails the collector drops them.
  core_.chunks().DropPacks(unnamed).IgnoreError();
  return absl::OkStatus();
}

absl::Status Recovery::RestoreUpload(const v1::UploadRecord& record) {
  absl::StatusOr<v1::ModelRecord> model = GetModel(core_, record.model_id());
  if (!model.ok() && !absl::IsNotFound(model.status())) return model.status();
  // The model was deleted while the upload was open: it is restored only to be deleted
  // with its packs.
  const bool orphan = !model.ok() || model->uid() != record.model_uid();
  Hold hold;
  std::optional<v1::CheckpointRecord> base;
  if (!orphan && record.base_version() != 0) {
    std::optional<Hold> taken =
        core_.holds.Acquire(record.base_model_uid(), record.base_version());
    ASSIGN_OR_RETURN(base, GetRecord<v1::CheckpointRecord>(
                               core_.catalog(), keys::Version(record.base_model_uid(),
                                                              record.base_version())));
    // If the base was deleted, its record is gone, and the upload must send all of its
    // chunks.
    if (base.has_value() && taken.has_value()) {
      hold = *std::move(taken);
    } else if (taken.has_value()) {
      core_.holds.Retract(*std::move(taken));
    }
  }
  auto upload = std::make_shared<OpenUpload>(
      &core_, &uploads_, record,
      orphan ? DigestAlgorithm::kXxh3_128 : AlgorithmOf(*model), std::move(hold),
      std::move(base));
  RETURN_IF_ERROR(core_.catalog().Scan(
      Space::kRecords, PrefixRange(keys::SealedPacks(record.upload_id())),
      [&](absl::string_view key, absl::string_view value) {
        absl::StatusOr<v1::SealedPackRecord> pack = Decode<v1::SealedPackRecord>(value);
        const uint64_t id = keys::SealedPackOf(key);
        if (pack.ok() && (keys::IsInlinePack(id) || listed_.contains(id))) {
          upload->Restore(*pack);
        } else {
          stale_.Delete(Space::kRecords, std::string(key));
        }
        return true;
      }));
  RETURN_IF_ERROR(core_.catalog().Scan(
      Space::kRecords, PrefixRange(keys::Contributions(record.upload_id())),
      [&](absl::string_view key, absl::string_view value) {
        const std::string first = keys::Contribution(record.upload_id(), 0);
        // Parts have longer keys. They are read at the commit.
        if (key.size() != first.size()) return true;
        absl::StatusOr<v1::ContributionRecord> contribution =
            Decode<v1::ContributionRecord>(value);
        if (contribution.ok()) upload->Restore(keys::ContributionOf(key), *contribution);
        return true;
      }));
  uploads_.Restore(upload);
  if (orphan) uploads_.DeleteOfModel(record.model_uid());
  return absl::OkStatus();
}

absl::Status Recovery::RestoreUploads() {
  std::vector<v1::UploadRecord> records;
  absl::Status status;
  RETURN_IF_ERROR(core_.catalog().Scan(
      Space::kRecords, PrefixRange(keys::AllUploads()),
      [&](absl::string_view, absl::string_view value) {
        absl::StatusOr<v1::UploadRecord> record = Decode<v1::UploadRecord>(value);
        if (!record.ok()) status = record.status();
        // Committed uploads are answered from their rows.
        if (record.ok() && record->committed_version() == 0) {
          records.push_back(*std::move(record));
        }
        return status.ok();
      }));
  RETURN_IF_ERROR(status);
  for (const v1::UploadRecord& record : records) {
    RETURN_IF_ERROR(RestoreUpload(record));
  }
  // The journal names packs before they are published, and these never were. On a full
  // disk the entries are left to the next start, because a failed write would close the
  // catalog.
  if (stale_.empty() || !core_.space.CheckSpace(1).ok()) return absl::OkStatus();
  return core_.catalog().Write(stale_, Durability::kBuffered);
}

absl::Status Recovery::Run() {
  RETURN_IF_ERROR(core_.catalog().Health());
  RETURN_IF_ERROR(CheckFormat());
  RETURN_IF_ERROR(core_.clock.Restore(core_.catalog()));
  RETURN_IF_ERROR(OpenChunks());
  return RestoreUploads();
}

}  // namespace

absl::Status Recover(StoreCore& core, UploadTable& uploads) {
  return Recovery(core, uploads).Run();
}

}  // namespace modelstore::storage
