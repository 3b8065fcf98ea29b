// Uploads that are committed. None of it is in memory: the row in the catalog answers
// a repeated CommitUpload or GetUpload until it expires.
#pragma once

#include <memory>
#include <optional>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/time/time.h"
#include "proto/contract/mutex.h"
#include "storage/api/uploads.h"
#include "storage/core.h"

namespace modelstore::storage {

// Thread-safe.
class CommittedUploads {
 public:
  // `core` outlives it.
  explicit CommittedUploads(StoreCore* core) : core_(*core) {}

  // The committed upload with this name. NOT_FOUND. Prolongs its life, as each call on
  // the result does, which must not outlive this.
  absl::StatusOr<std::shared_ptr<Upload>> Open(absl::string_view model_id,
                                               absl::string_view upload_id);
  // The row, whose life it prolongs. Absent if there is none, or if the upload is not
  // committed.
  absl::StatusOr<std::optional<v1::UploadRecord>> Find(absl::string_view model_uid,
                                                       absl::string_view upload_id);

  // Called when a committed upload leaves memory: only its row is left.
  void Left(const v1::UploadRecord& row) EXCLUDES(mutex_);
  // Deletes expired rows, at most 1000. Scans the rows only if one may
  // have expired.
  void Sweep(absl::Time now) EXCLUDES(mutex_);

 private:
  class Handle;

  // As Find(), by the name that a client gives: NOT_FOUND instead of absent.
  absl::StatusOr<v1::UploadRecord> FindNamed(absl::string_view model_id,
                                             absl::string_view upload_id);
  absl::StatusOr<UploadState> State(v1::UploadRecord row);
  absl::StatusOr<v1::CheckpointRecord> Version(const v1::UploadRecord& row);
  // Deletes the row; the version stays.
  absl::Status Delete(const v1::UploadRecord& row);

  StoreCore& core_;
  Mutex mutex_;
  // No row expires before.
  absl::Time next_expiry_ GUARDED_BY(mutex_) = absl::InfinitePast();
};

}  // namespace modelstore::storage
