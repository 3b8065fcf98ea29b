#include "storage/save/committed_uploads.h"

#include <algorithm>
#include <string>
#include <utility>

#include "proto/contract/errors.h"
#include "proto/contract/names.h"
#include "storage/keys.h"
#include "storage/record_codec.h"
#include "storage/resolve.h"
#include "storage/save/open_upload.h"
#include "storage/status_macros.h"

namespace modelstore::storage {
namespace {

// Rows that one sweep deletes; the next sweep deletes further ones.
constexpr size_t kSweepBatchRows = 1000;

}  // namespace

// Answers for one committed upload. Reads the row at each call, because another caller
// may have deleted it or it may have expired.
class CommittedUploads::Handle final : public Upload {
 public:
  Handle(CommittedUploads* uploads, absl::string_view model_id,
         absl::string_view upload_id)
      : uploads_(*uploads), model_id_(model_id), upload_id_(upload_id) {}

  absl::StatusOr<UploadState> State() override {
    ASSIGN_OR_RETURN(v1::UploadRecord row, Row());
    return uploads_.State(std::move(row));
  }
  absl::StatusOr<std::vector<uint32_t>> FindMissing(absl::string_view) override {
    return Refuse();
  }
  absl::Status AddManifest(uint32_t, const ManifestPart&, bool, bool) override {
    return Refuse();
  }
  absl::StatusOr<std::unique_ptr<ChunkSink>> OpenSink() override { return Refuse(); }
  absl::StatusOr<v1::CheckpointRecord> Commit(std::optional<int64_t>, bool) override {
    ASSIGN_OR_RETURN(const v1::UploadRecord row, Row());
    return uploads_.Version(row);
  }
  absl::Status Delete() override {
    ASSIGN_OR_RETURN(const v1::UploadRecord row, Row());
    return uploads_.Delete(row);
  }

 private:
  absl::StatusOr<v1::UploadRecord> Row() {
    return uploads_.FindNamed(model_id_, upload_id_);
  }
  absl::Status Refuse() {
    ASSIGN_OR_RETURN(const v1::UploadRecord row, Row());
    return UploadCommitted(UploadNameOf(model_id_, upload_id_), row.committed_version());
  }

  CommittedUploads& uploads_;
  const std::string model_id_;
  const std::string upload_id_;
};

absl::StatusOr<std::shared_ptr<Upload>> CommittedUploads::Open(
    absl::string_view model_id, absl::string_view upload_id) {
  RETURN_IF_ERROR(FindNamed(model_id, upload_id).status());
  return std::make_shared<Handle>(this, model_id, upload_id);
}

absl::StatusOr<v1::UploadRecord> CommittedUploads::FindNamed(
    absl::string_view model_id, absl::string_view upload_id) {
  absl::StatusOr<v1::ModelRecord> model = GetModel(core_, model_id);
  if (!model.ok() && !absl::IsNotFound(model.status())) return model.status();
  std::optional<v1::UploadRecord> row;
  if (model.ok()) {
    ASSIGN_OR_RETURN(row, Find(model->uid(), upload_id));
  }
  if (row.has_value()) return *std::move(row);
  return DoesNotExist("upload", UploadNameOf(model_id, upload_id));
}

absl::StatusOr<std::optional<v1::UploadRecord>> CommittedUploads::Find(
    absl::string_view model_uid, absl::string_view upload_id) {
  const std::optional<v1::UploadRecord> none;
  if (upload_id.empty()) return none;
  const std::string key = keys::Upload(model_uid, upload_id);
  ASSIGN_OR_RETURN(const std::optional<std::string> bytes,
                   core_.catalog().Get(Space::kRecords, key));
  if (!bytes.has_value()) return none;
  ASSIGN_OR_RETURN(v1::UploadRecord row, Decode<v1::UploadRecord>(*bytes));
  if (row.committed_version() == 0) return none;
  const int64_t expiry = core_.clock.NowUs() + row.time_to_live_us();
  // Writes the new expiry only if it moved enough, and ignores errors: the row then
  // expires earlier, which costs only the answer to a repeated call.
  if (expiry > row.expire_time_us() + MinExpiryGain(row) &&
      core_.space.CheckSpace(1).ok()) {
    row.set_expire_time_us(expiry);
    CatalogBatch batch;
    // Does not bring back a row that was deleted meanwhile.
    batch.Expect(Space::kRecords, key, *bytes);
    batch.Put(Space::kRecords, key, Encode(row));
    core_.catalog().Write(batch, Durability::kBuffered).IgnoreError();
  }
  return std::optional<v1::UploadRecord>(std::move(row));
}

absl::StatusOr<UploadState> CommittedUploads::State(v1::UploadRecord row) {
  UploadState state;
  state.sealed_bytes = state.received_bytes = row.committed_bytes();
  for (int c = 0; c < row.committed_tensor_counts_size(); ++c) {
    state.contributions.push_back(
        {static_cast<uint32_t>(c), true, row.committed_tensor_counts(c)});
  }
  absl::StatusOr<v1::CheckpointRecord> version = Version(row);
  // The metadata of a deleted version no longer exists.
  if (!version.ok() && !absl::IsNotFound(version.status())) return version.status();
  if (version.ok()) row.mutable_metadata()->Swap(version->mutable_metadata());
  row.set_expire_time_us(core_.clock.ToWallUs(row.expire_time_us()));
  state.record = std::move(row);
  return state;
}

absl::StatusOr<v1::CheckpointRecord> CommittedUploads::Version(
    const v1::UploadRecord& row) {
  ASSIGN_OR_RETURN(
      std::optional<v1::CheckpointRecord> version,
      GetRecord<v1::CheckpointRecord>(
          core_.catalog(), keys::Version(row.model_uid(), row.committed_version())));
  if (version.has_value()) return *std::move(version);
  return DoesNotExist("checkpoint",
                      CheckpointNameOf(row.model_id(), row.committed_version()));
}

absl::Status CommittedUploads::Delete(const v1::UploadRecord& row) {
  CatalogBatch batch;
  const std::string key = keys::Upload(row.model_uid(), row.upload_id());
  batch.Delete(Space::kRecords, key);
  return core_.WriteResolved(batch, Durability::kDurable, StoreCore::Room::kFreesSpace,
                             core_.KeyIs(Space::kRecords, key, std::nullopt));
}

void CommittedUploads::Left(const v1::UploadRecord& row) {
  MutexLock lock(mutex_);
  next_expiry_ = std::min(next_expiry_, absl::FromUnixMicros(row.expire_time_us()));
}

void CommittedUploads::Sweep(absl::Time now) {
  {
    MutexLock lock(mutex_);
    if (now < next_expiry_) return;
    // Left() may set an earlier time while the scan runs.
    next_expiry_ = absl::InfiniteFuture();
  }
  absl::Time next = absl::InfiniteFuture();
  CatalogBatch batch;
  absl::Status status = core_.catalog().Scan(
      Space::kRecords, PrefixRange(keys::AllUploads()),
      [&](absl::string_view key, absl::string_view value) {
        const absl::StatusOr<v1::UploadRecord> row = Decode<v1::UploadRecord>(value);
        if (!row.ok() || row->committed_version() == 0) return true;
        const absl::Time expiry = absl::FromUnixMicros(row->expire_time_us());
        if (expiry >= now || batch.changes().size() == kSweepBatchRows) {
          next = std::min(next, expiry);
          return true;
        }
        batch.Expect(Space::kRecords, std::string(key), std::string(value));
        batch.Delete(Space::kRecords, std::string(key));
        return true;
      });
  // If the write fails, or a row was prolonged meanwhile, the next sweep deletes the
  // rows. A full disk is not written to: a failed write would close the catalog.
  if (status.ok() && !batch.empty()) status = core_.space.CheckSpace(1);
  if (status.ok() && !batch.empty()) {
    status = core_.catalog().Write(batch, Durability::kBuffered);
  }
  MutexLock lock(mutex_);
  next_expiry_ = std::min(next_expiry_, status.ok() ? next : now);
}

}  // namespace modelstore::storage
