// Reads tables without RocksDB, entry by entry, including deletions and sequence numbers,
// which RocksDB's API does not return.
#pragma once

#include <cstdint>
#include <string>

#include "absl/functional/function_ref.h"
#include "absl/strings/string_view.h"
#include "rocksdb/file_system.h"

namespace modelstore::storage::rocks {

// An entry of a table; the views are valid during the visit.
struct TableEntry {
  absl::string_view key;
  // Sequence number of the write; 0 if a compaction has zeroed it.
  uint64_t sequence = 0;
  bool is_deletion = false;
  absl::string_view value;
};

// Returns the number of the table's column family in `family` and visits all entries in
// key order. Every checksum is verified. Corruption names the table; NotSupported if its
// format is unknown.
rocksdb::Status ScanTable(rocksdb::FileSystem* fs, const std::string& path,
                          uint32_t* family,
                          absl::FunctionRef<rocksdb::Status(const TableEntry&)> visit);

// Corruption if the first or the last data block does not match its checksum. When
// RocksDB 7.8 ingests a table, it reads the iterator's last key without checking that the
// iterator is valid, which aborts a build with assertions such as Debian's.
rocksdb::Status CheckOuterBlocks(rocksdb::FileSystem* fs, const std::string& path);

}  // namespace modelstore::storage::rocks
