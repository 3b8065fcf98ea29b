// What a SaveHandle, the thread that saves and the queue of saves share.
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
  // The first status wins. Staging that comes to no end ends with the save.
  void SetStaged(const absl::Status& status) EXCLUDES(mutex);
  void SetResult(absl::StatusOr<CheckpointInfo> result) EXCLUDES(mutex);
  // The failure of the save, if it failed and nobody was told: tells it.
  absl::Status TakeUnseenFailure() EXCLUDES(mutex);

  absl::Status WaitStaged(Deadline deadline) EXCLUDES(mutex);
  // Absent if the save has not ended by then.
  std::optional<absl::StatusOr<CheckpointInfo>> WaitResult(Deadline deadline)
      EXCLUDES(mutex);
  Progress progress() const;

  // False if it was cancelled before: then it must not begin.
  bool TryStart() EXCLUDES(mutex);
  // Ends it at once if it has not begun.
  void Cancel() EXCLUDES(mutex);

  // Constant once the handle is given out.
  const pid_t pid = getpid();
  Deadline deadline = Deadline::max();  // Of the whole save.

  // Synchronise themselves.
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
