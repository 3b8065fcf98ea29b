#include "tests/support/tcp_proxy.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>

#include "absl/strings/str_cat.h"

namespace modelstore::support {
namespace {

constexpr int kPollMs = 20;
constexpr size_t kBuffer = 64 << 10;

sockaddr_in Loopback(int port) {
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_port = htons(static_cast<uint16_t>(port));
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  return address;
}

// No delay, and a bounded wait for a peer that does not read.
void Prepare(int fd) {
  const int on = 1;
  setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
  const timeval patience{.tv_sec = 10, .tv_usec = 0};
  setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &patience, sizeof patience);
}

int ConnectTo(int port) {
  const int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  const sockaddr_in address = Loopback(port);
  if (connect(fd, reinterpret_cast<const sockaddr*>(&address), sizeof address) != 0) {
    close(fd);
    return -1;
  }
  Prepare(fd);
  return fd;
}

bool SendAll(int fd, const char* data, size_t size) {
  while (size > 0) {
    const ssize_t n = send(fd, data, size, MSG_NOSIGNAL);
    if (n < 0 && errno == EINTR) continue;
    if (n <= 0) return false;
    data += n;
    size -= static_cast<size_t>(n);
  }
  return true;
}

// Makes the next close() send a reset.
void ResetOnClose(int fd) {
  const linger now{.l_onoff = 1, .l_linger = 0};
  setsockopt(fd, SOL_SOCKET, SO_LINGER, &now, sizeof now);
}

}  // namespace

// The two sockets of a connection: [kToServer] is read from the client.
struct TcpProxy::Link {
  int from[2] = {-1, -1};
  bool stalled = false;
  ~Link() {
    for (int fd : from) {
      if (fd >= 0) close(fd);
    }
  }
};

TcpProxy::TcpProxy(int server_port) : server_port_(server_port) {
  listener_ = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  sockaddr_in address = Loopback(0);
  bind(listener_, reinterpret_cast<sockaddr*>(&address), sizeof address);
  listen(listener_, 512);
  socklen_t size = sizeof address;
  getsockname(listener_, reinterpret_cast<sockaddr*>(&address), &size);
  port_ = ntohs(address.sin_port);
  acceptor_ = std::thread([this] { Accept(); });
}

TcpProxy::~TcpProxy() {
  {
    MutexLock lock(mutex_);
    stop_ = true;
  }
  acceptor_.join();
  std::vector<std::thread> servers;
  {
    MutexLock lock(mutex_);
    servers.swap(servers_);
  }
  for (std::thread& t : servers) t.join();
  close(listener_);
}

std::string TcpProxy::address() const { return absl::StrCat("127.0.0.1:", port_); }

void TcpProxy::FaultAfter(Direction direction, int64_t bytes, Fault fault, int times) {
  MutexLock lock(mutex_);
  direction_ = direction;
  fault_ = fault;
  every_ = left_ = bytes;
  times_ = times;
}

void TcpProxy::ClearFault() {
  MutexLock lock(mutex_);
  times_ = 0;
}

int TcpProxy::fault_count() const {
  MutexLock lock(mutex_);
  return fault_count_;
}

int64_t TcpProxy::passed(Direction direction) const {
  MutexLock lock(mutex_);
  return passed_[direction];
}

int64_t TcpProxy::Allow(Direction direction, int64_t bytes, bool& fault) {
  MutexLock lock(mutex_);
  fault = false;
  if (times_ > 0 && direction == direction_) {
    if (left_ <= bytes) {
      bytes = left_;
      left_ = every_;
      --times_;
      ++fault_count_;
      fault = true;
    } else {
      left_ -= bytes;
    }
  }
  passed_[direction] += bytes;
  return bytes;
}

void TcpProxy::Accept() {
  while (true) {
    {
      MutexLock lock(mutex_);
      if (stop_) return;
    }
    pollfd ready{.fd = listener_, .events = POLLIN, .revents = 0};
    if (poll(&ready, 1, kPollMs) <= 0) continue;
    const int client = accept4(listener_, nullptr, nullptr, SOCK_CLOEXEC);
    if (client < 0) continue;
    auto link = std::make_shared<Link>();
    link->from[kToServer] = client;
    link->from[kToClient] = ConnectTo(server_port_);
    // The server does not listen: closes the client's connection.
    if (link->from[kToClient] < 0) continue;
    Prepare(client);
    MutexLock lock(mutex_);
    servers_.emplace_back([this, link] { Serve(link); });
  }
}

void TcpProxy::Serve(const std::shared_ptr<Link>& link) {
  while (true) {
    {
      MutexLock lock(mutex_);
      if (stop_) return;
    }
    pollfd ready[2] = {{.fd = link->from[0], .events = POLLIN, .revents = 0},
                       {.fd = link->from[1], .events = POLLIN, .revents = 0}};
    if (link->stalled) ready[0].events = ready[1].events = 0;
    if (poll(ready, 2, kPollMs) <= 0) continue;
    for (Direction d : {kToServer, kToClient}) {
      if (link->stalled) {
        if ((ready[d].revents & (POLLHUP | POLLERR)) != 0) return;
      } else if (ready[d].revents != 0 && !Pass(*link, d)) {
        return;
      }
    }
  }
}

bool TcpProxy::Pass(Link& link, Direction direction) {
  char buffer[kBuffer];
  const ssize_t n = recv(link.from[direction], buffer, sizeof buffer, MSG_DONTWAIT);
  if (n < 0) return errno == EAGAIN || errno == EINTR;
  if (n == 0) return false;
  bool harmed = false;
  const int64_t allowed = Allow(direction, n, harmed);
  const int to = link.from[1 - direction];
  if (!SendAll(to, buffer, static_cast<size_t>(allowed))) return false;
  if (!harmed) return true;
  Fault fault;
  {
    MutexLock lock(mutex_);
    fault = fault_;
  }
  if (fault == Fault::kStall) {
    link.stalled = true;
    return true;
  }
  if (fault == Fault::kReset) {
    ResetOnClose(link.from[0]);
    ResetOnClose(link.from[1]);
  }
  return false;
}

}  // namespace modelstore::support
