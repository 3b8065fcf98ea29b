// The mutex of this project: std::mutex with clang's thread annotations.
//
// absl::Mutex is not used because ThreadSanitizer cannot instrument the distribution's
// absl and reports false races.
//
//   class Queue {
//     void Push(int item) {
//       MutexLock lock(mutex_);
//       items_.push_back(item);
//       changed_.NotifyOne();
//     }
//     bool WaitForItem(absl::Time deadline) {
//       MutexLock lock(mutex_);
//       return changed_.WaitUntil(mutex_, deadline, [this] { return !items_.empty(); });
//     }
//     Mutex mutex_;
//     CondVar changed_;
//     std::vector<int> items_ ABSL_GUARDED_BY(mutex_);
//   };
#pragma once

#include <algorithm>
#include <chrono>
#include <condition_variable>
#include <mutex>
#include <utility>

#include "absl/base/thread_annotations.h"
#include "absl/time/time.h"
#include "proto/contract/steady_time.h"

// Short names of the thread annotations.
#ifndef GUARDED_BY
#define GUARDED_BY(mutex) ABSL_GUARDED_BY(mutex)
#endif
#ifndef REQUIRES
#define REQUIRES(...) ABSL_EXCLUSIVE_LOCKS_REQUIRED(__VA_ARGS__)
#endif
#ifndef EXCLUDES
#define EXCLUDES(...) ABSL_LOCKS_EXCLUDED(__VA_ARGS__)
#endif

namespace modelstore {

class ABSL_LOCKABLE Mutex {
 public:
  Mutex() = default;
  Mutex(const Mutex&) = delete;
  Mutex& operator=(const Mutex&) = delete;

  void Lock() ABSL_EXCLUSIVE_LOCK_FUNCTION() { mutex_.lock(); }
  void Unlock() ABSL_UNLOCK_FUNCTION() { mutex_.unlock(); }
  bool TryLock() ABSL_EXCLUSIVE_TRYLOCK_FUNCTION(true) { return mutex_.try_lock(); }

 private:
  friend class CondVar;
  std::mutex mutex_;
};

// Holds a mutex for a scope. May be unlocked and locked again in between.
class ABSL_SCOPED_LOCKABLE MutexLock {
 public:
  explicit MutexLock(Mutex& mutex) ABSL_EXCLUSIVE_LOCK_FUNCTION(mutex) : mutex_(mutex) {
    mutex_.Lock();
  }
  ~MutexLock() ABSL_UNLOCK_FUNCTION() {
    if (held_) mutex_.Unlock();
  }
  MutexLock(const MutexLock&) = delete;
  MutexLock& operator=(const MutexLock&) = delete;

  void Unlock() ABSL_UNLOCK_FUNCTION() {
    held_ = false;
    mutex_.Unlock();
  }
  void Lock() ABSL_EXCLUSIVE_LOCK_FUNCTION() {
    mutex_.Lock();
    held_ = true;
  }

 private:
  Mutex& mutex_;
  bool held_ = true;
};

// Every wait has a deadline. absl::InfiniteFuture() is for threads that wait for work and
// are notified when they must end.
class CondVar {
 public:
  void NotifyOne() { condition_.notify_one(); }
  void NotifyAll() { condition_.notify_all(); }

  // Waits until `condition()` holds, which is evaluated with `mutex` held.
  // False if the deadline passed and it still does not.
  template <typename Condition>
  bool WaitUntil(Mutex& mutex, absl::Time deadline,
                 Condition&& condition) ABSL_NO_THREAD_SAFETY_ANALYSIS {
    std::unique_lock<std::mutex> lock(mutex.mutex_, std::adopt_lock);
    const bool holds =
        deadline == absl::InfiniteFuture()
            ? (condition_.wait(lock, std::forward<Condition>(condition)), true)
            : condition_.wait_until(lock, SteadyTime(deadline - SteadyNow()),
                                    std::forward<Condition>(condition));
    lock.release();
    return holds;
  }

  template <typename Condition>
  bool WaitUntil(Mutex& mutex, std::chrono::steady_clock::time_point deadline,
                 Condition&& condition) ABSL_NO_THREAD_SAFETY_ANALYSIS {
    std::unique_lock<std::mutex> lock(mutex.mutex_, std::adopt_lock);
    const bool holds =
        condition_.wait_until(lock, deadline, std::forward<Condition>(condition));
    lock.release();
    return holds;
  }

  template <typename Condition>
  bool WaitFor(Mutex& mutex, absl::Duration timeout, Condition&& condition) {
    return timeout == absl::InfiniteDuration()
               ? WaitUntil(mutex, absl::InfiniteFuture(),
                           std::forward<Condition>(condition))
               : WaitUntil(mutex, SteadyTime(timeout),
                           std::forward<Condition>(condition));
  }

 private:
  // Uses the monotonic clock, which steps of the wall clock do not affect. At most a year
  // ahead, so that distant deadlines do not overflow.
  static std::chrono::steady_clock::time_point SteadyTime(absl::Duration left) {
    left = std::min(std::max(left, absl::ZeroDuration()), absl::Hours(8760));
    return std::chrono::steady_clock::now() + absl::ToChronoNanoseconds(left);
  }

  std::condition_variable condition_;
};

}  // namespace modelstore
