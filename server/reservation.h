// Memory that sessions hold beside the messages in transit: manifests that are
// being saved, plans of loads. One bound over all of them.
#pragma once

#include <atomic>
#include <cstdint>
#include <memory>
#include <utility>

#include "absl/status/status.h"

namespace modelstore::server {

// Thread-safe.
class SessionMemory {
 public:
  // 0: without bound.
  explicit SessionMemory(int64_t limit) : limit_(limit) {}

  bool Take(int64_t bytes) {
    if (used_.fetch_add(bytes) + bytes <= limit_ || limit_ == 0) return true;
    used_.fetch_sub(bytes);
    return false;
  }
  void Give(int64_t bytes) { used_.fetch_sub(bytes); }

 private:
  const int64_t limit_;
  std::atomic<int64_t> used_ = 0;
};

// One session's share, given back at the end of its life.
class Reservation {
 public:
  explicit Reservation(std::shared_ptr<SessionMemory> memory)
      : memory_(std::move(memory)) {}
  ~Reservation() {
    if (memory_ != nullptr) memory_->Give(bytes_);
  }
  Reservation(Reservation&& other) noexcept
      : memory_(std::move(other.memory_)), bytes_(std::exchange(other.bytes_, 0)) {}
  Reservation& operator=(Reservation&&) = delete;

  absl::Status Grow(int64_t bytes) {
    if (!memory_->Take(bytes)) {
      return absl::ResourceExhaustedError(
          "the server holds as many manifests as its memory budget allows: retry later, "
          "or raise --memory-budget");
    }
    bytes_ += bytes;
    return absl::OkStatus();
  }

 private:
  std::shared_ptr<SessionMemory> memory_;
  int64_t bytes_ = 0;
};

}  // namespace modelstore::server
