#include "client/internal/device_staging.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"

namespace modelstore::internal {
namespace {

constexpr size_t kAlignment = 256;  // needed by devices for full copy speed

size_t Rounded(size_t bytes) {
  return (bytes + kAlignment - 1) / kAlignment * kAlignment;
}

}  // namespace

DeviceStaging::DeviceStaging(const std::vector<PlannedChunk*>& chunks, size_t block_bytes)
    : max_block_bytes_(block_bytes) {
  for (PlannedChunk* chunk : chunks) {
    if (chunk->source == nullptr || chunk->data != nullptr) continue;
    chunks_.push_back(chunk);
    bytes_ += chunk->size;
    left_ += static_cast<int64_t>(Rounded(chunk->size));
  }
}

absl::Status DeviceStaging::ReserveBuffer(ByteSource& source, size_t bytes,
                                          Staged* staged) {
  const size_t rounded = Rounded(bytes);
  if (block_ == nullptr || used_ + rounded > block_bytes_) {
    block_bytes_ = std::min(static_cast<size_t>(left_), max_block_bytes_);
    block_bytes_ = std::max(block_bytes_, rounded);
    block_ = source.AllocateStaging(block_bytes_);
    used_ = 0;
    if (block_ == nullptr) {
      return absl::ResourceExhaustedError(
          absl::StrCat("staging ", bytes_, " bytes from devices: cannot page-lock ",
                       block_bytes_, " bytes, ", left_, " bytes are left"));
    }
  }
  staged->data = block_.get() + used_;
  staged->room = block_;
  used_ += rounded;
  left_ -= static_cast<int64_t>(rounded);
  return absl::OkStatus();
}

absl::Status DeviceStaging::Begin() {
  for (PlannedChunk* chunk : chunks_) {
    Staged staged{chunk, nullptr, nullptr};
    absl::Status status = ReserveBuffer(*chunk->source, chunk->size, &staged);
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
  }
  return absl::OkStatus();
}

}  // namespace modelstore::internal
