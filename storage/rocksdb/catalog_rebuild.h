// Rebuilds a catalog from the tables and WALs of a damaged one.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "rocksdb/env.h"
#include "storage/rocksdb/catalog_files.h"
#include "storage/rocksdb/engine_file_system.h"
#include "storage/rocksdb/folder.h"

namespace modelstore::storage::rocks {

// A WAL up to the first damage.
struct SoundWal {
  std::string name;
  size_t bytes = 0;
  std::vector<std::string> records;
};

struct RebuiltCatalog {
  int tables = 0;
  // Names the tables that were left out; empty if none.
  std::string left_out;
};

// Where a batch in a WAL begins: the sequence number of its first change, and how many it
// has. False if it is too short.
bool ReadBatchHead(const std::string& batch, uint64_t* sequence, uint32_t* count);

// Writes the newest entry of each key, of the tables in catalog/ and the records of
// `wals`, to catalog.new/, which must be empty, and closes it. What the WALs say is newer
// than a table whose sequence numbers a compaction has erased: all WALs that were
// written since the oldest are there. Which tables the MANIFEST had deleted is not known:
// where a crash kept one from being deleted, replaced or deleted rows may be back.
//
// A table without an end and with a number above `newest_manifest` may be one that a
// crash cut short, whose entries are in the WALs or in the tables that it was made of; it
// is left out and named. Tables with lower numbers were complete when that MANIFEST was
// written. DATA_LOSS if one of them, or a table with an end, is damaged, as nobody knows
// which keys are missing then.
absl::Status RebuildCatalog(Folder& folder, const std::shared_ptr<EngineFileSystem>& fs,
                            rocksdb::Env* env, const CatalogFiles& files,
                            uint64_t newest_manifest, const std::vector<SoundWal>& wals,
                            RebuiltCatalog* rebuilt);

}  // namespace modelstore::storage::rocks
