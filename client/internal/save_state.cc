#include "client/internal/save_state.h"

#include <utility>

#include "absl/strings/str_cat.h"

namespace modelstore {
namespace {

// Extra time for a save to report that its deadline has passed, and for a cancelled save
// to end.
constexpr std::chrono::seconds kEndsWithin{2};
constexpr std::chrono::seconds kCancelledWithin{30};

absl::Status Forked() {
  return absl::FailedPreconditionError(
      "this client belongs to the parent process: fork() before connecting");
}

}  // namespace

// Keeps the first status: an upload calls this again after its delivery.
void SaveHandle::State::SetStaged(const absl::Status& status) {
  MutexLock lock(mutex);
  if (!staged.has_value()) staged = status;
  changed.NotifyAll();
}

void SaveHandle::State::SetResult(absl::StatusOr<CheckpointInfo> value) {
  MutexLock lock(mutex);
  if (!staged.has_value()) staged = value.status();
  if (!result.has_value()) result = std::move(value);
  changed.NotifyAll();
}

bool SaveHandle::State::TryStart() {
  MutexLock lock(mutex);
  if (result.has_value()) return false;
  started = true;
  return true;
}

void SaveHandle::State::Cancel() {
  {
    MutexLock lock(mutex);
    seen = true;  // The caller need not be told of the failure.
    // A queued save never runs (TryStart() is false), so its result is set here. A
    // running one sets it itself when its streams have ended.
    if (!started && !result.has_value()) {
      result = absl::CancelledError("the save was cancelled before it began");
      if (!staged.has_value()) staged = result->status();
      changed.NotifyAll();
    }
  }
  // Without the lock: cancelling a stream may wake threads that need it.
  cancellation.Cancel();
}

absl::Status SaveHandle::State::TakeUnreportedFailure() {
  MutexLock lock(mutex);
  if (!result.has_value() || result->ok() || seen) return absl::OkStatus();
  seen = true;
  return result->status();
}

absl::Status SaveHandle::State::WaitStaged(Deadline deadline) {
  if (getpid() != pid) return Forked();
  MutexLock lock(mutex);
  if (!changed.WaitUntil(mutex, deadline,
                         [this]() REQUIRES(mutex) { return staged.has_value(); })) {
    return absl::DeadlineExceededError("the save is not staged yet");
  }
  // The caller has received the failure of the save, so no later call reports it.
  if (!staged->ok() && result.has_value()) seen = true;
  return *staged;
}

std::optional<absl::StatusOr<CheckpointInfo>> SaveHandle::State::WaitResult(
    Deadline deadline) {
  if (getpid() != pid) return Forked();
  MutexLock lock(mutex);
  changed.WaitUntil(mutex, deadline,
                    [this]() REQUIRES(mutex) { return result.has_value(); });
  if (result.has_value()) seen = true;
  return result;
}

Progress SaveHandle::State::progress() const {
  Progress p;
  p.total_bytes = total_bytes.load();
  p.done_bytes = done_bytes.load();
  p.transferred_bytes = transferred_bytes.load();
  p.reconnects = reconnects.load();
  return p;
}

absl::Status SaveHandle::Staged(Deadline deadline) const {
  return state_->WaitStaged(deadline);
}

absl::StatusOr<CheckpointInfo> SaveHandle::Durable(Deadline deadline) const {
  auto result = state_->WaitResult(deadline);
  if (result.has_value()) return *std::move(result);
  return absl::DeadlineExceededError("the save continues and is not durable yet");
}

Progress SaveHandle::progress() const { return state_->progress(); }

SaveHandle SaveHandle::Failed(absl::Status status) {
  auto state = std::make_shared<State>();
  state->SetResult(std::move(status));
  return SaveHandle(std::move(state));
}

// A synchronous save: waits for the result until the save's own deadline. A save that is
// still running then is cancelled, because the caller's memory must not be in use
// afterwards.
absl::StatusOr<CheckpointInfo> SaveHandle::Finish() const {
  auto result = state_->WaitResult(Later(state_->deadline, kEndsWithin));
  if (result.has_value()) return *std::move(result);
  Cancel();
  result = state_->WaitResult(After(kCancelledWithin));
  if (!result.has_value()) {
    return absl::DeadlineExceededError(
        "not durable in time; the save is being cancelled, but may have been committed");
  }
  if (result->ok()) return *std::move(result);
  return absl::DeadlineExceededError(
      absl::StrCat("not durable in time; ", result->status().message()));
}

void SaveHandle::Cancel() const {
  if (getpid() == state_->pid) state_->Cancel();
}

}  // namespace modelstore
