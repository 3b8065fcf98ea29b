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

// Whether the checksum in a block's trailer is that of the block.
bool HasItsChecksum(absl::string_view block_with_trailer);

// Refuses, as corruption that names `path`, a table that RocksDB cannot be given to
// open. RocksDB takes the properties apart before it compares their checksum, and where
// it is built with assertions, as Debian's is, some damage ends the process; it also
// allocates whatever a footer asks for. The rest it checks itself. Reads about 2 KiB at
// the end of the file. Tables of the next format are left to RocksDB.
rocksdb::IOStatus CheckTableEnd(const rocksdb::FSRandomAccessFile& file, uint64_t size,
                                const std::string& path);

}  // namespace modelstore::storage::rocks
