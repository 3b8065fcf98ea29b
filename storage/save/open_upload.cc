#include "storage/save/open_upload.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "proto/contract/errors.h"
#include "proto/contract/names.h"
#include "storage/keys.h"
#include "storage/record_codec.h"
#include "storage/save/chunk_digest.h"
#include "storage/save/commit.h"
#include "storage/save/find_missing.h"
#include "storage/status_macros.h"

namespace modelstore::storage {
namespace {

// Time that a commit or deletion waits for another one of the same upload.
constexpr absl::Duration kTurnDeadline = absl::Minutes(2);

}  // namespace

int64_t MinExpiryGain(const v1::UploadRecord& record) {
  // An eighth of the time to live, at least a second.
  return std::max<int64_t>(record.time_to_live_us() / 8, 1'000'000);
}

// See ChunkSink. Keeps the upload object alive. An upload with an open sink does not
// expire.
class UploadSink final : public ChunkSink {
 public:
  explicit UploadSink(std::shared_ptr<OpenUpload> upload)
      : upload_(std::move(upload)), feeder_(&upload_->intake_) {}
  ~UploadSink() override {
    Close().IgnoreError();
    upload_->SinkClosed();
  }

  absl::StatusOr<Digest> Put(const std::optional<Digest>& digest,
                             absl::Span<const absl::string_view> fragments) override {
    ASSIGN_OR_RETURN(const ReceivedChunk chunk,
                     CheckChunk(upload_->algorithm_, digest, fragments));
    ASSIGN_OR_RETURN(const bool taken, upload_->intake_.Put(feeder_, chunk));
    ++counts_.chunks;
    counts_.bytes += chunk.bytes;
    if (!taken) counts_.duplicate_bytes += chunk.bytes;
    return chunk.digest;
  }

  absl::Status Close() override { return upload_->intake_.Seal(feeder_); }
  Counts counts() const override { return counts_; }

 private:
  const std::shared_ptr<OpenUpload> upload_;
  ChunkIntake::Feeder feeder_;
  Counts counts_;
};

OpenUpload::OpenUpload(StoreCore* core, UploadOwner* owner, v1::UploadRecord record,
                       DigestAlgorithm algorithm, Hold base_hold,
                       std::optional<v1::CheckpointRecord> base)
    : core_(core),
      owner_(owner),
      algorithm_(algorithm),
      model_id_(record.model_id()),
      model_uid_(record.model_uid()),
      upload_id_(record.upload_id()),
      base_model_uid_(record.base_model_uid()),
      base_version_(record.base_version()),
      base_(std::move(base)),
      intake_(core, algorithm, this) {
  MutexLock lock(mutex_);
  base_hold_ = std::move(base_hold);
  base_loaded_ = !base_.has_value();
  written_expiry_us_ = record.expire_time_us();
  used_ = core_->options.steady_now();
  record_ = std::move(record);
}

std::string OpenUpload::Name() const { return UploadNameOf(model_id_, upload_id_); }
std::string OpenUpload::RowKey() const { return keys::Upload(model_uid_, upload_id_); }

absl::Status OpenUpload::CheckExists() {
  if (stage_ == Stage::kDeleted) return DoesNotExist("upload", Name());
  return absl::OkStatus();
}

absl::Status OpenUpload::CheckOpen() {
  RETURN_IF_ERROR(CheckExists());
  if (stage_ == Stage::kOpen) {
    if (!in_doubt_) return absl::OkStatus();
    return Unavailable(absl::StrCat("the creation, commit or deletion of upload ", Name(),
                                    " is undecided: repeat it"),
                       1000);
  }
  if (stage_ == Stage::kCommitted) {
    return UploadCommitted(Name(), record_.committed_version());
  }
  return absl::FailedPreconditionError(
      absl::StrCat("upload ", Name(), " is being committed"));
}

void OpenUpload::SetInDoubt() {
  MutexLock lock(mutex_);
  in_doubt_ = true;
}

// Touch() calls it too: a client that comes back after a crash starts with CreateUpload,
// not with the commit, and must not be refused for ever.
//
// kCommitting keeps others out while the catalog is read. If it cannot be read, in_doubt_
// stays set.
void OpenUpload::ResolveUndecided() {
  {
    MutexLock lock(mutex_);
    if (!in_doubt_ || stage_ != Stage::kOpen) return;
    stage_ = Stage::kCommitting;
  }
  EndTurn(StoredStage().value_or(Stage::kOpen));
}

absl::Status OpenUpload::Touch() {
  ResolveUndecided();
  MutexLock lock(mutex_);
  RETURN_IF_ERROR(CheckExists());
  used_ = core_->options.steady_now();
  const int64_t expiry = core_->clock.NowUs() + record_.time_to_live_us();
  record_.set_expire_time_us(std::max(expiry, record_.expire_time_us()));
  // Not the row of a committed upload, which has more than `record_`. Errors are ignored:
  // a later call writes the expiry.
  if (stage_ != Stage::kOpen || in_doubt_ ||
      expiry < written_expiry_us_ + MinExpiryGain(record_) ||
      !core_->space.CheckSpace(1).ok()) {
    return absl::OkStatus();
  }
  CatalogBatch batch;
  batch.Put(Space::kRecords, RowKey(), Encode(record_));
  if (core_->catalog().Write(batch, Durability::kBuffered).ok()) {
    written_expiry_us_ = record_.expire_time_us();
  }
  return absl::OkStatus();
}

v1::UploadRecord OpenUpload::record() {
  MutexLock lock(mutex_);
  return record_;
}

bool OpenUpload::committed() {
  MutexLock lock(mutex_);
  return stage_ == Stage::kCommitted;
}

bool OpenUpload::deleted() {
  MutexLock lock(mutex_);
  return stage_ == Stage::kDeleted;
}

bool OpenUpload::Expired(absl::Time now) {
  MutexLock lock(mutex_);
  // A running stream or commit is a use.
  return open_sinks_ == 0 && stage_ != Stage::kCommitting &&
         absl::FromUnixMicros(record_.expire_time_us()) < now;
}

absl::Duration OpenUpload::IdleForLocked() {
  if (open_sinks_ > 0 || stage_ != Stage::kOpen || in_doubt_) {
    return absl::ZeroDuration();
  }
  return core_->options.steady_now() - used_;
}

absl::Duration OpenUpload::IdleFor() {
  MutexLock lock(mutex_);
  return IdleForLocked();
}

absl::StatusOr<bool> OpenUpload::DeleteIfIdle() {
  {
    MutexLock lock(mutex_);
    const absl::Duration idle = IdleForLocked();
    if (idle == absl::ZeroDuration() || idle < core_->options.upload_min_idle) {
      return false;
    }
    // The check and the change of stage are one step: no use can come in between.
    stage_ = Stage::kCommitting;
  }
  RETURN_IF_ERROR(RunDelete());
  return true;
}

absl::StatusOr<std::shared_ptr<Upload>> OpenUpload::BeginCall() {
  RETURN_IF_ERROR(Touch());
  if (!committed()) return std::shared_ptr<Upload>();
  owner_->Ended(*this);  // its commit may have been undecided until now
  return owner_->OpenCommitted(model_id_, upload_id_);
}

absl::StatusOr<UploadState> OpenUpload::State() {
  ASSIGN_OR_RETURN(const std::shared_ptr<Upload> committed, BeginCall());
  if (committed != nullptr) return committed->State();
  return GetState();
}

UploadState OpenUpload::GetState() {
  UploadState state;
  {
    MutexLock lock(mutex_);
    state.record = record_;
    state.record.set_expire_time_us(core_->clock.ToWallUs(record_.expire_time_us()));
    const absl::Duration idle = IdleForLocked();
    state.idle = idle > absl::ZeroDuration() && idle >= core_->options.upload_min_idle;
    for (const auto& [index, contribution] : contributions_) {
      state.contributions.push_back(
          {index, contribution.complete, contribution.totals.tensors});
    }
  }
  // Read in this order: sealed bytes were received before, so received_bytes is never the
  // smaller.
  state.sealed_bytes = intake_.sealed_bytes();
  state.received_bytes = std::max(intake_.received_bytes(), state.sealed_bytes);
  return state;
}

// A base whose manifest cannot be read is ignored: its chunks must be sent again.
absl::Status OpenUpload::LoadBase() {
  {
    MutexLock lock(mutex_);
    if (base_loaded_) return absl::OkStatus();
  }
  absl::StatusOr<std::shared_ptr<const ChunkIndex>> index =
      core_->manifests.LoadIndex(*base_, algorithm_);
  if (!index.ok() && !absl::IsDataLoss(index.status())) return index.status();
  // Two threads may both get here: a base that is added twice does no harm.
  if (index.ok()) intake_.AddBase(*std::move(index));
  MutexLock lock(mutex_);
  base_loaded_ = true;
  return absl::OkStatus();
}

absl::StatusOr<std::vector<uint32_t>> OpenUpload::FindMissing(absl::string_view digests) {
  ASSIGN_OR_RETURN(const std::shared_ptr<Upload> committed, BeginCall());
  if (committed != nullptr) return committed->FindMissing(digests);
  RETURN_IF_ERROR(LoadBase());
  return FindMissingDigests(algorithm_, digests, [this](const Digest& digest) {
    return intake_.Find(digest).has_value();
  });
}

absl::StatusOr<std::unique_ptr<ChunkSink>> OpenUpload::OpenSink() {
  ASSIGN_OR_RETURN(const std::shared_ptr<Upload> committed, BeginCall());
  if (committed != nullptr) return committed->OpenSink();
  RETURN_IF_ERROR(LoadBase());
  MutexLock lock(mutex_);
  RETURN_IF_ERROR(CheckOpen());
  // Under the same lock as CheckOpen(): a deletion of idle uploads sees the sink.
  ++open_sinks_;
  return std::make_unique<UploadSink>(shared_from_this());
}

void OpenUpload::SinkClosed() {
  MutexLock lock(mutex_);
  --open_sinks_;
  used_ = core_->options.steady_now();
  // The end of a stream counts as a use.
  const int64_t expiry = core_->clock.NowUs() + record_.time_to_live_us();
  record_.set_expire_time_us(std::max(expiry, record_.expire_time_us()));
}

// No lock: the turn's SealAll() calls it too. A deletion that runs cannot be overtaken,
// as it waits in AbandonOpen() until nothing is being sealed.
absl::Status OpenUpload::Record(const v1::SealedPackRecord& record,
                                const std::vector<std::string>& inline_chunks) {
  CatalogBatch batch;
  for (size_t c = 0; c < inline_chunks.size(); ++c) {
    batch.Put(Space::kChunks, keys::Chunk(record.pack(), static_cast<uint32_t>(c)),
              inline_chunks[c]);
  }
  const std::string key = keys::SealedPack(upload_id_, record.pack());
  const std::string value = Encode(record);
  batch.Put(Space::kRecords, key, value);
  return core_->WriteResolved(batch, Durability::kDurable, StoreCore::Room::kNormalWrite,
                              core_->KeyIs(Space::kRecords, key, value));
}

// A repeated commit or deletion waits for the first one and then finds its result.
absl::Status OpenUpload::TakeTurn() {
  MutexLock lock(mutex_);
  if (!changed_.WaitFor(mutex_, kTurnDeadline, [this]() REQUIRES(mutex_) {
        return stage_ != Stage::kCommitting;
      })) {
    return Overloaded(
        absl::StrCat("upload ", Name(), " is still being committed: retry later"));
  }
  RETURN_IF_ERROR(CheckExists());
  if (stage_ == Stage::kOpen) stage_ = Stage::kCommitting;
  return absl::OkStatus();
}

void OpenUpload::EndTurn(Stage stage) {
  MutexLock lock(mutex_);
  stage_ = stage;
  // OK if the upload is open again: opens the intake.
  intake_.Refuse(CheckOpen());
  if (stage != Stage::kOpen) {
    base_hold_ = Hold();
    intake_.ForgetChunks();
  }
  changed_.NotifyAll();
}

absl::StatusOr<OpenUpload::Stage> OpenUpload::StoredStage() {
  ASSIGN_OR_RETURN(const std::optional<v1::UploadRecord> row,
                   GetRecord<v1::UploadRecord>(core_->catalog(), RowKey()));
  MutexLock lock(mutex_);
  in_doubt_ = false;
  if (!row.has_value()) return Stage::kDeleted;
  if (row->committed_version() == 0) return Stage::kOpen;
  record_.set_committed_version(row->committed_version());
  return Stage::kCommitted;
}

absl::StatusOr<v1::CheckpointRecord> OpenUpload::CommittedRecord(int64_t version) {
  ASSIGN_OR_RETURN(std::optional<v1::CheckpointRecord> record,
                   GetRecord<v1::CheckpointRecord>(core_->catalog(),
                                                   keys::Version(model_uid_, version)));
  if (!record.has_value()) {
    return DoesNotExist("checkpoint", CheckpointNameOf(model_id_, version));
  }
  return *std::move(record);
}

absl::StatusOr<v1::CheckpointRecord> OpenUpload::Commit(
    std::optional<int64_t> expected_latest_version, bool allow_empty) {
  ASSIGN_OR_RETURN(const std::shared_ptr<Upload> committed, BeginCall());
  if (committed != nullptr) {
    return committed->Commit(expected_latest_version, allow_empty);
  }
  absl::StatusOr<v1::CheckpointRecord> version =
      CommitInTurn(expected_latest_version, allow_empty);
  if (version.ok()) owner_->Ended(*this);
  return version;
}

absl::StatusOr<v1::CheckpointRecord> OpenUpload::CommitInTurn(
    std::optional<int64_t> expected_latest_version, bool allow_empty) {
  RETURN_IF_ERROR(TakeTurn());
  // Another thread committed it while this one waited for its turn.
  if (committed()) return CommittedRecord(record().committed_version());
  // The stage in memory may be older than the catalog's if an earlier write was
  // undecided.
  const absl::StatusOr<Stage> stored = StoredStage();
  if (stored.ok() && *stored == Stage::kOpen) {
    absl::StatusOr<v1::CheckpointRecord> result =
        RunCommit(expected_latest_version, allow_empty);
    if (IsUndecided(result.status())) SetInDoubt();
    EndTurn(result.ok() ? Stage::kCommitted : Stage::kOpen);
    return result;
  }
  EndTurn(stored.value_or(Stage::kOpen));
  if (!stored.ok()) return stored.status();
  if (*stored == Stage::kDeleted) return DoesNotExist("upload", Name());
  return CommittedRecord(record().committed_version());
}

absl::StatusOr<v1::CheckpointRecord> OpenUpload::RunCommit(
    std::optional<int64_t> expected, bool allow_empty) {
  RETURN_IF_ERROR(CheckContributions());
  RETURN_IF_ERROR(LoadBase());
  intake_.Refuse(absl::FailedPreconditionError(
      absl::StrCat("upload ", Name(), " is being committed")));
  // From here on no chunk is added, so that the manifest is checked against a fixed set.
  RETURN_IF_ERROR(intake_.SealAll());
  ManifestBuilder builder(algorithm_);
  RETURN_IF_ERROR(ReadManifest(builder));
  ASSIGN_OR_RETURN(
      const BuiltManifest manifest,
      builder.Build([this](const Digest& digest) { return intake_.Find(digest); },
                    [this](ChunkId chunk, const Digest& digest) {
                      return core_->ReadChecked(chunk, digest);
                    }));
  CatalogBatch rows;
  const std::vector<ChunkIntake::Sealed> sealed = intake_.sealed();
  // The batch of the commit also deletes the journal and the contributions.
  RETURN_IF_ERROR(DeleteRows(rows, sealed));
  const v1::UploadRecord open = record();
  const std::vector<int64_t> tensor_counts = TensorCounts();
  CommitPlan plan;
  plan.model_id = model_id_;
  plan.model_uid = model_uid_;
  plan.metadata = open.metadata();
  plan.base_model_uid = open.base_model_uid();
  plan.base_model_id = open.base_model_id();
  plan.base_version = open.base_version();
  plan.request_id = open.request_id();
  plan.request_digest = open.request_digest();
  plan.upload_id = upload_id_;
  plan.expected_latest_version = expected;
  plan.allow_empty = allow_empty;
  plan.manifest = &manifest;
  plan.sealed = sealed;
  plan.renewals = intake_.Renewals();
  plan.further_changes = [&](const v1::CheckpointRecord& checkpoint,
                             CatalogBatch& batch) {
    for (const CatalogBatch::Change& change : rows.changes()) {
      batch.Delete(change.space, change.key);
    }
    v1::UploadRecord committed = open;
    committed.clear_metadata();
    committed.set_committed_version(checkpoint.version());
    committed.set_committed_bytes(intake_.sealed_bytes());
    for (const int64_t tensors : tensor_counts) {
      committed.add_committed_tensor_counts(tensors);
    }
    batch.Put(Space::kRecords, RowKey(), Encode(committed));
  };
  ASSIGN_OR_RETURN(Committed committed, CommitCheckpoint(*core_, plan));
  // Another save of the same request has made the version. This upload's packs are
  // garbage: deletes its rows and points its own row at that version.
  if (!committed.fresh) {
    CatalogBatch batch;
    RETURN_IF_ERROR(DeleteRows(batch, {}));
    plan.further_changes(committed.checkpoint, batch);
    RETURN_IF_ERROR(core_->catalog().Write(batch, Durability::kDurable));
  }
  MutexLock lock(mutex_);
  record_.set_committed_version(committed.checkpoint.version());
  return std::move(committed.checkpoint);
}

// Adds the deletion of the journal and the contributions to `batch`; a committed upload
// has none. Also deletes the chunks of inline packs, except those of `kept`, which the
// commit decides on. Reads the journal rather than the intake, because a pack whose write
// seemed to fail may be in the journal alone.
absl::Status OpenUpload::DeleteRows(CatalogBatch& batch,
                                    const std::vector<ChunkIntake::Sealed>& kept) {
  RETURN_IF_ERROR(core_->catalog().Scan(
      Space::kRecords, PrefixRange(keys::SealedPacks(upload_id_)),
      [&](absl::string_view key, absl::string_view value) {
        batch.Delete(Space::kRecords, std::string(key));
        const uint64_t pack = keys::SealedPackOf(key);
        if (!keys::IsInlinePack(pack) ||
            std::any_of(kept.begin(), kept.end(), [pack](const ChunkIntake::Sealed& one) {
              return one.pack == pack;
            })) {
          return true;
        }
        absl::StatusOr<v1::SealedPackRecord> record = Decode<v1::SealedPackRecord>(value);
        const int count = record.ok() ? record->sizes_size() : 0;
        for (int c = 0; c < count; ++c) {
          batch.Delete(Space::kChunks, keys::Chunk(pack, static_cast<uint32_t>(c)));
        }
        return true;
      }));
  return core_->catalog().Scan(Space::kRecords,
                               PrefixRange(keys::Contributions(upload_id_)),
                               [&](absl::string_view key, absl::string_view) {
                                 batch.Delete(Space::kRecords, std::string(key));
                                 return true;
                               });
}

absl::Status OpenUpload::Delete() {
  ASSIGN_OR_RETURN(const std::shared_ptr<Upload> committed, BeginCall());
  if (committed != nullptr) return committed->Delete();
  RETURN_IF_ERROR(Discard());
  owner_->Ended(*this);
  return absl::OkStatus();
}

absl::Status OpenUpload::Discard() {
  RETURN_IF_ERROR(TakeTurn());
  return RunDelete();
}

absl::Status OpenUpload::RunDelete() {
  const absl::StatusOr<Stage> stored = StoredStage();
  absl::Status status = stored.status();
  if (stored.ok() && *stored != Stage::kDeleted) status = DeleteStored(*stored);
  if (IsUndecided(status)) SetInDoubt();
  // After a failure the upload is what it was.
  const Stage before =
      record().committed_version() != 0 ? Stage::kCommitted : Stage::kOpen;
  EndTurn(status.ok() ? Stage::kDeleted : before);
  core_->garbage_possible = true;
  return status;
}

absl::Status OpenUpload::DeleteStored(Stage stored) {
  intake_.Refuse(DoesNotExist("upload", Name()));
  RETURN_IF_ERROR(intake_.AbandonOpen());
  absl::Status status;
  do {
    CatalogBatch batch;
    RETURN_IF_ERROR(DeleteRows(batch, {}));
    batch.Delete(Space::kRecords, RowKey());
    if (stored == Stage::kOpen) RETURN_IF_ERROR(DeleteRequest(batch));
    status =
        core_->WriteResolved(batch, Durability::kDurable, StoreCore::Room::kFreesSpace,
                             core_->KeyIs(Space::kRecords, RowKey(), std::nullopt));
    // ABORTED means that another save of the same request has changed the request's row
    // since DeleteRequest() read it.
  } while (absl::IsAborted(status));
  return status;
}

// Leaves the row alone if it belongs to a version, or to another upload of the same
// request.
absl::Status OpenUpload::DeleteRequest(CatalogBatch& batch) {
  const std::string request_id = record().request_id();
  if (request_id.empty()) return absl::OkStatus();
  const std::string key = keys::Request(model_uid_, request_id);
  ASSIGN_OR_RETURN(const std::optional<std::string> bytes,
                   core_->catalog().Get(Space::kRecords, key));
  if (!bytes.has_value()) return absl::OkStatus();
  const absl::StatusOr<v1::RequestRecord> row = Decode<v1::RequestRecord>(*bytes);
  if (row.ok() && row->upload_id() == upload_id_ && row->version() == 0) {
    batch.Expect(Space::kRecords, key, *bytes);
    batch.Delete(Space::kRecords, key);
  }
  return absl::OkStatus();
}

}  // namespace modelstore::storage
