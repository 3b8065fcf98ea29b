#include "tests/benchmarks/machine.h"

#include <arpa/inet.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/statfs.h>
#include <sys/sysinfo.h>
#include <sys/utsname.h>
#include <unistd.h>

#include <algorithm>
#include <fstream>
#include <thread>
#include <vector>

#include "absl/cleanup/cleanup.h"
#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"

namespace modelstore::bench {
namespace {

constexpr size_t kBlock = 1 << 20;

std::vector<char> Noise(size_t size) {
  std::vector<char> data(size);
  uint64_t x = 88172645463325252u;
  for (char& c : data) {
    x ^= x << 13, x ^= x >> 7, x ^= x << 17;
    c = static_cast<char>(x);
  }
  return data;
}

// Sends until all is out or the other end is gone.
void SendAll(int fd, int64_t bytes, const std::vector<char>& block) {
  while (bytes > 0) {
    const auto size =
        static_cast<size_t>(std::min<int64_t>(bytes, static_cast<int64_t>(block.size())));
    const ssize_t n = send(fd, block.data(), size, MSG_NOSIGNAL);
    if (n <= 0) return;
    bytes -= n;
  }
}

void TouchAndFree(size_t bytes, int advice) {
  void* memory =
      mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (memory == MAP_FAILED) return;
  madvise(memory, bytes, advice);
  for (size_t i = 0; i < bytes; i += 4096) {
    static_cast<volatile char*>(memory)[i] = 1;
  }
  munmap(memory, bytes);
}

}  // namespace

void Settle(int64_t touch_bytes) {
  sync();
  // The kernel hands out small and huge pages from different lists. Python takes small
  // ones, the client huge ones: with small ones touched alone it loaded into fresh
  // memory at 0.37 GB/s, with both at 1.4.
  TouchAndFree(static_cast<size_t>(touch_bytes), MADV_HUGEPAGE);
  TouchAndFree(static_cast<size_t>(touch_bytes), MADV_NOHUGEPAGE);
}

absl::StatusOr<double> DiskWriteSeconds(const std::string& path, int64_t bytes) {
  static const std::vector<char> block = Noise(4 * kBlock);
  const int fd = open(path.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
  if (fd < 0) return absl::ErrnoToStatus(errno, path);
  absl::Cleanup remove = [&] {
    close(fd);
    unlink(path.c_str());
  };
  Stopwatch watch;
  for (int64_t left = bytes; left > 0;) {
    const ssize_t n =
        write(fd, block.data(), static_cast<size_t>(std::min<int64_t>(left, 4 * kBlock)));
    if (n <= 0) return absl::ErrnoToStatus(errno, path);
    left -= n;
  }
  if (fdatasync(fd) != 0) return absl::ErrnoToStatus(errno, path);
  return watch.seconds();
}

absl::StatusOr<double> SocketSeconds(int64_t bytes) {
  const std::vector<char> block = Noise(kBlock);
  const int listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  absl::Cleanup close_listener = [&] { close(listener); };
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  socklen_t size = sizeof address;
  if (bind(listener, reinterpret_cast<sockaddr*>(&address), size) != 0 ||
      listen(listener, 1) != 0 ||
      getsockname(listener, reinterpret_cast<sockaddr*>(&address), &size) != 0) {
    return absl::ErrnoToStatus(errno, "listening on loopback");
  }
  const int sending = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  absl::Cleanup close_sending = [&] { close(sending); };
  if (connect(sending, reinterpret_cast<sockaddr*>(&address), sizeof address) != 0) {
    return absl::ErrnoToStatus(errno, "connecting over loopback");
  }
  const int receiving = accept4(listener, nullptr, nullptr, SOCK_CLOEXEC);
  if (receiving < 0) return absl::ErrnoToStatus(errno, "accept");
  std::vector<char> landed(kBlock);
  // A thread, not a process: after a fork, the next load into the gigabyte that this
  // process holds would fault on each of its pages.
  std::jthread sender([&] { SendAll(sending, bytes, block); });
  // Before the thread is waited for, which then finds nobody to send to.
  absl::Cleanup close_receiving = [&] { close(receiving); };
  Stopwatch watch;
  int64_t got = 0;
  while (got < bytes) {
    const ssize_t n = recv(receiving, landed.data(), landed.size(), 0);
    if (n <= 0) return absl::UnavailableError("the plain socket broke off");
    got += n;
  }
  return watch.seconds();
}

std::string DescribeMachine(const std::string& path) {
  std::string cpu = "unknown processor", line;
  for (std::ifstream in("/proc/cpuinfo"); std::getline(in, line);) {
    if (line.rfind("model name", 0) == 0) {
      cpu = line.substr(line.find(':') + 2);
      break;
    }
  }
  struct sysinfo info {};
  sysinfo(&info);
  utsname kernel{};
  uname(&kernel);
  struct statfs fs {};
  statfs(path.c_str(), &fs);
  return absl::StrFormat("%s, %d cores, %.0f GiB of memory, Linux %s, file system %x",
                         cpu, std::thread::hardware_concurrency(),
                         static_cast<double>(info.totalram) * info.mem_unit / (1u << 30),
                         kernel.release, fs.f_type);
}

}  // namespace modelstore::bench
