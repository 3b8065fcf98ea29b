#include "server/log_sink.h"

#include <fcntl.h>
#include <poll.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <climits>

#include "absl/strings/str_cat.h"
#include "proto/contract/steady_time.h"

namespace modelstore::server {
namespace {

// Interval at which a wait checks the deadline, which Close() may set meanwhile.
constexpr int kPollMilliseconds = 100;
constexpr absl::Duration kCloseTime = absl::Seconds(2);

}  // namespace

DescriptorSink::DescriptorSink(int fd) : fd_(fd) {
  struct stat status {};
  if (fstat(fd, &status) != 0) return;
  if (S_ISSOCK(status.st_mode)) kind_ = Kind::kSocket;
  if (!S_ISFIFO(status.st_mode) && !S_ISCHR(status.st_mode)) return;
  // Setting O_NONBLOCK on `fd` itself would affect all processes that share the pipe or
  // terminal, so it is opened again. A file is not, because two descriptors with an
  // offset each would overwrite each other's lines.
  const int own = open(absl::StrCat("/proc/self/fd/", fd).c_str(),
                       O_WRONLY | O_NONBLOCK | O_NOCTTY | O_CLOEXEC | O_APPEND);
  if (own < 0) return;
  fd_ = own;
  kind_ = Kind::kNonBlocking;
}

DescriptorSink::~DescriptorSink() {
  if (kind_ == Kind::kNonBlocking) close(fd_);
}

void DescriptorSink::Close() {
  deadline_us_ = absl::ToUnixMicros(SteadyNow() + kCloseTime);
}

bool DescriptorSink::PastDeadline() const {
  return absl::ToUnixMicros(SteadyNow()) > deadline_us_;
}

bool DescriptorSink::WaitUntilWritable() {
  while (!PastDeadline()) {
    pollfd waiting{fd_, POLLOUT, 0};
    const int ready = poll(&waiting, 1, kPollMilliseconds);
    if (ready > 0) return (waiting.revents & POLLOUT) != 0;
    if (ready < 0 && errno != EINTR) return false;
  }
  return false;
}

ssize_t DescriptorSink::WriteSome(const char* data, size_t size) {
  // A pipe takes up to PIPE_BUF bytes completely or not at all.
  size = std::min<size_t>(size, PIPE_BUF);
  if (kind_ == Kind::kSocket) return send(fd_, data, size, MSG_DONTWAIT | MSG_NOSIGNAL);
  return write(fd_, data, size);
}

void DescriptorSink::sink_it_(const spdlog::details::log_msg& message) {
  spdlog::memory_buf_t line;
  formatter_->format(message, line);
  const char* next = line.data();
  size_t left = line.size();
  bool refused = false;
  while (left > 0) {
    if (!WaitUntilWritable()) return;
    const ssize_t written = WriteSome(next, left);
    if (written > 0) {
      next += written;
      left -= static_cast<size_t>(written);
      refused = false;
    } else if (written == 0 || (errno != EINTR && errno != EAGAIN)) {
      return;
    } else if (errno == EAGAIN) {
      // A stopped terminal may be reported as writable by poll() and still refuse every
      // write: sleep instead of spinning.
      if (refused) absl::SleepFor(absl::Milliseconds(kPollMilliseconds));
      refused = true;
    }
  }
}

}  // namespace modelstore::server
