// What the engine itself knows of RocksDB's tables: block based, format 5, XXH3, no
// compression. Source: RocksDB's wiki, "Rocksdb BlockBasedTable Format".
#pragma once

#include <cstdint>
#include <string>

#include "absl/strings/string_view.h"
#include "rocksdb/file_system.h"

namespace modelstore::storage::rocks {

inline constexpr uint32_t kTableFormat = 5;
// What RocksDB 9 writes unless it is told otherwise, and 7.8 cannot read.
inline constexpr uint32_t kNextTableFormat = 6;
inline constexpr uint64_t kTableMagic = 0x88e241b785f4cff7;
// The footer: type of checksum, the handles of metaindex and index, zeros up to the
// format and the magic number. It has no checksum of its own.
inline constexpr size_t kFooterBytes = 53;
inline constexpr size_t kFooterEndBytes = sizeof(kTableFormat) + sizeof(kTableMagic);
inline constexpr char kChecksumXxh3 = 4;

// Type of compression (1 byte) and checksum (4) behind every block.
inline constexpr size_t kBlockTrailerBytes = 5;
inline constexpr uint8_t kNotCompressed = 0;
// The block of the metaindex that holds the table's properties.
inline constexpr absl::string_view kPropertiesBlock = "rocksdb.properties";

// A length in an entry is a varint of at most this.
inline constexpr size_t kLengthBytes = 5;

// Takes a varint of at most `max_bytes` bytes. False if there is none.
bool TakeVarint(absl::string_view* in, size_t max_bytes, uint64_t* value);

// Where a block lies.
struct BlockHandle {
  uint64_t offset = 0;
  uint64_t bytes = 0;  // without its trailer

  // Whether the block, its trailer included, ends at `end` or before.
  bool EndsBy(uint64_t end) const;
};
bool TakeHandle(absl::string_view* in, BlockHandle* handle);

// Whether the checksum in a block's trailer is that of the block.
bool HasItsChecksum(absl::string_view block_with_trailer);

// Refuses, as corruption that names `path`, a table that RocksDB cannot be given to
// open. RocksDB takes the properties apart before it compares their checksum, and where
// it is built with assertions, as Debian's is, some damage ends the process; it also
// allocates whatever a footer asks for. The rest it checks itself. Reads about 2 KiB at
// the end of the file. Tables of the next format are left to RocksDB.
rocksdb::IOStatus CheckTableEnd(const rocksdb::FSRandomAccessFile& file, uint64_t size,
                                const std::string& path);

// Whether the file ends as a table does; one that was not finished does not.
rocksdb::IOStatus HasTableFooter(rocksdb::FileSystem* fs, const std::string& path,
                                 bool* has_footer);

// What the end of a table says.
struct TableEnd {
  uint32_t format = 0;
  // The rest is absent of a table of the next format.
  BlockHandle index;
  std::string properties;  // the block, without its trailer
};

// CheckTableEnd(), and what was read.
rocksdb::IOStatus ReadTableEnd(const rocksdb::FSRandomAccessFile& file, uint64_t size,
                               const std::string& path, TableEnd* end);

// Reads `bytes` at `offset`; a table that ends before is corruption.
rocksdb::IOStatus ReadTableAt(const rocksdb::FSRandomAccessFile& file,
                              const std::string& path, uint64_t offset, uint64_t bytes,
                              std::string* out);

}  // namespace modelstore::storage::rocks
