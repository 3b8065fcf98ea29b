// Reads tables without RocksDB: those of the catalog entry by entry, as their files hold
// them, deletions and sequence numbers included, which RocksDB shows to nobody.
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
  // Of the write that made it; 0 where a compaction left nothing older.
  uint64_t sequence = 0;
  bool is_deletion = false;
  absl::string_view value;
};

// The number of the column family that the table is of. Visits all entries in the order
// of their keys. Corruption names the table; NotSupported if it is of a format that
// is not known here. Every checksum is compared.
rocksdb::Status ScanTable(rocksdb::FileSystem* fs, const std::string& path,
                          uint32_t* family,
                          absl::FunctionRef<rocksdb::Status(const TableEntry&)> visit);

// Corruption if the first or the last block of entries does not have its checksum.
// RocksDB 7.8 asks the iterator of a table that it takes in for its last key without
// looking whether it has one, which ends a build with assertions, as Debian's is.
rocksdb::Status CheckOuterBlocks(rocksdb::FileSystem* fs, const std::string& path);

}  // namespace modelstore::storage::rocks
