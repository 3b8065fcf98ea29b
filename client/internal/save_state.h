// State shared by a SaveHandle, the saving thread and the queue of saves.
#pragma once

#include <unistd.h>

#include <atomic>
#include <optional>

#include "absl/status/statusor.h"
#include "client/internal/cancellation.h"
#include "modelstore/client.h"
#include "proto/contract/mutex.h"

namespace modelstore {

struct SaveHandle::State {
  // Both keep the first status. SetResult() also ends staging that is not finished.
  void SetStaged(const absl::Status& status) EXCLUDES(mutex);
  void SetResult(absl::StatusOr<CheckpointInfo> result) EXCLUDES(mutex);
  // Returns the failure of the save if no call has returned it yet, and marks it as seen.
  absl::Status TakeUnreportedFailure() EXCLUDES(mutex);

  absl::Status WaitStaged(Deadline deadline) EXCLUDES(mutex);
  // Absent if the save has not ended at the deadline.
  std::optional<absl::StatusOr<CheckpointInfo>> WaitResult(Deadline deadline)
      EXCLUDES(mutex);
  Progress progress() const;

  // False if the save was cancelled before it started: then it must not run.
  bool TryStart() EXCLUDES(mutex);
  // A save that has not started ends at once.
  void Cancel() EXCLUDES(mutex);

  // Constant once the handle is given out.
  const pid_t pid = getpid();
  Deadline deadline = Deadline::max();  // Of the whole save.

  // Thread-safe by themselves.
  internal::Cancellation cancellation;
  std::atomic<int64_t> total_bytes{0};
  std::atomic<int64_t> done_bytes{0};
  std::atomic<int64_t> transferred_bytes{0};
  std::atomic<int64_t> reconnects{0};

  mutable Mutex mutex;
  CondVar changed;
  std::optional<absl::Status> staged GUARDED_BY(mutex);
  std::optional<absl::StatusOr<CheckpointInfo>> result GUARDED_BY(mutex);
  bool started GUARDED_BY(mutex) = false;
  bool seen GUARDED_BY(mutex) = false;
};

}  // namespace modelstore
