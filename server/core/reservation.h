// Memory that sessions hold beside the messages in transit: manifests that are being
// saved, plans of loads, verdicts of prunes. One bound over all of them.
#pragma once

#include <atomic>
#include <cstdint>
#include <memory>
#include <utility>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "proto/contract/errors.h"

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
  // Whether so much would fit if nobody else held anything.
  bool CanHold(int64_t bytes) const { return limit_ == 0 || bytes <= limit_; }
  int64_t limit() const { return limit_; }

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

  // Overloaded while others hold the memory; RESOURCE_EXHAUSTED where the session
  // alone would not fit.
  absl::Status Grow(int64_t bytes) {
    if (!memory_->CanHold(bytes_ + bytes)) {
      return OverLimit(
          "memory_bytes", memory_->limit(),
          absl::StrCat("the call needs ", bytes_ + bytes,
                       " bytes of memory, and the server has ", memory_->limit(),
                       " for all calls: raise --memory-budget"));
    }
    if (!memory_->Take(bytes)) {
      return Overloaded(absl::StrCat("running calls hold the server's ", memory_->limit(),
                                     " bytes of memory for them: retry later"));
    }
    bytes_ += bytes;
    return absl::OkStatus();
  }

 private:
  std::shared_ptr<SessionMemory> memory_;
  int64_t bytes_ = 0;
};

}  // namespace modelstore::server
