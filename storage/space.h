// Admission control for disk space: refuses writes that the disk has no room for, before
// they reach the engine. Bytes that are granted and not written yet count as used.
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
  // `free_bytes` returns the free bytes of the disk; unset means an unbounded disk.
  // `reserve_bytes` stay free.
  SpaceAdmission(std::function<absl::StatusOr<int64_t>()> free_bytes,
                 int64_t reserve_bytes)
      : free_bytes_(std::move(free_bytes)), reserve_bytes_(reserve_bytes) {}

  // RESOURCE_EXHAUSTED, with how many bytes must be freed, if fewer than `bytes` can be
  // accepted now. Reserves nothing. For small writes without a grant and, with 0, for
  // writes of a size that is not known yet.
  absl::Status CheckSpace(int64_t bytes) EXCLUDES(mutex_);

  // Free bytes of the disk, queried now; the largest int64_t if it is unbounded.
  absl::StatusOr<int64_t> FreeBytes() const;
  // Bytes granted and not written yet.
  int64_t reserved_bytes() const EXCLUDES(mutex_);

 private:
  friend class SpaceGrant;

  // Grants at least `bytes`, and up to 16 MiB if there is room, so that not every chunk
  // takes the lock. Returns the number granted.
  absl::StatusOr<int64_t> Grant(int64_t bytes) EXCLUDES(mutex_);
  // Sets `available` to the bytes that can be granted. RESOURCE_EXHAUSTED if they are
  // fewer than `bytes`.
  absl::Status Available(int64_t bytes, int64_t& available) REQUIRES(mutex_);
  // Ends a grant of `unused` bytes that were not and `written` bytes that are now being
  // written.
  void Release(int64_t unused, int64_t written) EXCLUDES(mutex_);

  const std::function<absl::StatusOr<int64_t>()> free_bytes_;
  const int64_t reserve_bytes_;
  mutable Mutex mutex_;
  // The last query of the disk, bytes written since then, and bytes granted and not
  // written.
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

  // Takes `bytes` that the caller is about to write. RESOURCE_EXHAUSTED if there is no
  // room.
  absl::Status Take(int64_t bytes);
  // Returns what was granted and not taken. Take() may be called again afterwards.
  void ReturnUnused();

 private:
  SpaceAdmission* const space_;
  int64_t left_ = 0;
};

}  // namespace modelstore::storage
