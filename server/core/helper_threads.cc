#include "server/core/helper_threads.h"

#include <utility>

namespace modelstore::server {

HelperThreads::~HelperThreads() {
  std::vector<std::thread> threads;
  {
    MutexLock lock(mutex_);
    stopping_ = true;
    threads.swap(threads_);
    changed_.NotifyAll();
  }
  for (std::thread& thread : threads) thread.join();
}

bool HelperThreads::TryRun(std::function<void()> task) {
  MutexLock lock(mutex_);
  if (stopping_) return false;
  if (static_cast<int>(tasks_.size()) >= idle_) {
    if (static_cast<int>(threads_.size()) >= count_) return false;
    threads_.emplace_back([this] { Work(); });
    ++idle_;
  }
  tasks_.push_back(std::move(task));
  changed_.NotifyOne();
  return true;
}

void HelperThreads::Work() {
  MutexLock lock(mutex_);
  for (;;) {
    changed_.WaitUntil(
        mutex_, absl::InfiniteFuture(),
        [this]() ABSL_NO_THREAD_SAFETY_ANALYSIS { return stopping_ || !tasks_.empty(); });
    if (tasks_.empty()) return;
    const std::function<void()> task = std::move(tasks_.back());
    tasks_.pop_back();
    --idle_;
    lock.Unlock();
    task();
    lock.Lock();
    ++idle_;
  }
}

}  // namespace modelstore::server
