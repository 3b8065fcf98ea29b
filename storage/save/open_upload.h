// One upload in memory: its record, chunks, streams and contributions. The catalog has
// what a restart needs: the record, the journal of sealed packs, and the contributions.
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

// Microseconds by which the expiry must move before it is written again, so that not
// every call writes. A restart may set the expiry back by less than that.
int64_t MinExpiryGain(const v1::UploadRecord& record);

class OpenUpload;

// The table of uploads, as an upload sees it.
class UploadOwner {
 public:
  virtual ~UploadOwner() = default;
  // Called when the upload has been committed or deleted. Removes it from the table. May
  // be called several times and by several threads.
  virtual void Ended(OpenUpload& upload) = 0;
  // Opens a committed upload, which is answered from its row. NOT_FOUND.
  virtual absl::StatusOr<std::shared_ptr<Upload>> OpenCommitted(
      absl::string_view model_id, absl::string_view upload_id) = 0;
};

// Thread-safe. Owned by shared pointers: callers and sinks keep the object alive, but do
// not prevent the upload's expiry or deletion.
//
// Life: kOpen, then kCommitting while one thread commits or deletes it, then kCommitted
// or kDeleted; back to what it was if that fails. If the outcome of a write is unknown
// the upload is in doubt: it accepts nothing until ResolveUndecided() has read the stored
// state.
class OpenUpload final : public Upload,
                         public PackJournal,
                         public std::enable_shared_from_this<OpenUpload> {
 public:
  // `core` and `owner` outlive it. `base_hold` and `base` are empty if there is no base,
  // or if it has been deleted.
  OpenUpload(StoreCore* core, UploadOwner* owner, v1::UploadRecord record,
             DigestAlgorithm algorithm, Hold base_hold,
             std::optional<v1::CheckpointRecord> base);

  // Restore a sealed pack or a contribution after a restart. To be called before any
  // other thread uses the upload.
  void Restore(const v1::SealedPackRecord& pack) { intake_.Restore(pack); }
  void Restore(uint32_t contribution, const v1::ContributionRecord& record);

  const std::string& model_id() const { return model_id_; }
  const std::string& model_uid() const { return model_uid_; }
  const std::string& upload_id() const { return upload_id_; }
  // Empty and 0 without a base.
  const std::string& base_model_uid() const { return base_model_uid_; }
  int64_t base_version() const { return base_version_; }

  // Prolongs its life. First resolves an undecided creation, commit or deletion, if there
  // is one. NOT_FOUND once it is deleted.
  absl::Status Touch() EXCLUDES(mutex_);
  // Starts a call of a client. As Touch(). Returns null if the call may proceed here, or,
  // once the upload is committed, the Upload that the call must be passed to.
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

  // Marks its creation, commit or deletion as undecided: nothing is accepted until
  // ResolveUndecided() succeeds.
  void SetInDoubt() EXCLUDES(mutex_);
  // If it is in doubt, reads the stored state and sets the stage from it. Stays in doubt
  // if the catalog cannot be read.
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

  // Deletes its records, open or committed, without prolonging its life. The caller
  // removes it from the table. If it was not committed, its packs are garbage afterwards.
  absl::Status Discard() EXCLUDES(mutex_);
  // Deletes it unless it was used within StoreOptions::upload_min_idle; returns false in
  // that case. The caller removes it from the table.
  absl::StatusOr<bool> DeleteIfIdle() EXCLUDES(mutex_);

  // PackJournal.
  absl::Status Record(const v1::SealedPackRecord& record,
                      const std::vector<std::string>& inline_chunks) override;

 private:
  friend class UploadSink;
  enum class Stage : uint8_t { kOpen, kCommitting, kCommitted, kDeleted };
  struct Contribution {
    // Number of stored parts, numbered 0, 1, 2, ...
    uint32_t parts = 0;
    bool complete = false;
    ManifestTotals totals;
    // Encoded ContributionRecord, as it is stored. Absent if there is none.
    std::optional<std::string> row;
  };

  // NOT_FOUND once deleted; CheckOpen() also refuses the other stages and an upload in
  // doubt.
  absl::Status CheckExists() REQUIRES(mutex_);
  absl::Status CheckOpen() REQUIRES(mutex_);
  // Loads the base's index, at the first call that needs it: an upload that is only
  // listed or restored costs no index.
  absl::Status LoadBase() EXCLUDES(mutex_);
  std::string Name() const;
  std::string RowKey() const;
  // Waits for a commit or deletion that runs, then moves an open upload to kCommitting,
  // which makes the caller the only one that may commit or delete it until EndTurn().
  // NOT_FOUND once deleted. Overloaded after two minutes.
  absl::Status TakeTurn() EXCLUDES(mutex_);
  // Deletes the upload and ends the turn. To be called after TakeTurn() alone.
  absl::Status RunDelete() EXCLUDES(mutex_);
  absl::Status DeleteStored(Stage stored) EXCLUDES(mutex_);
  absl::Duration IdleForLocked() REQUIRES(mutex_);
  // Leaves kCommitting and wakes those that wait for their turn. Unless the upload is
  // open again, frees its base and its index of chunks.
  void EndTurn(Stage stage) EXCLUDES(mutex_);
  // Reads the stage from the catalog, which is authoritative after an undecided write:
  // the row exists from creation to deletion, and has a version once committed. Ends the
  // doubt.
  absl::StatusOr<Stage> StoredStage() EXCLUDES(mutex_);
  // Commit() without BeginCall(): takes a turn, commits if the stored stage is open, and
  // ends the turn.
  absl::StatusOr<v1::CheckpointRecord> CommitInTurn(
      std::optional<int64_t> expected_latest_version, bool allow_empty) EXCLUDES(mutex_);
  // The commit itself. Only after TakeTurn().
  absl::StatusOr<v1::CheckpointRecord> RunCommit(std::optional<int64_t> expected,
                                                 bool allow_empty);
  absl::StatusOr<v1::CheckpointRecord> CommittedRecord(int64_t version);
  // Adds the deletion of all parts of a contribution to `batch`.
  absl::Status DeleteParts(uint32_t contribution, CatalogBatch& batch);
  // FAILED_PRECONDITION, naming them, if contributions are missing or incomplete.
  absl::Status CheckContributions() EXCLUDES(mutex_);
  // Number of tensors of each contribution.
  std::vector<int64_t> TensorCounts() EXCLUDES(mutex_);
  // Adds the stored parts of all contributions to `builder`.
  absl::Status ReadManifest(ManifestBuilder& builder);
  absl::Status DeleteRows(CatalogBatch& batch,
                          const std::vector<ChunkIntake::Sealed>& kept);
  // Adds the deletion of the upload's request row to `batch`.
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

  // Also held while the upload's row and contributions are written: a write must not come
  // after the deletion and bring the row back. Taken before the intake's locks.
  Mutex mutex_;
  CondVar changed_;
  Stage stage_ GUARDED_BY(mutex_) = Stage::kOpen;
  // The expiry in `record_` may be ahead of the stored one, `written_expiry_us_`.
  v1::UploadRecord record_ GUARDED_BY(mutex_);
  int64_t written_expiry_us_ GUARDED_BY(mutex_) = 0;
  std::map<uint32_t, Contribution> contributions_ GUARDED_BY(mutex_);
  int open_sinks_ GUARDED_BY(mutex_) = 0;
  // Time of the last use, on the steady clock. A restart counts as a use.
  absl::Duration used_ GUARDED_BY(mutex_);
  bool in_doubt_ GUARDED_BY(mutex_) = false;
  bool base_loaded_ GUARDED_BY(mutex_) = false;
  // Keeps the base's bytes until the upload is committed or deleted.
  Hold base_hold_ GUARDED_BY(mutex_);
};

}  // namespace modelstore::storage
