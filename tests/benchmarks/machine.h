// The machine's own limits, measured beside ours in the same run.
#pragma once

#include <chrono>
#include <cstdint>
#include <string>

#include "absl/status/statusor.h"

namespace modelstore::bench {

class Stopwatch {
 public:
  double seconds() const {
    return std::chrono::duration<double>(std::chrono::steady_clock::now() - start_)
        .count();
  }

 private:
  std::chrono::steady_clock::time_point start_ = std::chrono::steady_clock::now();
};

// Makes the sections that follow comparable. Waits until the disks are quiet
// (sync), then touches and frees `touch_bytes` in huge pages and as many in small
// ones: on a virtual machine the first touch of a page that the host has taken back
// costs several times what the section itself does.
void Settle(int64_t touch_bytes);

// Seconds to write `bytes` of a new file at `path`, fdatasync included. Removes
// the file.
absl::StatusOr<double> DiskWriteSeconds(const std::string& path, int64_t bytes);

// Seconds to bring `bytes` through a plain TCP connection over loopback, in
// messages of 1 MiB, from another thread.
absl::StatusOr<double> SocketSeconds(int64_t bytes);

// Processor, cores, memory, kernel; file system of `path`.
std::string DescribeMachine(const std::string& path);

}  // namespace modelstore::bench
