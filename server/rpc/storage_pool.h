// The threads that may block on storage, and a budget for the bytes in use. gRPC's
// threads pass everything that may block to this pool, so health checks are answered
// even while every thread of the pool is blocked.
#pragma once

#include <atomic>
#include <cstdint>
#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <thread>
#include <vector>

#include "absl/time/time.h"
#include "proto/contract/mutex.h"

namespace modelstore::server {

// A fixed number of threads and a queue. Thread-safe.
class StoragePool {
 public:
  // Submit() refuses tasks while `max_queue` are queued.
  StoragePool(int threads, size_t max_queue);
  // Runs all queued tasks, those of ContinueAt() at once, then joins the threads.
  ~StoragePool();

  // Queues the first step of an RPC. False if the queue is full: refuse the RPC.
  bool Submit(std::function<void()> task);
  // Queues a further step of a running RPC. Never refused: each RPC has at most one
  // queued step, so the number of RPCs bounds the queue.
  void Continue(std::function<void()> task);
  // As Continue(), but not before `time`. No thread is blocked meanwhile.
  void ContinueAt(absl::Time time, std::function<void()> task);
  // Calls each(0) to each(count - 1) in parallel, on as many threads as there are cores
  // and idle threads, and returns when all calls are done. Must be called on a thread
  // of the pool, which takes part: it runs every call that no other thread has started,
  // so it never waits for a thread that is blocked by another task.
  void ForEach(int count, const std::function<void(int)>& each);

  size_t queued() const;

 private:
  void Work();
  // Moves delayed tasks that are due to the queue; during shutdown, all of them.
  void QueueDue() REQUIRES(mutex_);

  const size_t max_queue_;
  mutable Mutex mutex_;
  CondVar changed_;
  std::deque<std::function<void()>> queue_ GUARDED_BY(mutex_);
  std::multimap<absl::Time, std::function<void()>> later_ GUARDED_BY(mutex_);
  bool stopping_ GUARDED_BY(mutex_) = false;
  std::vector<std::thread> threads_;
};

// Limits the bytes in use at once. Requests are served in order of arrival, so that
// large ones are not starved by small ones. Thread-safe.
class ByteBudget {
 public:
  // `gauge` is kept equal to the bytes in use; may be null.
  ByteBudget(int64_t limit, std::shared_ptr<std::atomic<int64_t>> gauge)
      : limit_(limit), gauge_(std::move(gauge)) {}

  // Takes `bytes` and calls `granted`, either at once or later on the thread that calls
  // Release() or Withdraw(); never with this object's mutex held. `granted` must not
  // block. A request above the limit is granted when nothing else is in use. `who`
  // identifies the request to Withdraw(); one request at a time each.
  void Acquire(const void* who, int64_t bytes, std::function<void()> granted);
  // Cancels the waiting request of `who`. True if there was one: its `granted` will not
  // be called. False if it has been or is being called.
  bool Withdraw(const void* who);
  // Takes bytes that are already in memory, even above the limit.
  void Charge(int64_t bytes);
  void Release(int64_t bytes);

  // Whether a request waits.
  bool contended() const;
  int64_t used() const;

 private:
  struct Waiter {
    const void* who;
    int64_t bytes;
    std::function<void()> granted;
  };

  bool Fits(int64_t bytes) const REQUIRES(mutex_) {
    return used_ == 0 || used_ + bytes <= limit_;
  }
  void Take(int64_t bytes) REQUIRES(mutex_);
  // Takes bytes for the first waiters while they fit. Returns the callbacks, which the
  // caller runs after it has released the mutex.
  std::vector<std::function<void()>> Serve() REQUIRES(mutex_);

  const int64_t limit_;
  const std::shared_ptr<std::atomic<int64_t>> gauge_;
  mutable Mutex mutex_;
  int64_t used_ GUARDED_BY(mutex_) = 0;
  std::deque<Waiter> waiters_ GUARDED_BY(mutex_);
};

}  // namespace modelstore::server
