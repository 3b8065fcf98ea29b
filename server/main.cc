// modelstored: the server as a process.
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

// Each connection holds a descriptor, each pack that is written, and some that are read.
void RaiseDescriptorLimit() {
  rlimit limit{};
  if (getrlimit(RLIMIT_NOFILE, &limit) != 0) return;
  limit.rlim_cur = limit.rlim_max;
  setrlimit(RLIMIT_NOFILE, &limit);
}

// Gives back what was kept for messages, while there are none.
void WaitForSignal(const sigset_t& signals, const Server& server) {
  const timespec second{1, 0};
  int idle_seconds = 0;
  while (sigtimedwait(&signals, nullptr, &second) < 0) {
    idle_seconds = server.streams() == 0 ? idle_seconds + 1 : 0;
    if (idle_seconds == 5) malloc_trim(0);
  }
}

int Serve(const ServerConfig& config) {
  // Blocked before any thread is made, so that all of them inherit it and
  // sigwait() below gets the signals.
  sigset_t signals;
  sigemptyset(&signals);
  sigaddset(&signals, SIGTERM);
  sigaddset(&signals, SIGINT);
  pthread_sigmask(SIG_BLOCK, &signals, nullptr);
  // Whoever reads the log may go, and so may the terminal; the server stays.
  std::signal(SIGPIPE, SIG_IGN);
  std::signal(SIGHUP, SIG_IGN);
  RaiseDescriptorLimit();
  // Messages come and go by the thousand. Memory that glibc gives back after each of
  // them is a page fault for the next: a third of a save's processor time. So what a
  // few messages need is kept; in few arenas, since each keeps its own.
  mallopt(M_ARENA_MAX, 2);
  mallopt(M_TRIM_THRESHOLD, 64 << 20);
  mallopt(M_MMAP_THRESHOLD, 32 << 20);
  mallopt(M_TOP_PAD, 16 << 20);
  // Else every malformed message of a client is a line on stderr.
  google::protobuf::SetLogHandler(nullptr);
  auto server = Server::Start(config);
  if (!server.ok()) {
    std::cerr << "modelstored: " << server.status().message() << "\n";
    return 1;
  }
  std::cout << "modelstored listening on " << (*server)->address() << std::endl;
  if (!config.port_file.empty()) {
    const std::string partial = config.port_file + ".tmp";
    std::ofstream(partial) << (*server)->port() << "\n";
    if (std::rename(partial.c_str(), config.port_file.c_str()) != 0) {
      std::cerr << "modelstored: cannot write " << config.port_file << "\n";
      return 1;
    }
  }
  WaitForSignal(signals, **server);
  const absl::Status status = (*server)->Shutdown(config.shutdown_deadline);
  // A storage thread never came back. What was acknowledged is on the disk.
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
