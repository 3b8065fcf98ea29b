// Threads beside the storage pool for what a single step of an RPC can share out:
// as many, with the step's own thread, as there are cores, for all RPCs together.
#pragma once

#include <functional>
#include <thread>
#include <vector>

#include "proto/contract/mutex.h"

namespace modelstore::server {

// Thread-safe. The threads begin with the first task: a server that is never asked
// has none.
class HelperThreads {
 public:
  explicit HelperThreads(int count) : count_(count) {}
  // Waits for running tasks.
  ~HelperThreads();
  HelperThreads(const HelperThreads&) = delete;
  HelperThreads& operator=(const HelperThreads&) = delete;

  int count() const { return count_; }

  // Runs the task on a thread that has nothing to do. False if there is none: the
  // caller then does without.
  bool TryRun(std::function<void()> task) EXCLUDES(mutex_);

 private:
  void Work() EXCLUDES(mutex_);

  const int count_;
  Mutex mutex_;
  CondVar changed_;
  std::vector<std::thread> threads_ GUARDED_BY(mutex_);
  std::vector<std::function<void()>> tasks_ GUARDED_BY(mutex_);
  int idle_ GUARDED_BY(mutex_) = 0;
  bool stopping_ GUARDED_BY(mutex_) = false;
};

}  // namespace modelstore::server
