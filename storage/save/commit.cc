#include "storage/save/commit.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "proto/contract/errors.h"
#include "proto/contract/names.h"
#include "storage/keys.h"
#include "storage/model_change.h"
#include "storage/random_id.h"
#include "storage/record_codec.h"
#include "storage/status_macros.h"

namespace modelstore::storage {
namespace {

// Manifests up to this size go in the commit's own batch. Larger ones are written before
// it, so that the batch of the compare-and-set stays small.
constexpr int64_t kInBatchManifestBytes = int64_t{256} << 10;
// Bytes of pages in one batch; attempts lost to other writers of the model; reopenings of
// storage in one commit.
constexpr size_t kPageBatchBytes = size_t{4} << 20;
constexpr int kMaxAttempts = 1000;
constexpr int kMaxReopens = 3;

bool Names(const BuiltManifest& manifest, ChunkId chunk) {
  return manifest.chunks.contains({chunk.pack, chunk.sequence});
}

// One commit, for one call of Run().
class Commit {
 public:
  Commit(StoreCore& core, const CommitPlan& plan)
      : core_(core), plan_(plan), manifest_(*plan.manifest) {}
  absl::StatusOr<Committed> Run();

 private:
  // Reads the model, whose bytes the batch will expect, or takes `create`. NOT_FOUND.
  absl::Status ReadModel();
  // Returns the version that an earlier run of the same request committed, if any.
  // INVALID_ARGUMENT if the request_id was used for other content.
  absl::StatusOr<std::optional<v1::CheckpointRecord>> Earlier();
  absl::Status WritePagesBeforeCommit();
  // Makes `batch` apply only if the page is still stored, and with it all pages written
  // before it.
  void ExpectPage(size_t page, CatalogBatch& batch) const;
  bool LastPageIsThere();
  // Fills in the version's record and changes the model's for one attempt.
  void FillRecord();
  CatalogBatch MakeBatch() const;
  // Adds the use of each pack, the records of new packs, and inline chunks.
  void AddPacks(CatalogBatch& batch) const;
  // True if the batch of the last attempt is in the catalog.
  absl::StatusOr<bool> WasApplied();
  bool IsEmpty() const {
    return manifest_.tensor_count == 0 && manifest_.sections.empty() &&
           manifest_.attachments.empty() && plan_.metadata.architecture().empty();
  }
  // UNAVAILABLE if damage was found since the manifest was built: Repair may have
  // removed the damaged chunks from the base, and nothing else keeps them.
  absl::Status CheckNotDamaged() const;
  bool HasPagesBeforeCommit() const {
    return manifest_.page_bytes > kInBatchManifestBytes;
  }

  StoreCore& core_;
  const CommitPlan& plan_;
  const BuiltManifest& manifest_;
  const uint64_t manifest_id_ = RandomNumber();
  RunningIds::Entry running_;
  std::optional<std::string> model_bytes_;
  v1::ModelRecord model_;
  v1::CheckpointRecord record_;
};

absl::Status Commit::ReadModel() {
  ASSIGN_OR_RETURN(model_bytes_,
                   core_.catalog().Get(Space::kRecords, keys::Model(plan_.model_id)));
  if (!model_bytes_.has_value()) {
    if (!plan_.create.has_value() || !plan_.model_uid.empty()) {
      return DoesNotExist("model", ModelName(plan_.model_id));
    }
    model_ = *plan_.create;
    return absl::OkStatus();
  }
  ASSIGN_OR_RETURN(model_, Decode<v1::ModelRecord>(*model_bytes_));
  if (!plan_.model_uid.empty() && model_.uid() != plan_.model_uid) {
    return DoesNotExist("model", ModelName(plan_.model_id));
  }
  return absl::OkStatus();
}

absl::StatusOr<std::optional<v1::CheckpointRecord>> Commit::Earlier() {
  std::optional<v1::CheckpointRecord> none;
  if (plan_.request_id.empty() || !model_bytes_.has_value()) return none;
  ASSIGN_OR_RETURN(const std::optional<v1::RequestRecord> request,
                   GetRecord<v1::RequestRecord>(
                       core_.catalog(), keys::Request(model_.uid(), plan_.request_id)));
  if (!request.has_value()) return none;
  const bool same_request = request->request_digest() == plan_.request_digest;
  if (request->version() == 0) {
    if (same_request) return none;
  } else if (same_request &&
             (plan_.request_decides || request->manifest_digest() == manifest_.digest)) {
    return GetRecord<v1::CheckpointRecord>(
        core_.catalog(), keys::Version(model_.uid(), request->version()));
  }
  return RequestIdReused(
      plan_.request_id,
      request->version() == 0
          ? std::string("other content")
          : absl::StrCat("other content for version ", request->version()));
}

absl::Status Commit::CheckNotDamaged() const {
  if (!core_.damage.any()) return absl::OkStatus();
  for (const auto& [pack, sequence] : manifest_.chunks) {
    if (!core_.damage.Contains({pack, sequence})) continue;
    return Unavailable("a stored chunk that the save shares is damaged; send it again",
                       1000);
  }
  return absl::OkStatus();
}

void Commit::ExpectPage(size_t page, CatalogBatch& batch) const {
  batch.Expect(Space::kManifests,
               keys::ManifestPage(manifest_id_, static_cast<uint32_t>(page)),
               manifest_.pages[page]);
}

bool Commit::LastPageIsThere() {
  const absl::StatusOr<std::optional<std::string>> page = core_.catalog().Get(
      Space::kManifests,
      keys::ManifestPage(manifest_id_,
                         static_cast<uint32_t>(manifest_.pages.size() - 1)));
  return page.ok() && page->has_value();
}

// Writes the pages unsynced: the sync of the commit covers them. Storage that is reopened
// meanwhile, for another caller's fault, may lose the last buffered writes. So each
// batch, and the commit's, expects a page of the batch before it. The RunningManifest row
// lets the collector find the pages if no commit follows.
absl::Status Commit::WritePagesBeforeCommit() {
  CatalogBatch batch;
  size_t bytes = 0;
  batch.Put(Space::kRecords, keys::RunningManifest(manifest_id_), "");
  for (size_t p = 0; p < manifest_.pages.size(); ++p) {
    batch.Put(Space::kManifests,
              keys::ManifestPage(manifest_id_, static_cast<uint32_t>(p)),
              manifest_.pages[p]);
    bytes += manifest_.pages[p].size();
    if (bytes < kPageBatchBytes && p + 1 < manifest_.pages.size()) continue;
    RETURN_IF_ERROR(core_.catalog().Write(batch, Durability::kBuffered));
    batch = {};
    ExpectPage(p, batch);
    bytes = 0;
  }
  return absl::OkStatus();
}

void Commit::FillRecord() {
  record_.Clear();
  record_.set_version(model_.next_version());
  record_.set_manifest_id(manifest_id_);
  record_.set_manifest_pages(static_cast<uint32_t>(manifest_.pages.size()));
  record_.set_manifest_digest(manifest_.digest);
  *record_.mutable_metadata() = plan_.metadata;
  record_.set_base_model_uid(plan_.base_model_uid);
  record_.set_base_model_id(plan_.base_model_id);
  record_.set_base_version(plan_.base_version);
  record_.set_request_id(plan_.request_id);
  record_.set_request_digest(plan_.request_digest);
  record_.set_create_time_us(core_.NowUs());
  record_.set_tensor_count(manifest_.tensor_count);
  record_.set_logical_bytes(manifest_.logical_bytes);
  record_.set_generation(1);
  for (const auto& section : manifest_.sections) *record_.add_sections() = section;
  for (const auto& attachment : manifest_.attachments) {
    *record_.add_attachments() = attachment;
  }
  for (const auto& [pack, use] : manifest_.packs) record_.add_packs(pack);
  // Counts only chunks that the manifest names: a pack may also hold chunks that the
  // client sent and did not use.
  int64_t stored = 0;
  for (const ChunkIntake::Sealed& own : plan_.sealed) {
    auto used = manifest_.packs.find(own.pack);
    if (used != manifest_.packs.end()) stored += used->second.used_bytes;
  }
  record_.set_stored_bytes(stored);
  int64_t renewed = 0;
  for (const Renewal& renewal : plan_.renewals) {
    if (Names(manifest_, renewal.copy.copy.place)) renewed += renewal.bytes;
  }
  record_.set_damaged_base_bytes(std::min(renewed, stored));

  model_.set_latest_version(record_.version());
  model_.set_next_version(record_.version() + 1);
  model_.set_checkpoint_count(model_.checkpoint_count() + 1);
  model_.set_logical_bytes(model_.logical_bytes() + record_.logical_bytes());
  model_.set_stored_bytes(model_.stored_bytes() + stored);
  model_.set_update_time_us(record_.create_time_us());
  model_.set_generation(model_.generation() + 1);
}

void Commit::AddPacks(CatalogBatch& batch) const {
  for (const auto& [pack, use] : manifest_.packs) {
    v1::PackUseRecord record;
    record.set_used_bytes(use.used_bytes);
    batch.Put(Space::kRecords, keys::PackUse(pack, model_.uid(), record_.version()),
              Encode(record));
  }
  for (const ChunkIntake::Sealed& own : plan_.sealed) {
    const bool used = manifest_.packs.contains(own.pack);
    if (used) {
      v1::PackRecord record;
      record.set_chunk_bytes(own.bytes);
      record.set_chunk_count(own.chunks);
      batch.Put(Space::kRecords, keys::Pack(own.pack), Encode(record));
    }
    if (!keys::IsInlinePack(own.pack)) continue;
    // Inline chunks of a one-shot save are not stored yet: writes them if the pack is
    // used. Those of an upload were stored with its journal: deletes them if the pack is
    // not used.
    for (uint32_t c = 0; c < own.chunks; ++c) {
      if (used && !own.inline_chunks.empty()) {
        batch.Put(Space::kChunks, keys::Chunk(own.pack, c), own.inline_chunks[c]);
      } else if (!used && own.inline_chunks.empty()) {
        batch.Delete(Space::kChunks, keys::Chunk(own.pack, c));
      }
    }
  }
}

CatalogBatch Commit::MakeBatch() const {
  CatalogBatch batch;
  const std::string model_key = keys::Model(plan_.model_id);
  // The compare-and-set: any change of the model since ReadModel() refuses the batch.
  batch.Expect(Space::kRecords, model_key, model_bytes_);
  batch.Put(Space::kRecords, model_key, Encode(model_));
  batch.Put(Space::kRecords, keys::Version(model_.uid(), record_.version()),
            Encode(record_));
  if (!plan_.request_id.empty()) {
    v1::RequestRecord request;
    request.set_request_digest(plan_.request_digest);
    request.set_upload_id(plan_.upload_id);
    request.set_version(record_.version());
    request.set_manifest_digest(manifest_.digest);
    batch.Put(Space::kRecords, keys::Request(model_.uid(), plan_.request_id),
              Encode(request));
  }
  if (HasPagesBeforeCommit()) {
    ExpectPage(manifest_.pages.size() - 1, batch);
    batch.Delete(Space::kRecords, keys::RunningManifest(manifest_id_));
  } else {
    for (size_t p = 0; p < manifest_.pages.size(); ++p) {
      batch.Put(Space::kManifests,
                keys::ManifestPage(manifest_id_, static_cast<uint32_t>(p)),
                manifest_.pages[p]);
    }
  }
  AddPacks(batch);
  v1::EventRecord event;
  event.set_committed_version(record_.version());
  AddEvent(model_, event, batch);
  if (plan_.further_changes) plan_.further_changes(record_, batch);
  return batch;
}

// Each commit draws its own manifest id, so an equal id means that this commit wrote the
// version.
absl::StatusOr<bool> Commit::WasApplied() {
  ASSIGN_OR_RETURN(const std::optional<v1::CheckpointRecord> found,
                   GetRecord<v1::CheckpointRecord>(
                       core_.catalog(), keys::Version(model_.uid(), record_.version())));
  return found.has_value() && found->manifest_id() == manifest_id_;
}

absl::StatusOr<Committed> Commit::Run() {
  if (HasPagesBeforeCommit()) running_ = core_.running_manifests.Enter(manifest_id_);
  bool pages_written = false;
  int reopenings = 0;
  // Each round reads the model, checks the preconditions and tries one batch. Lost races
  // and reopenings have separate limits.
  for (int races = 0; races < kMaxAttempts;) {
    absl::Status status = ReadModel();
    if (status.ok()) {
      // Before the preconditions: a repeated request succeeds even if they no longer
      // hold.
      ASSIGN_OR_RETURN(std::optional<v1::CheckpointRecord> earlier, Earlier());
      if (earlier.has_value()) return Committed{*std::move(earlier), model_.uid(), false};
      if (IsEmpty() && !plan_.allow_empty) {
        return InvalidField("allow_empty",
                            "must be set for a version without tensors, sections, "
                            "attachments and architecture");
      }
      if (plan_.expected_latest_version.has_value() &&
          model_.latest_version() != *plan_.expected_latest_version) {
        return LatestVersionDiffers(ModelName(plan_.model_id),
                                    *plan_.expected_latest_version,
                                    model_.latest_version());
      }
      if (HasPagesBeforeCommit() && !pages_written) status = WritePagesBeforeCommit();
    }
    if (status.ok()) {
      pages_written = true;
      RETURN_IF_ERROR(CheckNotDamaged());
      FillRecord();
      status = core_.catalog().Write(MakeBatch(), Durability::kDurable);
      if (status.ok()) return Committed{std::move(record_), model_.uid(), true};
    }
    if (absl::IsAborted(status)) {
      // Another writer changed the model, or a reopening lost pages.
      ++races;
      pages_written = pages_written && HasPagesBeforeCommit() && LastPageIsThere();
      continue;
    }
    if (!absl::IsUnavailable(status)) return status;
    // Pages that were only buffered may be gone after a reopening.
    pages_written = false;
    const bool undecided = IsUndecided(status);
    if (absl::Status reopened = core_.ReopenIfClosed(); !reopened.ok()) {
      return undecided ? UndecidedError(reopened.message()) : reopened;
    }
    if (undecided) {
      absl::StatusOr<bool> applied = WasApplied();
      if (!applied.ok()) return UndecidedError(applied.status().message());
      if (*applied) return Committed{std::move(record_), model_.uid(), true};
    }
    // The catalog reports a full disk like any other fault: returns the more useful
    // error.
    RETURN_IF_ERROR(core_.space.CheckSpace(manifest_.page_bytes));
    if (++reopenings > kMaxReopens) {
      return Unavailable(absl::StrCat("nothing was changed: ", status.message()), 1000);
    }
  }
  return Overloaded(absl::StrCat(ModelName(plan_.model_id), " got no new version: ",
                                 kMaxAttempts, " other changes came first: retry later"));
}

}  // namespace

v1::ModelRecord NewModelRecord(const StoreCore& core, const v1::ModelRecord& given) {
  v1::ModelRecord model;
  model.set_uid(RandomHexId());
  model.set_model_id(given.model_id());
  model.set_digest_algorithm(given.digest_algorithm() == 0 ? 1
                                                           : given.digest_algorithm());
  model.set_description(given.description());
  *model.mutable_labels() = given.labels();
  model.set_extra(given.extra());
  model.set_next_version(1);
  model.set_create_time_us(core.NowUs());
  model.set_update_time_us(model.create_time_us());
  model.set_generation(1);
  return model;
}

absl::StatusOr<Committed> CommitCheckpoint(StoreCore& core, const CommitPlan& plan) {
  Commit commit(core, plan);
  absl::StatusOr<Committed> committed = commit.Run();
  // The commit, or its failure, may have left packs, pages and chunks unused.
  core.garbage_possible = true;
  if (committed.ok() && committed->fresh) {
    core.Changed(committed->model_uid);
    // Repair gives the copies to the older versions that still name the damaged chunks.
    std::vector<DamagedChunks::NewCopy> copies;
    for (const Renewal& renewal : plan.renewals) {
      if (Names(*plan.manifest, renewal.copy.copy.place)) copies.push_back(renewal.copy);
    }
    core.damage.AddCopies(copies);
  }
  return committed;
}

}  // namespace modelstore::storage
