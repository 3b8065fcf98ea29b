// A TCP proxy whose clients stall: of each connection it passes so many bytes on
// to the server, and then no more, without closing anything. What a dead network
// or a stopped process looks like from the server.
#pragma once

#include <atomic>
#include <cstdint>
#include <string>
#include <thread>

namespace modelstore::bench {

class StallingProxy {
 public:
  // Connection i passes `first_bytes + i * step_bytes`, modulo 4 MiB, so that
  // connections stall at different places of a message.
  StallingProxy(int server_port, int64_t first_bytes, int64_t step_bytes);
  ~StallingProxy();
  StallingProxy(const StallingProxy&) = delete;

  std::string address() const;
  // Connections that have passed all they will.
  int stalled() const { return stalled_; }
  int64_t passed_bytes() const { return passed_bytes_; }

 private:
  void Run();

  const int server_port_;
  const int64_t first_bytes_;
  const int64_t step_bytes_;
  int listener_;
  int port_ = 0;
  std::atomic<bool> stop_{false};
  std::atomic<int> stalled_{0};
  std::atomic<int64_t> passed_bytes_{0};
  std::thread thread_;
};

}  // namespace modelstore::bench
