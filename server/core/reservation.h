// Accounting for memory that sessions hold in addition to messages in transit: manifests
// of running saves, plans of loads, verdicts of prunes. One bound covers all sessions.
// Nothing is allocated here; a session reserves an estimate before it allocates.
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
  // `limit` is in bytes; 0: no bound.
  explicit SessionMemory(int64_t limit) : limit_(limit) {}

  // Reserves `bytes`. Returns false, reserving nothing, if the limit would be exceeded.
  // A concurrent call that fails may make this one fail too, although it would fit.
  bool Take(int64_t bytes) {
    if (used_.fetch_add(bytes) + bytes <= limit_ || limit_ == 0) return true;
    used_.fetch_sub(bytes);
    return false;
  }
  // Returns bytes that Take() reserved.
  void Give(int64_t bytes) { used_.fetch_sub(bytes); }
  // True if `bytes` would fit if no other session held any.
  bool CanHold(int64_t bytes) const { return limit_ == 0 || bytes <= limit_; }
  int64_t limit() const { return limit_; }

 private:
  const int64_t limit_;
  std::atomic<int64_t> used_ = 0;
};

// The memory reserved by one session. The destructor returns it. Used by one thread at a
// time.
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

  // Reserves `bytes` more. UNAVAILABLE with a retry delay if other sessions hold the
  // memory; RESOURCE_EXHAUSTED if this session alone would exceed the limit.
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
