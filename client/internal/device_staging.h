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

// Used by one thread, for one save.
class DeviceStaging {
 public:
  // `chunks` outlive this.
  DeviceStaging(PlannedChunk* chunks, size_t count);

  // What the devices hold of the save.
  int64_t bytes() const { return bytes_; }
  // Begins every copy. RESOURCE_EXHAUSTED, naming both figures, if `max_bytes` or the
  // memory of the machine are too little.
  absl::Status Begin(int64_t max_bytes);
  // Waits for them. Then the chunks have data like all others, and no source.
  absl::Status Finish(Deadline deadline);

 private:
  struct Staged {
    PlannedChunk* chunk;
    char* data;
    std::shared_ptr<char> room;
  };

  // Room for `bytes` that lie behind those before, or in a new block.
  absl::Status TakeRoom(ByteSource& source, size_t bytes, Staged* staged);

  std::vector<PlannedChunk*> chunks_;  // those with a source
  int64_t bytes_ = 0;
  int64_t left_ = 0;  // of bytes_, without room yet, each rounded up
  std::shared_ptr<char> block_;
  size_t block_bytes_ = 0;
  size_t used_ = 0;
  std::vector<Staged> staged_;
};

}  // namespace modelstore::internal
