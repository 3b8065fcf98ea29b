// Writes the chunks of a pack as a RocksDB table: block based, format 5, XXH3, no
// compression, no filter, every entry a restart, whole keys in the index. SstFileWriter
// with these options writes the same bytes, but first copies every chunk to a string,
// which with its checksums took a quarter of the server's time in a save. Source:
// RocksDB's wiki, "Rocksdb BlockBasedTable Format"; a test compares data blocks and index
// with those of SstFileWriter.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "absl/strings/string_view.h"
#include "absl/types/span.h"
#include "storage/rocksdb/block_checksum.h"
#include "storage/rocksdb/pack_file.h"
#include "storage/rocksdb/pack_format.h"

namespace modelstore::storage::rocks {

// Not thread-safe. After an error the table must be discarded.
class PackTable {
 public:
  // Not owned.
  explicit PackTable(PackFile* file) : file_(file) {}

  // Adds a value of `bytes` bytes, the concatenation of `fragments`. Keys must ascend.
  rocksdb::IOStatus Add(const ChunkKey& key, uint64_t bytes,
                        absl::Span<const absl::string_view> fragments);
  // Writes index, properties and footer. An empty table is an error.
  rocksdb::IOStatus Finish();

 private:
  struct Block {
    uint64_t offset = 0;
    uint64_t bytes = 0;  // without its trailer
  };

  // Appends to the current block.
  rocksdb::IOStatus Write(absl::string_view bytes);
  rocksdb::IOStatus EndBlock(Block* block);
  rocksdb::IOStatus EndDataBlock();
  rocksdb::IOStatus WriteBlock(absl::string_view content, Block* block);
  std::string Properties(const Block& index) const;
  static std::string Handle(const Block& block);

  PackFile* const file_;
  BlockChecksum checksum_;
  // State of the current block.
  uint64_t begin_ = 0;
  std::vector<uint32_t> entries_;  // offset of each entry
  // Upper bound of the block's size with its trailer; decides when the block ends.
  size_t expected_bytes_ = 0;
  ChunkKey last_key_ = {};

  std::string index_;
  std::vector<uint32_t> index_entries_;
  uint64_t entry_count_ = 0;
  uint64_t value_bytes_ = 0;
  uint64_t data_bytes_ = 0;
};

}  // namespace modelstore::storage::rocks
