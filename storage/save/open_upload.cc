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

constexpr absl::Duration kTurnDeadline = absl::Minutes(2);

}  // namespace

int64_t MinExpiryGain(const v1::UploadRecord& record) {
  return std::max<int64_t>(record.time_to_live_us() / 8, 1'000'000);
}

// Brings the chunks of one stream into an upload.
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

// Called by Touch() too: a client that comes back after a crash begins with
// CreateUpload, not with the commit, and would be refused for good.
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
  // Not that of a committed one, which holds more than the record in memory.
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
  // In this order: what is sealed was received before.
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

// One commit or deletion at a time; a repeated one waits for the first.
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
  if (committed()) return CommittedRecord(record().committed_version());
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

// Deletes the journal and the contributions; a committed upload has none. The chunks of
// inline packs go too, except those of `kept`, which the commit decides on: a pack whose
// record seemed to fail is in the journal alone.
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
    // Aborted: a save of the same request has made a version meanwhile.
  } while (absl::IsAborted(status));
  return status;
}

// Not the row of a version or an upload that another call has made of the same request.
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
