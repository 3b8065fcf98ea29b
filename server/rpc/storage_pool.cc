#include "server/rpc/storage_pool.h"

#include <algorithm>
#include <utility>

#include "proto/contract/steady_time.h"

namespace modelstore::server {

StoragePool::StoragePool(int threads, size_t max_queue) : max_queue_(max_queue) {
  threads_.reserve(threads);
  for (int i = 0; i < threads; ++i) threads_.emplace_back([this] { Work(); });
}

StoragePool::~StoragePool() {
  {
    MutexLock lock(mutex_);
    stopping_ = true;
    changed_.NotifyAll();
  }
  for (std::thread& thread : threads_) thread.join();
}

bool StoragePool::Submit(std::function<void()> task) {
  MutexLock lock(mutex_);
  if (stopping_ || queue_.size() >= max_queue_) return false;
  queue_.push_back(std::move(task));
  changed_.NotifyOne();
  return true;
}

void StoragePool::Continue(std::function<void()> task) {
  MutexLock lock(mutex_);
  queue_.push_back(std::move(task));
  changed_.NotifyOne();
}

void StoragePool::ContinueAt(absl::Time time, std::function<void()> task) {
  MutexLock lock(mutex_);
  later_.emplace(time, std::move(task));
  // A waiting thread sleeps until the previously earliest time; this one may be earlier.
  changed_.NotifyOne();
}

void StoragePool::ForEach(int count, const std::function<void(int)>& each) {
  // Shared, because a helper may start after this call has returned. It then finds no
  // index left and does not touch `each`.
  struct Shared {
    std::atomic<int> next = 0;
    Mutex mutex;
    CondVar changed;
    int done GUARDED_BY(mutex) = 0;
  };
  auto shared = std::make_shared<Shared>();
  const auto work = [shared, count, &each] {
    for (int i = shared->next++; i < count; i = shared->next++) {
      each(i);
      MutexLock lock(shared->mutex);
      if (++shared->done == count) shared->changed.NotifyAll();
    }
  };
  // Best effort: if the queue is full there are fewer helpers.
  const int cores = static_cast<int>(std::thread::hardware_concurrency());
  for (int i = 1; i < std::min(count, cores); ++i) Submit(work);
  work();
  MutexLock lock(shared->mutex);
  shared->changed.WaitUntil(shared->mutex, absl::InfiniteFuture(),
                            [&shared, count]() ABSL_NO_THREAD_SAFETY_ANALYSIS {
                              return shared->done == count;
                            });
}

size_t StoragePool::queued() const {
  MutexLock lock(mutex_);
  return queue_.size();
}

void StoragePool::QueueDue() {
  const absl::Time now = stopping_ ? absl::InfiniteFuture() : SteadyNow();
  // During shutdown every delayed task is due: the RPC it belongs to must end.
  while (!later_.empty() && later_.begin()->first <= now) {
    queue_.push_back(std::move(later_.begin()->second));
    later_.erase(later_.begin());
    // This thread runs one of them; another thread must wake for each of the others.
    if (queue_.size() > 1) changed_.NotifyOne();
  }
}

void StoragePool::Work() {
  for (;;) {
    std::function<void()> task;
    {
      MutexLock lock(mutex_);
      for (QueueDue(); queue_.empty() && !stopping_; QueueDue()) {
        const absl::Time due =
            later_.empty() ? absl::InfiniteFuture() : later_.begin()->first;
        changed_.WaitUntil(mutex_, due, [this, due]() ABSL_NO_THREAD_SAFETY_ANALYSIS {
          return stopping_ || !queue_.empty() ||
                 (!later_.empty() && later_.begin()->first < due);
        });
      }
      if (queue_.empty()) return;
      task = std::move(queue_.front());
      queue_.pop_front();
    }
    task();
  }
}

void ByteBudget::Take(int64_t bytes) {
  used_ += bytes;
  if (gauge_ != nullptr) gauge_->fetch_add(bytes, std::memory_order_relaxed);
}

void ByteBudget::Acquire(const void* who, int64_t bytes, std::function<void()> granted) {
  {
    MutexLock lock(mutex_);
    if (!waiters_.empty() || !Fits(bytes)) {
      waiters_.push_back({who, bytes, std::move(granted)});
      return;
    }
    Take(bytes);
  }
  // Callbacks run without the lock: they may call this object again.
  granted();
}

bool ByteBudget::Withdraw(const void* who) {
  std::vector<std::function<void()>> granted;
  {
    MutexLock lock(mutex_);
    auto waiter = std::find_if(waiters_.begin(), waiters_.end(),
                               [who](const Waiter& w) { return w.who == who; });
    if (waiter == waiters_.end()) return false;
    waiters_.erase(waiter);
    // Requests are served in order, so it may have blocked smaller ones behind it.
    granted = Serve();
  }
  for (auto& call : granted) call();
  return true;
}

void ByteBudget::Charge(int64_t bytes) {
  MutexLock lock(mutex_);
  Take(bytes);
}

void ByteBudget::Release(int64_t bytes) {
  std::vector<std::function<void()>> granted;
  {
    MutexLock lock(mutex_);
    Take(-bytes);
    granted = Serve();
  }
  for (auto& call : granted) call();
}

std::vector<std::function<void()>> ByteBudget::Serve() {
  std::vector<std::function<void()>> granted;
  while (!waiters_.empty() && Fits(waiters_.front().bytes)) {
    Take(waiters_.front().bytes);
    granted.push_back(std::move(waiters_.front().granted));
    waiters_.pop_front();
  }
  return granted;
}

bool ByteBudget::contended() const {
  MutexLock lock(mutex_);
  return !waiters_.empty();
}

int64_t ByteBudget::used() const {
  MutexLock lock(mutex_);
  return used_;
}

}  // namespace modelstore::server
