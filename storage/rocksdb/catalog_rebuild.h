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
struct ValidWal {
  std::string name;
  size_t bytes = 0;
  std::vector<std::string> records;
};

struct RebuiltCatalog {
  int tables = 0;
  // Names the tables that were left out; empty if none.
  std::string left_out;
};

// Reads the sequence number of a WAL batch's first change, and its number of changes.
// False if the batch is too short.
bool ReadBatchHead(const std::string& batch, uint64_t* sequence, uint32_t* count);

// Writes the newest entry of each key, from the tables in catalog/ and the records of
// `wals`, to catalog.new/, which must be empty, and closes it. Entries of WALs win over
// entries of tables whose sequence numbers a compaction has zeroed; no WAL since the
// oldest one is missing, so this is correct.
//
// Without a MANIFEST it is unknown which tables had been deleted. If a crash left a
// deleted table in place, replaced or deleted rows may reappear.
//
// A table without a footer whose number is above `newest_manifest` may have been
// interrupted by a crash; its entries are then also in the WALs or in the tables that it
// was compacted from. It is left out and named. Tables with lower numbers were complete
// when that MANIFEST was written. DATA_LOSS if one of those, or any table with a footer,
// is damaged: it is unknown which keys are missing.
absl::Status RebuildCatalog(Folder& folder, const std::shared_ptr<EngineFileSystem>& fs,
                            rocksdb::Env* env, const CatalogFiles& files,
                            uint64_t newest_manifest, const std::vector<ValidWal>& wals,
                            RebuiltCatalog* rebuilt);

}  // namespace modelstore::storage::rocks
