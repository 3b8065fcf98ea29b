// Child processes of the benchmark and what /proc tells about them.
#pragma once

#include <sys/types.h>

#include <atomic>
#include <cstdint>
#include <string>
#include <thread>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

namespace modelstore::bench {

// A child with its stdin and stdout on pipes. Killed by pid when destroyed.
class Process {
 public:
  // `log` takes stderr, and stdout too if `capture` is false.
  static absl::StatusOr<Process> Start(const std::vector<std::string>& argv,
                                       const std::string& log, bool capture);
  Process(Process&& other) noexcept;
  Process& operator=(Process&&) = delete;
  ~Process();

  pid_t pid() const { return pid_; }
  bool Running();
  absl::Status WriteLine(const std::string& line);
  // UNAVAILABLE if the child has ended, DEADLINE_EXCEEDED after `seconds`.
  absl::StatusOr<std::string> ReadLine(int seconds);
  // Sends `signal` and waits until the child has ended, at most `seconds`; then
  // kills it.
  void Stop(int signal, int seconds);

 private:
  Process(pid_t pid, int in, int out) : pid_(pid), in_(in), out_(out) {}
  pid_t pid_;
  int in_;
  int out_;
  std::string buffer_;
};

// CPU seconds, user and system, of all threads of a process. 0 means this one.
double CpuSeconds(pid_t pid);
// Of the calling thread.
double ThreadCpuSeconds();
// Seconds that the calling thread could have run and had no core, by the kernel's
// account.
absl::StatusOr<double> CoreWaitSeconds();
// What the process has caused to be written to disks (/proc/PID/io).
int64_t WriteBytes(pid_t pid);
// Anonymous resident memory (/proc/PID/status).
double RssAnonMib(pid_t pid);
// Bytes received on the loopback interface since boot.
int64_t LoopbackBytes();

// The peak of RssAnon while it lives, sampled every 20 ms.
class RssSampler {
 public:
  explicit RssSampler(pid_t pid);
  ~RssSampler();
  double peak_mib() const { return peak_; }

 private:
  std::atomic<bool> stop_{false};
  std::atomic<double> peak_{0};
  std::thread thread_;
};

}  // namespace modelstore::bench
