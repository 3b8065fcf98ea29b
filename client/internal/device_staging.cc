#include "client/internal/device_staging.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"

namespace modelstore::internal {
namespace {

// Page-locking is slow and what is locked is kept for the next save, so it is asked for
// in few sizes.
constexpr size_t kBlockBytes = size_t{32} << 20;
constexpr size_t kAlignment = 256;  // what devices copy to at full speed

size_t Rounded(size_t bytes) { return (bytes + kAlignment - 1) / kAlignment * kAlignment; }

}  // namespace

DeviceStaging::DeviceStaging(PlannedChunk* chunks, size_t count) {
  for (size_t i = 0; i < count; ++i) {
    if (chunks[i].source == nullptr) continue;
    chunks_.push_back(&chunks[i]);
    bytes_ += chunks[i].size;
    left_ += static_cast<int64_t>(Rounded(chunks[i].size));
  }
}

absl::Status DeviceStaging::TakeRoom(ByteSource& source, size_t bytes, Staged* staged) {
  const size_t rounded = Rounded(bytes);
  if (block_ == nullptr || used_ + rounded > block_bytes_) {
    block_bytes_ = static_cast<size_t>(std::min<int64_t>(left_, kBlockBytes));
    block_bytes_ = std::max(block_bytes_, rounded);
    block_ = source.MakeRoom(block_bytes_);
    used_ = 0;
    if (block_ == nullptr) {
      return absl::ResourceExhaustedError(
          absl::StrCat("staging ", bytes_, " bytes that lie on devices: ", block_bytes_,
                       " bytes of memory could not be page-locked, with ", left_,
                       " still to come"));
    }
  }
  staged->data = block_.get() + used_;
  staged->room = block_;
  used_ += rounded;
  left_ -= static_cast<int64_t>(rounded);
  return absl::OkStatus();
}

absl::Status DeviceStaging::Begin(int64_t max_bytes) {
  if (bytes_ > max_bytes) {
    return absl::ResourceExhaustedError(absl::StrCat(
        "max_staging_bytes: ", max_bytes, " bytes are allowed, ", bytes_,
        " lie on devices and must be staged: allow more, or move tensors to the cpu"));
  }
  for (PlannedChunk* chunk : chunks_) {
    Staged staged{chunk, nullptr, nullptr};
    absl::Status status = TakeRoom(*chunk->source, chunk->size, &staged);
    if (!status.ok()) return status;
    const std::string error =
        chunk->source->Begin(chunk->source_offset, chunk->size, staged.data, staged.room);
    if (!error.empty()) return absl::InternalError(error);
    staged_.push_back(std::move(staged));
  }
  return absl::OkStatus();
}

absl::Status DeviceStaging::Finish(Deadline deadline) {
  for (const Staged& staged : staged_) {
    const std::string error = staged.chunk->source->Wait(deadline);
    if (!error.empty()) return absl::InternalError(error);
  }
  for (Staged& staged : staged_) {
    staged.chunk->data = staged.data;
    staged.chunk->owner = std::move(staged.room);
    staged.chunk->source.reset();
  }
  return absl::OkStatus();
}

}  // namespace modelstore::internal
