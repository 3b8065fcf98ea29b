#include "server/log_sink.h"

#include <poll.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <climits>

namespace modelstore::server {
namespace {

// How often a wait looks whether the log is being closed.
constexpr int kPollMilliseconds = 100;

}  // namespace

bool DescriptorSink::AwaitReader() {
  for (;;) {
    pollfd waiting{fd_, POLLOUT, 0};
    const int ready = poll(&waiting, 1, kPollMilliseconds);
    if (ready > 0) return (waiting.revents & POLLOUT) != 0;
    if (ready < 0 && errno != EINTR) return false;
    if (closing_) {
      // Else each of the waiting lines would wait as long.
      abandoned_ = true;
      return false;
    }
  }
}

void DescriptorSink::sink_it_(const spdlog::details::log_msg& message) {
  if (abandoned_) return;
  spdlog::memory_buf_t line;
  formatter_->format(message, line);
  const char* next = line.data();
  size_t left = line.size();
  while (left > 0) {
    if (!AwaitReader()) return;
    // A pipe that poll() calls writable has room for this much, so write() returns.
    const ssize_t written = write(fd_, next, std::min<size_t>(left, PIPE_BUF));
    if (written < 0 && (errno == EINTR || errno == EAGAIN)) continue;
    if (written <= 0) return;
    next += written;
    left -= static_cast<size_t>(written);
  }
}

}  // namespace modelstore::server
