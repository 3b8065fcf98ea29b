#include "server/background/maintenance_loop.h"

#include "proto/contract/steady_time.h"

namespace modelstore::server {

MaintenanceLoop::MaintenanceLoop(storage::CheckpointStore* store, const Log* log,
                                 Options options)
    : store_(store),
      log_(log),
      options_(std::move(options)),
      thread_([this] { Run(); }) {}

MaintenanceLoop::~MaintenanceLoop() {
  {
    MutexLock lock(mutex_);
    stopping_ = true;
    changed_.NotifyAll();
  }
  thread_.join();
}

void MaintenanceLoop::Wake() {
  MutexLock lock(mutex_);
  wake_ = true;
  changed_.NotifyAll();
}

void MaintenanceLoop::Run() {
  absl::Time next_collection = SteadyNow() + options_.collect_interval;
  for (;;) {
    {
      MutexLock lock(mutex_);
      changed_.WaitFor(mutex_, options_.reopen_interval,
                       [this]()
                           ABSL_NO_THREAD_SAFETY_ANALYSIS { return stopping_ || wake_; });
      wake_ = false;
      if (stopping_) return;
    }
    ReopenIfClosed();
    if (options_.collect_interval > absl::ZeroDuration() &&
        SteadyNow() >= next_collection) {
      Collect();
      next_collection = SteadyNow() + options_.collect_interval;
    }
  }
}

void MaintenanceLoop::ReopenIfClosed() {
  const absl::Status status = store_->maintenance().ReopenIfClosed();
  if (status.ok() == serving_) return;
  serving_ = status.ok();
  if (serving_) {
    log_->Write(LogLevel::kInfo, "storage_serving");
  } else {
    log_->Write(LogLevel::kError, "storage_not_serving", {{"message", status.message()}});
  }
  options_.on_serving(serving_);
}

void MaintenanceLoop::Collect() {
  auto result = store_->maintenance().CollectGarbage(
      /*validate_only=*/false, [this](int64_t, int64_t) { return !stopping_; });
  if (!result.ok()) {
    log_->Write(LogLevel::kWarning, "collection_failed",
                {{"message", result.status().message()}});
    return;
  }
  log_->Write(LogLevel::kInfo, "collection",
              {{"dropped_packs", result->dropped_packs},
               {"expired_uploads", result->expired_uploads},
               {"freed_bytes", result->freed_bytes},
               {"waiting_bytes", result->waiting_bytes},
               {"reclaimable_bytes", result->reclaimable_bytes}});
}

}  // namespace modelstore::server
