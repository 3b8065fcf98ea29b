#include "storage/space.h"

#include <algorithm>
#include <limits>
#include <string>
#include <utility>

#include "absl/strings/str_cat.h"
#include "proto/contract/errors.h"
#include "proto/contract/steady_time.h"

namespace modelstore::storage {
namespace {

// Bytes of a grant, unless more are needed; age at which a sample of the disk's free
// space is replaced.
constexpr int64_t kStep = int64_t{16} << 20;
constexpr absl::Duration kSampleMaxAge = absl::Milliseconds(100);

}  // namespace

absl::StatusOr<int64_t> SpaceAdmission::FreeBytes() const {
  if (!free_bytes_) return std::numeric_limits<int64_t>::max();
  return free_bytes_();
}

int64_t SpaceAdmission::reserved_bytes() const {
  MutexLock lock(mutex_);
  return outstanding_;
}

absl::Status SpaceAdmission::Available(int64_t bytes, int64_t& available) {
  auto left = [&]() REQUIRES(mutex_) {
    return sampled_free_ - reserve_bytes_ - written_since_ - outstanding_;
  };
  const absl::Time now = SteadyNow();
  // Queries the disk again if the sample is old, and before a refusal, as space may have
  // been freed. The new sample includes what was written before.
  if (now - sampled_at_ > kSampleMaxAge || left() < bytes) {
    absl::StatusOr<int64_t> free = FreeBytes();
    if (!free.ok()) return free.status();
    sampled_free_ = *free;
    sampled_at_ = now;
    written_since_ = 0;
  }
  available = left();
  if (available >= bytes) return absl::OkStatus();
  // A caller that does not know the size yet passes 0.
  const std::string wanted =
      bytes > 0 ? absl::StrCat(bytes, " bytes do not fit, ") : std::string();
  return MakeError(
      ERROR_REASON_DISK_FULL,
      absl::StrCat("the disk is full: ", wanted, "at least ", bytes - available,
                   " bytes must be freed: ", sampled_free_, " are free, of which ",
                   reserve_bytes_, " are kept in reserve and ", outstanding_,
                   " are promised to running saves; delete checkpoints or add space"),
      {{"bytes_to_free", absl::StrCat(bytes - available)}});
}

absl::Status SpaceAdmission::CheckSpace(int64_t bytes) {
  MutexLock lock(mutex_);
  int64_t available = 0;
  return Available(bytes, available);
}

absl::StatusOr<int64_t> SpaceAdmission::Grant(int64_t bytes) {
  MutexLock lock(mutex_);
  int64_t available = 0;
  if (absl::Status status = Available(bytes, available); !status.ok()) return status;
  const int64_t granted = std::min(available, std::max(bytes, kStep));
  outstanding_ += granted;
  return granted;
}

void SpaceAdmission::Release(int64_t unused, int64_t written) {
  MutexLock lock(mutex_);
  // Until the next sample, written bytes count against the last one.
  outstanding_ -= unused + written;
  written_since_ += written;
}

absl::Status SpaceGrant::Take(int64_t bytes) {
  if (left_ < bytes) {
    absl::StatusOr<int64_t> granted = space_->Grant(bytes - left_);
    if (!granted.ok()) return granted.status();
    left_ += *granted;
  }
  left_ -= bytes;
  space_->Release(0, bytes);
  return absl::OkStatus();
}

void SpaceGrant::ReturnUnused() { space_->Release(std::exchange(left_, 0), 0); }

}  // namespace modelstore::storage
