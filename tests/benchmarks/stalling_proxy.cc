#include "tests/benchmarks/stalling_proxy.h"

#include <arpa/inet.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <vector>

#include "absl/strings/str_cat.h"

namespace modelstore::bench {
namespace {

sockaddr_in Loopback(int port) {
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_port = htons(static_cast<uint16_t>(port));
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  return address;
}

struct Link {
  int client = -1;
  int server = -1;
  int64_t left = 0;  // bytes that the client may still send
  bool dead = false;
};

// Passes on what is there; returns false when the connection is over.
bool Pass(int from, int to, int64_t limit, int64_t* passed) {
  char data[256 << 10];
  const auto want = static_cast<size_t>(std::min<int64_t>(limit, sizeof data));
  const ssize_t n = recv(from, data, want, MSG_DONTWAIT);
  if (n < 0) return errno == EAGAIN || errno == EINTR;
  if (n == 0) return false;
  for (ssize_t done = 0; done < n;) {
    const ssize_t m = send(to, data + done, static_cast<size_t>(n - done), MSG_NOSIGNAL);
    if (m <= 0) return false;
    done += m;
  }
  *passed = n;
  return true;
}

}  // namespace

StallingProxy::StallingProxy(int server_port, int64_t first_bytes, int64_t step_bytes)
    : server_port_(server_port),
      first_bytes_(first_bytes),
      step_bytes_(step_bytes),
      listener_(socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0)) {
  sockaddr_in address = Loopback(0);
  socklen_t size = sizeof address;
  bind(listener_, reinterpret_cast<sockaddr*>(&address), size);
  listen(listener_, 512);
  getsockname(listener_, reinterpret_cast<sockaddr*>(&address), &size);
  port_ = ntohs(address.sin_port);
  thread_ = std::thread([this] { Run(); });
}

StallingProxy::~StallingProxy() {
  stop_ = true;
  thread_.join();
  close(listener_);
}

std::string StallingProxy::address() const { return absl::StrCat("127.0.0.1:", port_); }

void StallingProxy::Run() {
  std::vector<Link> links;
  while (!stop_) {
    // Entry 0 is the listener; links follow in twos. A stalled side is not asked.
    std::vector<pollfd> polls{{listener_, POLLIN, 0}};
    for (const Link& l : links) {
      polls.push_back({l.dead || l.left == 0 ? -1 : l.client, POLLIN, 0});
      polls.push_back({l.dead ? -1 : l.server, POLLIN, 0});
    }
    if (poll(polls.data(), polls.size(), 50) <= 0) continue;
    for (size_t i = 0; i < links.size(); ++i) {
      Link& l = links[i];
      int64_t n = 0;
      if (polls[1 + 2 * i].revents != 0) {
        if (!Pass(l.client, l.server, l.left, &n)) l.dead = true;
        l.left -= n;
        passed_bytes_ += n;
        if (l.left == 0) ++stalled_;
      }
      if (polls[2 + 2 * i].revents != 0 && !Pass(l.server, l.client, 1 << 20, &n)) {
        l.dead = true;
      }
    }
    if (polls[0].revents == 0) continue;
    Link l;
    l.client = accept4(listener_, nullptr, nullptr, SOCK_CLOEXEC);
    if (l.client < 0) continue;
    l.server = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    const sockaddr_in address = Loopback(server_port_);
    l.dead = connect(l.server, reinterpret_cast<const sockaddr*>(&address),
                     sizeof address) != 0;
    l.left = first_bytes_ + static_cast<int64_t>(links.size()) * step_bytes_ % (4 << 20);
    links.push_back(l);
  }
  for (const Link& l : links) {
    close(l.client);
    close(l.server);
  }
}

}  // namespace modelstore::bench
