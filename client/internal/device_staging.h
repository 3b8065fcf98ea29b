// Brings the bytes of a save that lie on devices into page-locked memory of this
// process, where they are digested and sent like all others.
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
  // Of `chunks`, which outlive this, those that have a source and no data. Memory is
  // page-locked in blocks of up to `block_bytes`, or of one chunk that is larger.
  DeviceStaging(const std::vector<PlannedChunk*>& chunks, size_t block_bytes);

  int64_t bytes() const { return bytes_; }
  // Begins every copy. RESOURCE_EXHAUSTED, naming what was asked for, if no more memory
  // can be page-locked.
  absl::Status Begin();
  // Waits for them. Then the chunks have data and an owner of it, like all others.
  absl::Status Finish(Deadline deadline);

 private:
  struct Staged {
    PlannedChunk* chunk;
    char* data;
    std::shared_ptr<char> room;
  };

  // Room for `bytes` that lie behind those before, or in a new block.
  absl::Status TakeRoom(ByteSource& source, size_t bytes, Staged* staged);

  const size_t most_block_bytes_;
  std::vector<PlannedChunk*> chunks_;
  int64_t bytes_ = 0;
  int64_t left_ = 0;  // of bytes_, without room yet, each rounded up
  std::shared_ptr<char> block_;
  size_t block_bytes_ = 0;
  size_t used_ = 0;
  std::vector<Staged> staged_;
};

}  // namespace modelstore::internal
