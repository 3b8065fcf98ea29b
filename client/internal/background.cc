#include "client/internal/background.h"

#include <unistd.h>

#include <atomic>
#include <cstdlib>
#include <list>
#include <thread>
#include <utility>
#include <vector>

#include "client/internal/threads.h"
#include "proto/contract/mutex.h"

namespace modelstore::internal {
namespace {

struct Worker {
  std::thread thread;
  std::atomic<bool> done{false};
};

// Never destroyed: threads may use it during the destruction of statics.
class Workers {
 public:
  // The workers of this process. A forked child gets a new object: it has none of its
  // parent's threads, and the parent's mutex may be locked.
  static Workers& Get() {
    static std::atomic<Workers*> current{nullptr};
    [[maybe_unused]] static const int registered = std::atexit([] { Get().JoinAll(); });
    Workers* workers = current.load();
    while (workers == nullptr || workers->pid_ != getpid()) {
      auto* created = new Workers();
      if (current.compare_exchange_strong(workers, created)) return *created;
      delete created;
    }
    return *workers;
  }

  bool Run(std::function<void()> work) {
    MutexLock lock(mutex_);
    JoinFinished();
    Worker& worker = workers_.emplace_back();
    worker.thread = TryThread([&worker, work = std::move(work)]() mutable {
      work();
      work = nullptr;  // Destroys captured objects before the thread counts as done.
      worker.done.store(true, std::memory_order_release);
    });
    if (worker.thread.joinable()) return true;
    workers_.pop_back();
    return false;
  }

 private:
  // Joins the threads that have finished.
  void JoinFinished() REQUIRES(mutex_) {
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

void KeepForever(std::shared_ptr<void> thing) {
  static auto* const kept = new std::vector<std::shared_ptr<void>>();
  kept->push_back(std::move(thing));
}

bool RunInBackground(std::function<void()> work) {
  return Workers::Get().Run(std::move(work));
}

}  // namespace modelstore::internal
