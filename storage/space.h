// Admission control for disk space: refuses bytes that the disk has no room for. Bytes
// granted but not yet written count as used.
#pragma once

#include <cstdint>
#include <functional>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "proto/contract/mutex.h"

namespace modelstore::storage {

class SpaceGrant;

// Thread-safe.
class SpaceAdmission {
 public:
  // `free_bytes` may be unset: a disk without bound. `reserve_bytes` stay free.
  SpaceAdmission(std::function<absl::StatusOr<int64_t>()> free_bytes,
                 int64_t reserve_bytes)
      : free_bytes_(std::move(free_bytes)), reserve_bytes_(reserve_bytes) {}

  // RESOURCE_EXHAUSTED, with the figures and how much must be freed, if fewer than
  // `bytes` can be accepted now. For small writes that no grant follows, and with 0
  // for writes of a size that is not known yet.
  absl::Status CheckSpace(int64_t bytes) EXCLUDES(mutex_);

  // Free bytes of the disk, asked anew; a very large number without bound.
  absl::StatusOr<int64_t> FreeBytes() const;
  int64_t reserved_bytes() const EXCLUDES(mutex_);

 private:
  friend class SpaceGrant;

  // Grants between `bytes` and a whole step of 16 MiB; returns how many.
  absl::StatusOr<int64_t> Grant(int64_t bytes) EXCLUDES(mutex_);
  absl::Status Available(int64_t bytes, int64_t& available) REQUIRES(mutex_);
  void Release(int64_t unused, int64_t written) EXCLUDES(mutex_);

  const std::function<absl::StatusOr<int64_t>()> free_bytes_;
  const int64_t reserve_bytes_;
  mutable Mutex mutex_;
  absl::Time sampled_at_ GUARDED_BY(mutex_) = absl::InfinitePast();
  int64_t sampled_free_ GUARDED_BY(mutex_) = 0;
  int64_t written_since_ GUARDED_BY(mutex_) = 0;
  int64_t outstanding_ GUARDED_BY(mutex_) = 0;
};

// Bytes that one save may still write. The destructor returns the rest. Used by one
// thread at a time.
class SpaceGrant {
 public:
  explicit SpaceGrant(SpaceAdmission* space) : space_(space) {}
  ~SpaceGrant() { ReturnUnused(); }
  SpaceGrant(const SpaceGrant&) = delete;
  SpaceGrant& operator=(const SpaceGrant&) = delete;

  // Asks for room for `bytes` that are about to be written.
  absl::Status Take(int64_t bytes);
  // Gives back what was granted and not taken. Take() may follow.
  void ReturnUnused();

 private:
  SpaceAdmission* const space_;
  int64_t left_ = 0;
};

}  // namespace modelstore::storage
