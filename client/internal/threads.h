// Threads that may fail to start, since nothing here throws.
#pragma once

#include <sys/resource.h>

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

// Runs `work` to its end on a thread that steps back for others which want the
// processor, as do the threads that it starts. On this one if the system has none to
// give: what is lowered cannot be raised again without privileges.
template <typename F>
void RunYielding(F&& work) {
  // Weighs a tenth of a thread that computes: little, and yet never nothing.
  constexpr int kNice = 10;
  std::thread thread = TryThread([&work] {
    // On Linux, of the calling thread.
    setpriority(PRIO_PROCESS, 0, getpriority(PRIO_PROCESS, 0) + kNice);
    work();
  });
  if (thread.joinable()) {
    thread.join();
  } else {
    work();
  }
}

}  // namespace modelstore::internal
