// modelstored: the server process.
#include <malloc.h>
#include <sys/resource.h>

#include <csignal>
#include <cstdio>
#include <fstream>
#include <iostream>

#include "google/protobuf/stubs/logging.h"
#include "server/health_command.h"
#include "server/server.h"

namespace {

using modelstore::server::Command;
using modelstore::server::Server;
using modelstore::server::ServerConfig;

// Each connection, each pack being written and each open pack needs a descriptor.
void RaiseDescriptorLimit() {
  rlimit limit{};
  if (getrlimit(RLIMIT_NOFILE, &limit) != 0) return;
  limit.rlim_cur = limit.rlim_max;
  setrlimit(RLIMIT_NOFILE, &limit);
}

// Waits for a signal. Returns unused memory to the system after 5 s without streams.
void WaitForSignal(const sigset_t& signals, const Server& server) {
  const timespec second{1, 0};
  int idle_seconds = 0;
  while (sigtimedwait(&signals, nullptr, &second) < 0) {
    idle_seconds = server.streams() == 0 ? idle_seconds + 1 : 0;
    if (idle_seconds == 5) malloc_trim(0);
  }
}

int Serve(const ServerConfig& config) {
  // Blocked before any thread starts, so that all threads inherit it and only
  // WaitForSignal() receives the signals.
  sigset_t signals;
  sigemptyset(&signals);
  sigaddset(&signals, SIGTERM);
  sigaddset(&signals, SIGINT);
  pthread_sigmask(SIG_BLOCK, &signals, nullptr);
  // The server continues if the reader of the log or the terminal is closed.
  std::signal(SIGPIPE, SIG_IGN);
  std::signal(SIGHUP, SIG_IGN);
  RaiseDescriptorLimit();
  // By default glibc returns the memory of each message to the kernel, and the page
  // faults of the next message take a third of a save's CPU time. These settings keep
  // enough memory for a few messages, in few arenas, as each arena keeps its own.
  mallopt(M_ARENA_MAX, 2);
  mallopt(M_TRIM_THRESHOLD, 64 << 20);
  mallopt(M_MMAP_THRESHOLD, 32 << 20);
  mallopt(M_TOP_PAD, 16 << 20);
  // Otherwise protobuf prints a line to stderr for every malformed message of a client.
  google::protobuf::SetLogHandler(nullptr);
  auto server = Server::Start(config);
  if (!server.ok()) {
    std::cerr << "modelstored: " << server.status().message() << "\n";
    return 1;
  }
  std::cout << "modelstored listening on " << (*server)->address() << std::endl;
  if (!config.port_file.empty()) {
    // Renamed when complete, so that a reader that waits for the file never finds it
    // empty.
    const std::string partial = config.port_file + ".tmp";
    std::ofstream file(partial);
    file << (*server)->port() << "\n";
    file.close();
    if (!file || std::rename(partial.c_str(), config.port_file.c_str()) != 0) {
      std::cerr << "modelstored: cannot write " << config.port_file << "\n";
      return 1;
    }
  }
  WaitForSignal(signals, **server);
  const absl::Status status = (*server)->Shutdown(config.shutdown_deadline);
  // A storage thread is stuck, so destructors would hang. Acknowledged data is on disk.
  if (!status.ok()) std::_Exit(1);
  return 0;
}

}  // namespace

int main(int argc, char** argv) {
  const auto parsed = modelstore::server::ParseCommandLine(
      std::vector<std::string>(argv + 1, argv + argc));
  if (!parsed.command) {
    (parsed.exit_code == 0 ? std::cout : std::cerr) << parsed.text;
    return parsed.exit_code;
  }
  if (parsed.command->kind == Command::Kind::kServe) return Serve(parsed.command->config);
  const absl::Status health = modelstore::server::CheckHealth(
      parsed.command->health_target, parsed.command->health_timeout);
  if (health.ok()) return 0;
  std::cerr << "modelstored: " << health.message() << "\n";
  return 1;
}
