// Where log lines go: a descriptor whose reader may be slow, stopped or gone.
#pragma once

#include <spdlog/sinks/base_sink.h>

#include <atomic>
#include <cstdint>
#include <mutex>

namespace modelstore::server {

// Writes each line to a descriptor, which it does not own, without being stuck in
// write(2). While the reader is stopped, the logging thread waits here and the queue
// before it drops lines. Lines that cannot be written because the reader is gone are
// dropped.
class DescriptorSink final : public spdlog::sinks::base_sink<std::mutex> {
 public:
  explicit DescriptorSink(int fd);
  ~DescriptorSink() override;

  // The logging thread is about to be joined: lines that a slow reader has not taken
  // within 2 s are dropped. Thread-safe.
  void Close();

 protected:
  void sink_it_(const spdlog::details::log_msg& message) override;
  void flush_() override {}

 private:
  enum class Kind : uint8_t {
    kNonBlocking,
    kSocket,
    // A file, which never blocks for long; or a pipe or terminal that could not be
    // opened once more, where write(2) may block after all.
    kBlocking,
  };

  bool PastDeadline() const;
  // False if the reader is gone, or the deadline has passed.
  bool WaitUntilWritable();
  // As write(2), of at most PIPE_BUF bytes.
  ssize_t WriteSome(const char* data, size_t size);

  int fd_;
  Kind kind_ = Kind::kBlocking;
  // Microseconds of the steady clock; set by Close().
  std::atomic<int64_t> deadline_us_{INT64_MAX};
};

}  // namespace modelstore::server
