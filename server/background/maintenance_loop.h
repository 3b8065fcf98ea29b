// Maintains the store on a thread of its own: reopens it after a fault, and collects
// garbage periodically.
#pragma once

#include <atomic>
#include <functional>
#include <thread>

#include "absl/time/time.h"
#include "proto/contract/mutex.h"
#include "server/log.h"
#include "storage/checkpoint_store.h"

namespace modelstore::server {

class MaintenanceLoop {
 public:
  struct Options {
    // How often the store's health is checked.
    absl::Duration reopen_interval;
    absl::Duration collect_interval;  // 0: never
    // Called on the loop's thread when the store becomes unavailable or available.
    std::function<void(bool serving)> on_serving;
  };
  // `store` and `log` outlive it.
  MaintenanceLoop(storage::CheckpointStore* store, const Log* log, Options options);
  ~MaintenanceLoop();

  // Checks the store now: an RPC ended with UNAVAILABLE. Thread-safe, does not block.
  void Wake();

 private:
  void Run();
  // Reopens the store if a fault has closed it; reports a change of its state.
  void ReopenIfClosed();
  void Collect();

  storage::CheckpointStore* const store_;
  const Log* const log_;
  const Options options_;
  // Used by the loop's thread only.
  bool serving_ = true;
  Mutex mutex_;
  CondVar changed_;
  bool wake_ GUARDED_BY(mutex_) = false;
  // Atomic, because a running collection reads it without the mutex.
  std::atomic<bool> stopping_ = false;
  std::thread thread_;
};

}  // namespace modelstore::server
