// Output of log lines to a descriptor whose reader may be slow, stopped or closed.
#pragma once

#include <spdlog/sinks/base_sink.h>

#include <atomic>
#include <cstdint>
#include <mutex>

namespace modelstore::server {

// Writes each line to a descriptor, which it does not own, without blocking in write(2).
// While the reader is stopped, the logging thread waits here and the queue in front of it
// drops lines. Lines are also dropped if the reader is closed.
class DescriptorSink final : public spdlog::sinks::base_sink<std::mutex> {
 public:
  explicit DescriptorSink(int fd);
  ~DescriptorSink() override;

  // Called before the logging thread is joined: from now on, lines that cannot be written
  // within 2 s are dropped. Thread-safe.
  void Close();

 protected:
  void sink_it_(const spdlog::details::log_msg& message) override;
  void flush_() override {}

 private:
  enum class Kind : uint8_t {
    // A pipe or terminal, opened again with O_NONBLOCK.
    kNonBlocking,
    // A socket, written with MSG_DONTWAIT.
    kSocket,
    // A file, which never blocks for long; or a pipe or terminal that could not be opened
    // again, where write(2) may block.
    kBlocking,
  };

  bool PastDeadline() const;
  // False if the reader is closed or the deadline has passed.
  bool WaitUntilWritable();
  // As write(2), for at most PIPE_BUF bytes.
  ssize_t WriteSome(const char* data, size_t size);

  // The descriptor to write to: the one passed in, or an own one if kind_ is
  // kNonBlocking, which the destructor closes.
  int fd_;
  Kind kind_ = Kind::kBlocking;
  // Microseconds of the steady clock. No deadline before Close().
  std::atomic<int64_t> deadline_us_{INT64_MAX};
};

}  // namespace modelstore::server
