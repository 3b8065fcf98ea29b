#include "client/internal/background.h"

#include <unistd.h>

#include <atomic>
#include <cstdlib>
#include <list>
#include <thread>
#include <utility>

#include "client/internal/threads.h"
#include "proto/contract/mutex.h"

namespace modelstore::internal {
namespace {

struct Worker {
  std::thread thread;
  std::atomic<bool> done{false};
};

// Never destroyed: threads may use it while statics are torn down.
class Workers {
 public:
  static Workers& Get() {
    static Workers* const workers = [] {
      auto* created = new Workers();
      std::atexit([] { Get().JoinAll(); });
      return created;
    }();
    return *workers;
  }

  bool Run(std::function<void()> work) {
    MutexLock lock(mutex_);
    Reap();
    Worker& worker = workers_.emplace_back();
    worker.thread = TryThread([&worker, work = std::move(work)]() mutable {
      work();
      work = nullptr;  // What it captured dies before the thread counts as done.
      worker.done.store(true, std::memory_order_release);
    });
    if (worker.thread.joinable()) return true;
    workers_.pop_back();
    return false;
  }

 private:
  void Reap() REQUIRES(mutex_) {
    for (auto it = workers_.begin(); it != workers_.end();) {
      if (!it->done.load(std::memory_order_acquire)) {
        ++it;
        continue;
      }
      it->thread.join();
      it = workers_.erase(it);
    }
  }

  void JoinAll() {
    if (getpid() != pid_) return;  // A forked child has none of these threads.
    std::list<Worker> left;
    {
      MutexLock lock(mutex_);
      left.swap(workers_);
    }
    for (Worker& worker : left) worker.thread.join();
  }

  const pid_t pid_ = getpid();
  Mutex mutex_;
  std::list<Worker> workers_ GUARDED_BY(mutex_);
};

}  // namespace

bool RunInBackground(std::function<void()> work) {
  return Workers::Get().Run(std::move(work));
}

}  // namespace modelstore::internal
