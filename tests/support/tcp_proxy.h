// A TCP proxy on the loopback interface that injects faults: it closes, resets or stalls
// a connection after a given number of bytes.
//
//   TcpProxy proxy(server->port());
//   auto client = ConnectTo(proxy.address());
//   proxy.FaultAfter(TcpProxy::kToServer, 1'000'000, TcpProxy::Harm::kReset);
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "proto/contract/mutex.h"

namespace modelstore::support {

// Thread-safe.
class TcpProxy {
 public:
  enum Direction { kToServer = 0, kToClient = 1 };
  enum class Fault {
    kClose,  // closes both directions
    kReset,  // resets the connection
    kStall,  // forwards nothing and closes nothing, like a dead network
  };

  explicit TcpProxy(int server_port);
  ~TcpProxy();
  TcpProxy(const TcpProxy&) = delete;
  TcpProxy& operator=(const TcpProxy&) = delete;

  std::string address() const;

  // Counts bytes in `direction` over all connections from now on. The connection that
  // would forward byte number `bytes` gets the fault before it. Then the count restarts;
  // `times` faults in total.
  void FaultAfter(Direction direction, int64_t bytes, Fault fault, int times = 1)
      EXCLUDES(mutex_);
  // Cancels FaultAfter().
  void ClearFault() EXCLUDES(mutex_);
  // Number of faults so far.
  int fault_count() const EXCLUDES(mutex_);
  // Bytes forwarded so far.
  int64_t passed(Direction direction) const EXCLUDES(mutex_);

 private:
  struct Link;
  void Accept();
  void Serve(const std::shared_ptr<Link>& link);
  // Forwards available bytes in `direction`; false at the end of the connection.
  bool Pass(Link& link, Direction direction);
  // How many of `bytes` may be forwarded, and whether the fault follows.
  int64_t Allow(Direction direction, int64_t bytes, bool& fault) EXCLUDES(mutex_);

  const int server_port_;
  int listener_ = -1;
  int port_ = 0;
  std::thread acceptor_;

  mutable Mutex mutex_;
  bool stop_ GUARDED_BY(mutex_) = false;
  Direction direction_ GUARDED_BY(mutex_) = kToServer;
  Fault fault_ GUARDED_BY(mutex_) = Fault::kClose;
  int64_t every_ GUARDED_BY(mutex_) = 0;
  int64_t left_ GUARDED_BY(mutex_) = 0;
  int times_ GUARDED_BY(mutex_) = 0;
  int fault_count_ GUARDED_BY(mutex_) = 0;
  int64_t passed_[2] GUARDED_BY(mutex_) = {0, 0};
  std::vector<std::thread> servers_ GUARDED_BY(mutex_);
};

}  // namespace modelstore::support
