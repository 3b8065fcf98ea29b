#include "server/listen_address.h"

#include <arpa/inet.h>
#include <netdb.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <memory>
#include <optional>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/strip.h"

namespace modelstore::server {
namespace {

constexpr absl::string_view kUnix = "unix:";
constexpr char kUnexplained[] =
    "unknown reason: the address can be bound now; start again";

std::string WithoutBrackets(absl::string_view address) {
  if (absl::ConsumePrefix(&address, "[")) absl::ConsumeSuffix(&address, "]");
  return std::string(address);
}

// Binds and closes a socket. Returns the errno of the failure, or 0. A unix socket leaves
// its file behind.
int TryBind(const sockaddr* address, socklen_t size) {
  const int fd = socket(address->sa_family, SOCK_STREAM | SOCK_CLOEXEC, 0);
  if (fd < 0) return errno;
  const int on = 1;
  // As gRPC does, so that a port in TIME_WAIT can be bound.
  setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on));
  const bool listens = bind(fd, address, size) == 0 && listen(fd, 1) == 0;
  const int error = listens ? 0 : errno;
  close(fd);
  return error;
}

// Absent if the path is too long.
std::optional<sockaddr_un> UnixAddress(absl::string_view path) {
  sockaddr_un address{};
  if (path.size() >= sizeof(address.sun_path)) return std::nullopt;
  address.sun_family = AF_UNIX;
  std::memcpy(address.sun_path, path.data(), path.size());
  return address;
}

std::string ExplainUnixFailure(const std::string& path) {
  const auto address = UnixAddress(path);
  if (!address.has_value()) {
    return absl::StrCat("the path of a unix socket has at most ",
                        sizeof(address->sun_path) - 1, " bytes, this one has ",
                        path.size());
  }
  const int error =
      TryBind(reinterpret_cast<const sockaddr*>(&*address), sizeof(*address));
  // Removes the file that the successful attempt has created.
  if (error == 0) unlink(path.c_str());
  return error == 0 ? kUnexplained : std::strerror(error);
}

}  // namespace

bool IsUnixAddress(absl::string_view address) { return absl::StartsWith(address, kUnix); }

bool IsLocalAddress(absl::string_view address) {
  if (IsUnixAddress(address) || address == "localhost") return true;
  const std::string numeric = WithoutBrackets(address);
  in_addr v4{};
  if (inet_pton(AF_INET, numeric.c_str(), &v4) == 1) {
    return ntohl(v4.s_addr) >> 24 == IN_LOOPBACKNET;
  }
  in6_addr v6{};
  return inet_pton(AF_INET6, numeric.c_str(), &v6) == 1 && IN6_IS_ADDR_LOOPBACK(&v6);
}

std::string TargetOf(absl::string_view address, int port) {
  if (IsUnixAddress(address)) return std::string(address);
  // An IPv6 address needs brackets before its port.
  const bool bare_ipv6 = absl::StrContains(address, ':') && address[0] != '[';
  return bare_ipv6 ? absl::StrCat("[", address, "]:", port)
                   : absl::StrCat(address, ":", port);
}

bool AcceptsConnections(absl::string_view address) {
  if (!absl::ConsumePrefix(&address, kUnix)) return false;
  const auto unix_address = UnixAddress(address);
  if (!unix_address.has_value()) return false;
  const int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
  if (fd < 0) return false;
  // EAGAIN: a process listens, but its backlog is full.
  const bool answers = connect(fd, reinterpret_cast<const sockaddr*>(&*unix_address),
                               sizeof(*unix_address)) == 0 ||
                       errno == EAGAIN;
  close(fd);
  return answers;
}

std::string ExplainListenFailure(absl::string_view address, int port) {
  if (absl::ConsumePrefix(&address, kUnix)) {
    return ExplainUnixFailure(std::string(address));
  }
  addrinfo hints{};
  hints.ai_flags = AI_PASSIVE;
  hints.ai_socktype = SOCK_STREAM;
  addrinfo* found = nullptr;
  const int unresolved = getaddrinfo(WithoutBrackets(address).c_str(),
                                     absl::StrCat(port).c_str(), &hints, &found);
  if (unresolved != 0) return gai_strerror(unresolved);
  const std::unique_ptr<addrinfo, decltype(&freeaddrinfo)> owner(found, &freeaddrinfo);
  // A host name may have several addresses; the first that fails is the reason.
  for (const addrinfo* each = found; each != nullptr; each = each->ai_next) {
    const int error = TryBind(each->ai_addr, each->ai_addrlen);
    if (error != 0) return std::strerror(error);
  }
  return kUnexplained;
}

}  // namespace modelstore::server
