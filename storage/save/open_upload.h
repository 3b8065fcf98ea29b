// One upload in memory: its record, its chunks, its streams. The catalog has what a
// restart needs: record, journal of sealed packs, contributions.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "proto/contract/mutex.h"
#include "storage/api/saves.h"
#include "storage/api/uploads.h"
#include "storage/core.h"
#include "storage/save/chunk_intake.h"
#include "storage/save/manifest_builder.h"
#include "storage/save/manifest_check.h"

namespace modelstore::storage {

// Microseconds by which the expiry must move before it is written again; a restart
// loses less than that.
int64_t MinExpiryGain(const v1::UploadRecord& record);

class OpenUpload;

// The table that the upload is in.
class UploadOwner {
 public:
  virtual ~UploadOwner() = default;
  // Called when the upload has been committed or deleted: it leaves the table. Called
  // again, or by several threads, it does nothing more.
  virtual void Ended(OpenUpload& upload) = 0;
  // A committed upload, answered from its row. NOT_FOUND.
  virtual absl::StatusOr<std::shared_ptr<Upload>> OpenCommitted(
      absl::string_view model_id, absl::string_view upload_id) = 0;
};

// Thread-safe. Owned by shared pointers: callers and sinks keep the upload in memory,
// not on disk.
class OpenUpload final : public Upload,
                         public PackJournal,
                         public std::enable_shared_from_this<OpenUpload> {
 public:
  // `core` and `owner` outlive it. `base_hold` is empty if there is no base, or if it is
  // gone.
  OpenUpload(StoreCore* core, UploadOwner* owner, v1::UploadRecord record,
             DigestAlgorithm algorithm, Hold base_hold,
             std::optional<v1::CheckpointRecord> base);

  // Restores what an earlier run has written.
  void Restore(const v1::SealedPackRecord& pack) { intake_.Restore(pack); }
  void Restore(uint32_t contribution, const v1::ContributionRecord& record);

  const std::string& model_id() const { return model_id_; }
  const std::string& model_uid() const { return model_uid_; }
  const std::string& upload_id() const { return upload_id_; }
  // Empty and 0 without a base.
  const std::string& base_model_uid() const { return base_model_uid_; }
  int64_t base_version() const { return base_version_; }

  // Prolongs its life and settles an undecided creation, commit or deletion. NOT_FOUND
  // once it is deleted.
  absl::Status Touch() EXCLUDES(mutex_);
  // Begins a call of a client: as Touch(). Once it is committed, returns the upload that
  // answers for it; otherwise null.
  absl::StatusOr<std::shared_ptr<Upload>> BeginCall() EXCLUDES(mutex_);

  absl::StatusOr<UploadState> State() override EXCLUDES(mutex_);
  absl::StatusOr<std::vector<uint32_t>> FindMissing(absl::string_view digests) override
      EXCLUDES(mutex_);
  absl::Status AddManifest(uint32_t contribution, const ManifestPart& part, bool begin,
                           bool complete) override EXCLUDES(mutex_);
  absl::StatusOr<std::unique_ptr<ChunkSink>> OpenSink() override EXCLUDES(mutex_);
  absl::StatusOr<v1::CheckpointRecord> Commit(
      std::optional<int64_t> expected_latest_version, bool allow_empty) override
      EXCLUDES(mutex_);
  absl::Status Delete() override EXCLUDES(mutex_);

  // Its creation, commit or deletion may have happened or not: nothing is written until
  // that is settled.
  void SetInDoubt() EXCLUDES(mutex_);
  // Finds out what has happened, if that is in doubt and can be read.
  void ResolveUndecided() EXCLUDES(mutex_);
  v1::UploadRecord record() EXCLUDES(mutex_);
  bool committed() EXCLUDES(mutex_);
  bool deleted() EXCLUDES(mutex_);
  // True if no call and no stream has used it for its time to live.
  bool Expired(absl::Time now) EXCLUDES(mutex_);
  // Time since its last use; zero while it is in use, and once it is committed or
  // deleted.
  absl::Duration IdleFor() EXCLUDES(mutex_);
  // As State(), without prolonging its life.
  UploadState GetState() EXCLUDES(mutex_);

  // Deletes its records, open or committed, without prolonging its life; it stays in its
  // table. The packs of one that is not committed are garbage afterwards.
  absl::Status Discard() EXCLUDES(mutex_);
  // Deletes it unless it was used within StoreOptions::upload_min_idle. False if it
  // was.
  absl::StatusOr<bool> DeleteIfIdle() EXCLUDES(mutex_);

  absl::Status Record(const v1::SealedPackRecord& record,
                      const std::vector<std::string>& inline_chunks) override;

 private:
  friend class UploadSink;
  enum class Stage : uint8_t { kOpen, kCommitting, kCommitted, kDeleted };
  struct Contribution {
    uint32_t parts = 0;
    bool complete = false;
    ManifestTotals totals;
    // The bytes of its record; absent: it has none.
    std::optional<std::string> row;
  };

  absl::Status CheckExists() REQUIRES(mutex_);
  absl::Status CheckOpen() REQUIRES(mutex_);
  absl::Status LoadBase() EXCLUDES(mutex_);
  std::string Name() const;
  std::string RowKey() const;
  absl::Status TakeTurn() EXCLUDES(mutex_);
  // Only after TakeTurn().
  absl::Status RunDelete() EXCLUDES(mutex_);
  absl::Status DeleteStored(Stage stored) EXCLUDES(mutex_);
  absl::Duration IdleForLocked() REQUIRES(mutex_);
  void EndTurn(Stage stage) EXCLUDES(mutex_);
  // Reads the stage from the catalog: what was undecided may have happened. The row
  // exists from creation to deletion.
  absl::StatusOr<Stage> StoredStage() EXCLUDES(mutex_);
  absl::StatusOr<v1::CheckpointRecord> CommitInTurn(
      std::optional<int64_t> expected_latest_version, bool allow_empty) EXCLUDES(mutex_);
  absl::StatusOr<v1::CheckpointRecord> RunCommit(std::optional<int64_t> expected,
                                                 bool allow_empty);
  absl::StatusOr<v1::CheckpointRecord> CommittedRecord(int64_t version);
  absl::Status DeleteParts(uint32_t contribution, CatalogBatch& batch);
  absl::Status CheckContributions() EXCLUDES(mutex_);
  // Of each contribution.
  std::vector<int64_t> TensorCounts() EXCLUDES(mutex_);
  absl::Status ReadManifest(ManifestBuilder& builder);
  absl::Status DeleteRows(CatalogBatch& batch,
                          const std::vector<ChunkIntake::Sealed>& kept);
  absl::Status DeleteRequest(CatalogBatch& batch) EXCLUDES(mutex_);
  void SinkClosed() EXCLUDES(mutex_);

  StoreCore* const core_;
  UploadOwner* const owner_;
  const DigestAlgorithm algorithm_;
  const std::string model_id_;
  const std::string model_uid_;
  const std::string upload_id_;
  const std::string base_model_uid_;
  const int64_t base_version_;
  const std::optional<v1::CheckpointRecord> base_;
  ChunkIntake intake_;

  // Also held while the upload's row and contributions are written, so that no
  // write overtakes its deletion.
  Mutex mutex_;
  CondVar changed_;
  Stage stage_ GUARDED_BY(mutex_) = Stage::kOpen;
  v1::UploadRecord record_ GUARDED_BY(mutex_);
  int64_t written_expiry_us_ GUARDED_BY(mutex_) = 0;
  std::map<uint32_t, Contribution> contributions_ GUARDED_BY(mutex_);
  int open_sinks_ GUARDED_BY(mutex_) = 0;
  // On the steady clock; a restart counts as a use.
  absl::Duration used_ GUARDED_BY(mutex_);
  bool in_doubt_ GUARDED_BY(mutex_) = false;
  bool base_loaded_ GUARDED_BY(mutex_) = false;
  Hold base_hold_ GUARDED_BY(mutex_);
};

}  // namespace modelstore::storage
