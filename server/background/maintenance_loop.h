// Looks after the store on a thread of its own: reopens it after a fault and
// reclaims space, both periodically.
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
    absl::Duration heal_interval;
    absl::Duration collect_interval;  // 0: never
    // Told whenever the store stops or starts to answer.
    std::function<void(bool serving)> on_serving;
  };
  // `store` and `log` outlive it.
  MaintenanceLoop(storage::CheckpointStore* store, const Log* log, Options options);
  ~MaintenanceLoop();

  // Something ended with UNAVAILABLE: look at once.
  void Wake();

 private:
  void Run();
  void Heal();
  void Collect();

  storage::CheckpointStore* const store_;
  const Log* const log_;
  const Options options_;
  bool serving_ = true;
  Mutex mutex_;
  CondVar changed_;
  bool wake_ GUARDED_BY(mutex_) = false;
  std::atomic<bool> stopping_ = false;
  std::thread thread_;
};

}  // namespace modelstore::server
