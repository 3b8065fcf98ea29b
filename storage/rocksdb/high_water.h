// The file HIGH_WATER: the number of the last durable write whose sync succeeded.
//
// RocksDB does not notice every loss; a catalog recovered below this mark has lost
// acknowledged writes. The mark is written after the sync and is not synced
// itself, so that it never runs ahead of what is durable. Two checksummed slots
// take turns: a torn write hurts one, and the other is one behind at most.
#pragma once

#include <cstdint>
#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "rocksdb/file_system.h"

namespace modelstore::storage::rocks {

// Used by one thread at a time.
class HighWater {
 public:
  // Opens `path`; makes it, durably, if it does not exist.
  static absl::StatusOr<std::unique_ptr<HighWater>> Open(rocksdb::FileSystem* fs,
                                                         const std::string& path);

  // The highest number of an intact slot, 0 of a new file.
  uint64_t number() const { return number_; }
  // The file existed, and no slot of it is intact: the mark is lost.
  bool damaged() const { return damaged_; }
  // The file did not exist.
  bool created() const { return created_; }

  absl::Status Write(uint64_t number);

  // Writes both slots and syncs them: after the owner accepted a loss.
  absl::Status Reset(uint64_t number);

 private:
  HighWater() = default;
  absl::Status WriteSlot(int slot, uint64_t number);

  uint64_t number_ = 0;
  bool damaged_ = false;
  bool created_ = false;
  std::unique_ptr<rocksdb::FSRandomRWFile> file_;
};

}  // namespace modelstore::storage::rocks
