// Runs the real modelstored in a process, on a port of the loopback interface, with a
// folder that survives it.
//
//   auto server = ServerProcess::Start({.folder = folder.path()});
//   (*server)->Kill();                 // SIGKILL, and waits for the end
//   (*server)->Restart();              // the same folder, the same port
//
// Start it on a thread that outlives it: the kernel kills the server when that thread
// ends, so that no test leaves a server running.
#pragma once

#include <sys/types.h>

#include <atomic>
#include <chrono>
#include <cstdint>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "modelstore/v1/model_store.grpc.pb.h"
#include "tests/support/temp_folder.h"

namespace modelstore::support {

struct ServerSettings {
  // Holds `data` (the store), `port` and `log`.
  std::string folder;
  // Folder of the store; default `folder`/data.
  std::string data;
  // Added to the command line.
  std::vector<std::string> flags;
  std::chrono::seconds start_timeout{30};
  // Descriptor for its stderr, not owned; -1: the log.
  int stderr_fd = -1;
};

// Used by one thread at a time, except address(), port() and pid().
class ServerProcess {
 public:
  // Returns when the health check answers SERVING.
  static absl::StatusOr<std::unique_ptr<ServerProcess>> Start(ServerSettings settings);
  ~ServerProcess();
  ServerProcess(const ServerProcess&) = delete;
  ServerProcess& operator=(const ServerProcess&) = delete;

  int port() const { return port_; }
  std::string address() const;
  pid_t pid() const { return pid_; }
  const std::string& data() const { return settings_.data; }

  // SIGKILL; returns when the process is gone.
  void Kill();
  // Sends SIGTERM and returns at once.
  void Terminate();
  // Waits for the exit and returns the status as waitpid() does. On DEADLINE_EXCEEDED the
  // process keeps running.
  absl::StatusOr<int> WaitForExit(std::chrono::milliseconds timeout);
  // Starts it again on the same port. It must have exited.
  absl::Status Restart();
  // As Restart(), without waiting: for tests that kill it during recovery.
  absl::Status Launch();
  bool Running();

  // The last lines of its log, for failure messages.
  std::string LogTail() const;

  absl::StatusOr<v1::Stats> Stats();
  absl::StatusOr<v1::CollectGarbageResponse::Result> CollectGarbage();
  // A channel that finds a restarted server within a second.
  std::shared_ptr<grpc::Channel> NewChannel() const;

 private:
  explicit ServerProcess(ServerSettings settings) : settings_(std::move(settings)) {}
  absl::Status AwaitPort(std::chrono::steady_clock::time_point deadline);
  absl::Status AwaitHealth(std::chrono::steady_clock::time_point deadline);

  ServerSettings settings_;
  std::atomic<pid_t> pid_{0};
  std::atomic<int> port_{0};
  int exit_status_ = 0;
};

// Calls grpc.health.v1.Health/Check. OK if the server answers SERVING, UNAVAILABLE for
// any other answer, else the status of the call.
absl::Status CheckHealth(const std::shared_ptr<grpc::Channel>& channel,
                         std::chrono::milliseconds timeout);

// Anonymous resident memory of a process (/proc/PID/status); 0 if it has exited.
double RssAnonMib(pid_t pid);

// Samples a process's RssAnon every 20 ms and keeps the peak.
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

// A deadline for a gRPC call, from now.
std::chrono::system_clock::time_point In(std::chrono::milliseconds d);

}  // namespace modelstore::support
