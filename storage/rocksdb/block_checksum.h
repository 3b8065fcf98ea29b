// The checksum in the trailer of every block of a table.
#pragma once

#include <cstdint>
#include <memory>

#include "absl/strings/string_view.h"

namespace modelstore::storage::rocks {

// XXH3 over a block and its type of compression, as RocksDB defines it. Not
// thread-safe.
class BlockChecksum {
 public:
  BlockChecksum();
  ~BlockChecksum();
  BlockChecksum(const BlockChecksum&) = delete;
  BlockChecksum& operator=(const BlockChecksum&) = delete;

  void Update(absl::string_view bytes);
  // Returns the checksum of the bytes since the last Finish(), and resets.
  uint32_t Finish(uint8_t type);

  // The checksum of a contiguous block; does not allocate.
  static uint32_t Of(absl::string_view block, uint8_t type);

 private:
  struct State;
  const std::unique_ptr<State> state_;
};

}  // namespace modelstore::storage::rocks
