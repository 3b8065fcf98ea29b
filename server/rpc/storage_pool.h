// The threads that may block on the disk, and the bytes that they may hold.
// gRPC's own threads hand everything that takes longer than a queue's lock to
// this pool: so health answers while every thread here is blocked.
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
  // `max_queue` bounds what Submit() takes.
  StoragePool(int threads, size_t max_queue);
  // Runs what is queued, that which waits for its time too, then ends.
  ~StoragePool();

  // The first step of an RPC. False if the queue is full: then refuse the RPC.
  bool Submit(std::function<void()> task);
  // A further step of an RPC that runs. Never refused: an RPC has one step in
  // hand at a time, so that their number bounds the queue.
  void Continue(std::function<void()> task);
  // The same, not before `time`: a step that waits holds no thread.
  void ContinueAt(absl::Time time, std::function<void()> task);
  // Calls each(0) to each(count - 1), as many at once as the machine has cores and
  // the pool has threads to spare, and returns when all are done. From a thread of
  // the pool: it does itself whatever no other thread has begun, so that it never
  // waits for one that is blocked elsewhere.
  void ForEach(int count, const std::function<void(int)>& each);

  size_t queued() const;

 private:
  void Work();
  // Queues those whose time has come, or all once the pool is to end.
  void QueueDue() REQUIRES(mutex_);

  const size_t max_queue_;
  mutable Mutex mutex_;
  CondVar changed_;
  std::deque<std::function<void()>> queue_ GUARDED_BY(mutex_);
  std::multimap<absl::Time, std::function<void()>> later_ GUARDED_BY(mutex_);
  bool stopping_ GUARDED_BY(mutex_) = false;
  std::vector<std::thread> threads_;
};

// A number of bytes that may be held at once, given first come, first served.
// Thread-safe.
class ByteBudget {
 public:
  // `gauge` follows the bytes held; may be null.
  ByteBudget(int64_t limit, std::shared_ptr<std::atomic<int64_t>> gauge)
      : limit_(limit), gauge_(std::move(gauge)) {}

  // Calls `granted` once `bytes` are taken for it: at once, or from within
  // Release(). It must not block. One that exceeds the limit waits for all the
  // others. `who` waits for one thing at a time.
  void Acquire(const void* who, int64_t bytes, std::function<void()> granted);
  // `who` waits no more: true if it did, and its `granted` will not be called.
  bool Withdraw(const void* who);
  // Takes bytes that are here already, whatever the limit.
  void Charge(int64_t bytes);
  void Release(int64_t bytes);

  // Somebody waits.
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
  // Takes bytes for those who wait and fit, and returns what to call for them.
  std::vector<std::function<void()>> Serve() REQUIRES(mutex_);

  const int64_t limit_;
  const std::shared_ptr<std::atomic<int64_t>> gauge_;
  mutable Mutex mutex_;
  int64_t used_ GUARDED_BY(mutex_) = 0;
  std::deque<Waiter> waiters_ GUARDED_BY(mutex_);
};

}  // namespace modelstore::server
