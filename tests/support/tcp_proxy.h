// A TCP proxy on the loopback interface that hurts what passes through it: closes,
// resets or stalls a connection after a chosen number of bytes.
//
//   TcpProxy proxy(server->port());
//   auto client = ConnectTo(proxy.address());
//   proxy.HurtAfter(TcpProxy::kToServer, 1'000'000, TcpProxy::Harm::kReset);
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
  enum class Harm {
    kClose,  // an orderly end in both directions
    kReset,  // the connection breaks at once
    kStall,  // nothing passes any more and nothing is closed: a dead network
  };

  explicit TcpProxy(int server_port);
  ~TcpProxy();
  TcpProxy(const TcpProxy&) = delete;
  TcpProxy& operator=(const TcpProxy&) = delete;

  std::string address() const;

  // Of the bytes that pass in `direction` from now on, over all connections, the
  // connection that carries byte number `bytes` is hurt just before it. Then the
  // count begins anew, `times` times in all.
  void HurtAfter(Direction direction, int64_t bytes, Harm harm, int times = 1)
      EXCLUDES(mutex_);
  // Ends what HurtAfter() began.
  void Heal() EXCLUDES(mutex_);
  // Connections hurt since the start.
  int hurt() const EXCLUDES(mutex_);
  // Bytes that passed since the start.
  int64_t passed(Direction direction) const EXCLUDES(mutex_);

 private:
  struct Link;
  void Accept();
  void Serve(const std::shared_ptr<Link>& link);
  // Passes on what `link` has to read in `direction`; false at the link's end.
  bool Pass(Link& link, Direction direction);
  // How many of `bytes` may pass; whether the harm comes after them.
  int64_t Allow(Direction direction, int64_t bytes, bool& harm) EXCLUDES(mutex_);

  const int server_port_;
  int listener_ = -1;
  int port_ = 0;
  std::thread acceptor_;

  mutable Mutex mutex_;
  bool stop_ GUARDED_BY(mutex_) = false;
  Direction direction_ GUARDED_BY(mutex_) = kToServer;
  Harm harm_ GUARDED_BY(mutex_) = Harm::kClose;
  int64_t every_ GUARDED_BY(mutex_) = 0;
  int64_t left_ GUARDED_BY(mutex_) = 0;
  int times_ GUARDED_BY(mutex_) = 0;
  int hurt_ GUARDED_BY(mutex_) = 0;
  int64_t passed_[2] GUARDED_BY(mutex_) = {0, 0};
  std::vector<std::thread> servers_ GUARDED_BY(mutex_);
};

}  // namespace modelstore::support
