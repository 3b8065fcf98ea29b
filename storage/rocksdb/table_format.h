// The format of RocksDB's tables as far as the engine parses them: block based, format 5,
// XXH3, no compression. Source: RocksDB's wiki, "Rocksdb BlockBasedTable Format".
#pragma once

#include <cstdint>
#include <string>

#include "absl/strings/string_view.h"
#include "rocksdb/file_system.h"

namespace modelstore::storage::rocks {

inline constexpr uint32_t kTableFormat = 5;
// The default of RocksDB 9, which 7.8 cannot read.
inline constexpr uint32_t kNextTableFormat = 6;
inline constexpr uint64_t kTableMagic = 0x88e241b785f4cff7;
// The footer: checksum type, handles of metaindex and index, zeros, then format and magic
// number. It has no checksum.
inline constexpr size_t kFooterBytes = 53;
inline constexpr size_t kFooterEndBytes = sizeof(kTableFormat) + sizeof(kTableMagic);
inline constexpr char kChecksumXxh3 = 4;

// Every block is followed by its compression type (1 byte) and checksum (4).
inline constexpr size_t kBlockTrailerBytes = 5;
inline constexpr uint8_t kNotCompressed = 0;
// The block of the metaindex that holds the table's properties.
inline constexpr absl::string_view kPropertiesBlock = "rocksdb.properties";

// Maximum size of the varint of a length in an entry.
inline constexpr size_t kLengthBytes = 5;

// Consumes a varint of at most `max_bytes` bytes. False if there is none.
bool TakeVarint(absl::string_view* in, size_t max_bytes, uint64_t* value);

// Position of a block.
struct BlockHandle {
  uint64_t offset = 0;
  uint64_t bytes = 0;  // without its trailer

  // Whether the block with its trailer ends at or before `end`.
  bool EndsAtOrBefore(uint64_t end) const;
};
bool TakeHandle(absl::string_view* in, BlockHandle* handle);

// Whether the checksum in a block's trailer matches the block.
bool HasValidChecksum(absl::string_view block_with_trailer);

// Returns corruption, naming `path`, for a table that RocksDB must not open. RocksDB
// parses the properties before it verifies their checksum; in a build with assertions,
// such as Debian's, some damage aborts the process. It also allocates whatever size the
// footer states. RocksDB checks the rest itself. Reads about 2 KiB at the end of the
// file. Tables of format 6 are not checked: their footer has a checksum.
rocksdb::IOStatus CheckTableEnd(const rocksdb::FSRandomAccessFile& file, uint64_t size,
                                const std::string& path);

// Whether the file ends with a table's magic number; an unfinished table does not.
rocksdb::IOStatus HasTableFooter(rocksdb::FileSystem* fs, const std::string& path,
                                 bool* has_footer);

// The parsed end of a table.
struct TableEnd {
  uint32_t format = 0;
  // The other fields are empty for format 6.
  BlockHandle index;
  std::string properties;  // the block, without its trailer
};

// As CheckTableEnd(), and returns what was read.
rocksdb::IOStatus ReadTableEnd(const rocksdb::FSRandomAccessFile& file, uint64_t size,
                               const std::string& path, TableEnd* end);

// Reads `bytes` bytes at `offset`. Corruption if the file is shorter.
rocksdb::IOStatus ReadTableAt(const rocksdb::FSRandomAccessFile& file,
                              const std::string& path, uint64_t offset, uint64_t bytes,
                              std::string* out);

}  // namespace modelstore::storage::rocks
