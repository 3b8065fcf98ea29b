// Uploads that are committed. They use no memory: a repeated CommitUpload or GetUpload is
// answered from the row in the catalog until the row expires.
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

  // Opens the committed upload with this name and prolongs its life, as each call on the
  // result does. The result must not outlive this object. NOT_FOUND.
  absl::StatusOr<std::shared_ptr<Upload>> Open(absl::string_view model_id,
                                               absl::string_view upload_id);
  // Returns the row and prolongs its life. Absent if there is none, or if the upload is
  // not committed.
  absl::StatusOr<std::optional<v1::UploadRecord>> Find(absl::string_view model_uid,
                                                       absl::string_view upload_id);

  // Called when a committed upload leaves memory. Notes when its row expires.
  void Left(const v1::UploadRecord& row) EXCLUDES(mutex_);
  // Deletes expired rows, at most 1000. Scans the rows only if one may
  // have expired.
  void Sweep(absl::Time now) EXCLUDES(mutex_);

 private:
  class Handle;

  // As Find(), by the name that a client gives: NOT_FOUND instead of absent.
  absl::StatusOr<v1::UploadRecord> FindNamed(absl::string_view model_id,
                                             absl::string_view upload_id);
  // The state of the row; expiry by the wall clock.
  absl::StatusOr<UploadState> State(v1::UploadRecord row);
  // The version that the upload became. NOT_FOUND if it was deleted.
  absl::StatusOr<v1::CheckpointRecord> Version(const v1::UploadRecord& row);
  // Deletes the row; the version stays.
  absl::Status Delete(const v1::UploadRecord& row);

  StoreCore& core_;
  Mutex mutex_;
  // No row expires before this. In the past until the first sweep.
  absl::Time next_expiry_ GUARDED_BY(mutex_) = absl::InfinitePast();
};

}  // namespace modelstore::storage
