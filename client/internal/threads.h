// Helpers for threads. A failure to start one is not an exception.
#pragma once

#include <sys/resource.h>

#include <algorithm>
#include <system_error>
#include <thread>
#include <utility>

namespace modelstore::internal {

// Starts a thread. The result is not joinable if that failed.
template <typename F>
std::thread TryThread(F&& work) {
  try {
    return std::thread(std::forward<F>(work));
  } catch (const std::system_error&) {
    return std::thread();
  }
}

// Limits a number of busy threads to one per two cores, at least one.
inline int LimitToHalfTheCores(int threads) {
  const int half_of_cores = static_cast<int>(std::thread::hardware_concurrency()) / 2;
  return std::max(1, std::min(threads, half_of_cores));
}

// Lowers the calling thread's priority (nice +10). Inherited by threads that it starts.
// Cannot be undone without privileges.
inline void LowerPriority() {
  // About a tenth of the CPU share of a thread at normal priority; never starved.
  constexpr int kNice = 10;
  // On Linux this affects the calling thread only.
  setpriority(PRIO_PROCESS, 0, getpriority(PRIO_PROCESS, 0) + kNice);
}

// Runs `work` on a new thread at lower priority and waits for it. Runs it on the calling
// thread, at its priority, if no thread can be started.
template <typename F>
void RunAtLowerPriority(F&& work) {
  std::thread thread = TryThread([&work] {
    LowerPriority();
    work();
  });
  if (thread.joinable()) {
    thread.join();
  } else {
    work();
  }
}

}  // namespace modelstore::internal
