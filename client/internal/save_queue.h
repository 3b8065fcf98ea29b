// The saves of one client and its copies: one in flight per model, the others in
// order behind it.
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

  // Starts the save, queues it, or refuses it: job.state tells which.
  void Submit(SaveJob job) EXCLUDES(mutex_);
  absl::Status Drain(Deadline deadline) EXCLUDES(mutex_);

 private:
  using StatePtr = std::shared_ptr<SaveHandle::State>;

  // The first failure that nobody has seen; sees it.
  absl::Status TakeUnseenFailure() EXCLUDES(mutex_);
  // Runs the model's saves until none is left.
  void RunModel(const std::string& model_id) EXCLUDES(mutex_);
  void Remember(const StatePtr& state) EXCLUDES(mutex_);

  const std::shared_ptr<Connection> connection_;
  const std::shared_ptr<StagingPool> pool_;

  Mutex mutex_;
  CondVar idle_;
  // Models with a running save, and what waits behind it.
  std::map<std::string, std::deque<SaveJob>> waiting_ GUARDED_BY(mutex_);
  // Saves that failed and may not have been looked at.
  std::vector<StatePtr> failed_ GUARDED_BY(mutex_);
};

}  // namespace modelstore::internal
