// Copies the bytes of a save from devices to page-locked host memory, where they are
// digested and sent like other bytes.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <vector>

#include "absl/status/status.h"
#include "client/internal/save_plan.h"

namespace modelstore::internal {

// Used by one thread, once.
class DeviceStaging {
 public:
  // Stages those of `chunks` that have a source and no data. `chunks` must outlive this.
  // Memory is page-locked in blocks of at most `block_bytes`, or one larger chunk.
  DeviceStaging(const std::vector<PlannedChunk*>& chunks, size_t block_bytes);

  int64_t bytes() const { return bytes_; }
  // Starts every copy. RESOURCE_EXHAUSTED with the size if no more memory can be
  // page-locked.
  absl::Status Begin();
  // Waits for the copies. Afterwards each chunk has data and its owner.
  absl::Status Finish(Deadline deadline);

 private:
  struct Staged {
    PlannedChunk* chunk;
    char* data;
    std::shared_ptr<char> room;
  };

  // Reserves `bytes` in the current block, or in a new one.
  absl::Status ReserveBuffer(ByteSource& source, size_t bytes, Staged* staged);

  const size_t max_block_bytes_;
  std::vector<PlannedChunk*> chunks_;
  int64_t bytes_ = 0;
  int64_t left_ = 0;  // bytes without memory yet, each chunk rounded up
  std::shared_ptr<char> block_;
  size_t block_bytes_ = 0;
  size_t used_ = 0;
  std::vector<Staged> staged_;
};

}  // namespace modelstore::internal
