// Threads that may fail to start, since nothing here throws.
#pragma once

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

}  // namespace modelstore::internal
