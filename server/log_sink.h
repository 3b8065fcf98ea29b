// Where log lines go: a descriptor whose reader may be slow, stopped or gone.
#pragma once

#include <spdlog/sinks/base_sink.h>

#include <atomic>
#include <mutex>

namespace modelstore::server {

// Writes each line to a descriptor, which it does not own, without ever being stuck
// in write(2): it polls first and writes what fits. While the reader is stopped, the
// logging thread waits here and the queue before it drops lines. Lines that cannot be
// written because the reader is gone are dropped.
class DescriptorSink final : public spdlog::sinks::base_sink<std::mutex> {
 public:
  explicit DescriptorSink(int fd) : fd_(fd) {}

  // The logging thread is about to be joined: from now on nothing waits for a reader
  // that takes nothing. Any thread may call it.
  void Close() { closing_ = true; }

 protected:
  void sink_it_(const spdlog::details::log_msg& message) override;
  void flush_() override {}

 private:
  // False if the reader is gone, or takes nothing while the sink is closing.
  bool AwaitReader();

  const int fd_;
  std::atomic<bool> closing_{false};
  // The reader took nothing while the sink was closing. Guarded by the base's mutex.
  bool abandoned_ = false;
};

}  // namespace modelstore::server
