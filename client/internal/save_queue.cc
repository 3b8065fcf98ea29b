#include "client/internal/save_queue.h"

#include <utility>

#include "absl/strings/str_cat.h"
#include "client/internal/background.h"
#include "proto/contract/errors.h"
#include "proto/contract/names.h"

namespace modelstore::internal {

// A model's entry in waiting_ exists exactly while RunModel() runs for it, so the thread
// that creates the entry starts the background thread.
void SaveQueue::Submit(SaveJob job) {
  const StatePtr state = job.state;
  const std::string model_id = job.model_id;
  if (absl::Status earlier = TakeUnreportedFailure(); !earlier.ok()) {
    return state->SetResult(Annotate(
        earlier,
        "not started, because an earlier save failed and its result was not read"));
  }
  // Results are set after the lock is released: waiters wake at once.
  std::vector<StatePtr> replaced;
  bool start = false;
  bool refused = false;
  {
    MutexLock lock(mutex_);
    const auto [it, idle] = waiting_.try_emplace(model_id);
    start = idle;
    if (!idle && job.options.when_busy == WhenBusy::kFail) {
      refused = true;
    } else {
      if (job.options.when_busy == WhenBusy::kReplaceQueued) {
        for (const SaveJob& queued : it->second) replaced.push_back(queued.state);
        it->second.clear();
      }
      it->second.push_back(std::move(job));
    }
  }
  if (refused) {
    return state->SetResult(absl::FailedPreconditionError(
        absl::StrCat("a save of ", ModelName(model_id),
                     " is in progress, and this one must not wait (when_busy)")));
  }
  for (const StatePtr& old : replaced) {
    old->SetResult(absl::CancelledError("replaced by a later save before it began"));
  }
  if (!start) return;
  auto work = [queue = shared_from_this(), model_id] { queue->RunModel(model_id); };
  // If no thread can be started, the save runs on the caller's thread.
  if (!RunInBackground(work)) work();
}

void SaveQueue::RunModel(const std::string& model_id) {
  while (true) {
    SaveJob job;
    {
      MutexLock lock(mutex_);
      const auto it = waiting_.find(model_id);
      // Checked and erased under one lock: a later Submit() starts a new thread.
      if (it->second.empty()) {
        waiting_.erase(it);
        idle_.NotifyAll();
        return;
      }
      job = std::move(it->second.front());
      it->second.pop_front();
    }
    const StatePtr state = job.state;
    // Cancelled or replaced while it waited.
    if (!state->TryStart()) continue;
    RunSave(connection_, pool_, std::move(job));
    Remember(state);
  }
}

void SaveQueue::Remember(const StatePtr& state) {
  MutexLock lock(mutex_);
  bool failed = false;
  {
    MutexLock state_lock(state->mutex);
    failed = !state->result->ok() && !state->seen;
  }
  if (failed) failed_.push_back(state);
}

absl::Status SaveQueue::TakeUnreportedFailure() {
  MutexLock lock(mutex_);
  while (!failed_.empty()) {
    const StatePtr state = failed_.front();
    failed_.erase(failed_.begin());
    if (absl::Status s = state->TakeUnreportedFailure(); !s.ok()) return s;
  }
  return absl::OkStatus();
}

absl::Status SaveQueue::Drain(Deadline deadline) {
  {
    MutexLock lock(mutex_);
    if (!idle_.WaitUntil(mutex_, deadline,
                         [this]() REQUIRES(mutex_) { return waiting_.empty(); })) {
      return absl::DeadlineExceededError(
          absl::StrCat("saves of ", waiting_.size(), " models still run"));
    }
  }
  return TakeUnreportedFailure();
}

}  // namespace modelstore::internal
