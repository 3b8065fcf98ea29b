// Threads that may fail to start, since nothing here throws.
#pragma once

#include <sys/resource.h>

#include <algorithm>
#include <system_error>
#include <thread>
#include <utility>

namespace modelstore::internal {

// A thread that is not joinable if the system has none to give.
template <typename F>
std::thread TryThread(F&& work) {
  try {
    return std::thread(std::forward<F>(work));
  } catch (const std::system_error&) {
    return std::thread();
  }
}

// Of `threads` that keep a core busy each, at most one per two cores; at least one.
inline int OnePerTwoCores(int threads) {
  const int half_of_cores = static_cast<int>(std::thread::hardware_concurrency()) / 2;
  return std::max(1, std::min(threads, half_of_cores));
}

// Makes the calling thread step back for others which want the processor, as do the
// threads that it starts from now on. What is lowered cannot be raised again without
// privileges.
inline void StepBack() {
  // Weighs a tenth of a thread that computes: little, and yet never nothing.
  constexpr int kNice = 10;
  // On Linux, of the calling thread.
  setpriority(PRIO_PROCESS, 0, getpriority(PRIO_PROCESS, 0) + kNice);
}

// Runs `work` to its end on a thread that has stepped back; on this one if the system
// has none to give.
template <typename F>
void RunYielding(F&& work) {
  std::thread thread = TryThread([&work] {
    StepBack();
    work();
  });
  if (thread.joinable()) {
    thread.join();
  } else {
    work();
  }
}

}  // namespace modelstore::internal
