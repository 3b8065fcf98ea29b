// The saves of one client and its copies: one at a time per model, others wait in order.
#pragma once

#include <deque>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "client/internal/save.h"
#include "proto/contract/mutex.h"

namespace modelstore::internal {

// Thread-safe. Outlives the client while saves run.
class SaveQueue : public std::enable_shared_from_this<SaveQueue> {
 public:
  explicit SaveQueue(std::shared_ptr<Connection> connection)
      : connection_(std::move(connection)), pool_(StagingPool::Make()) {}

  // Starts, queues or refuses the save. A refusal is set as the result in job.state.
  void Submit(SaveJob job) EXCLUDES(mutex_);
  // Waits until no save runs. Returns the first failure that no call has returned yet.
  absl::Status Drain(Deadline deadline) EXCLUDES(mutex_);

 private:
  using StatePtr = std::shared_ptr<SaveHandle::State>;

  // Returns the first failure that no call has returned yet, and marks it as seen.
  absl::Status TakeUnreportedFailure() EXCLUDES(mutex_);
  // Runs the model's saves until none is left, on a background thread.
  void RunModel(const std::string& model_id) EXCLUDES(mutex_);
  // Keeps a failure for TakeUnreportedFailure(), unless the caller has seen it.
  void Remember(const StatePtr& state) EXCLUDES(mutex_);

  const std::shared_ptr<Connection> connection_;
  const std::shared_ptr<StagingPool> pool_;

  Mutex mutex_;
  CondVar idle_;
  // Models with a running save, and the saves that wait for it.
  std::map<std::string, std::deque<SaveJob>> waiting_ GUARDED_BY(mutex_);
  // Failed saves whose result may not have been read.
  std::vector<StatePtr> failed_ GUARDED_BY(mutex_);
};

}  // namespace modelstore::internal
