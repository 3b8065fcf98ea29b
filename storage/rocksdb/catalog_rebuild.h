// A catalog made anew of what the files of another hold, without its MANIFEST.
#pragma once

#include <cstddef>
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
  // Says which files were left out; empty if none.
  std::string left_out;
};

// Writes the newest entry of each key, of the tables in catalog/ and the records of
// `wals`, to catalog.new/, which must be empty, and closes it. What the WALs say is newer
// than a table whose sequence numbers a compaction has erased: all WALs that were
// written since the oldest are there. A table without an end is one that a crash cut
// short, and is left out: what it holds is in the WALs or in the tables that it was made
// of. DATA_LOSS if another is damaged, as nobody knows which keys are missing then.
absl::Status RebuildCatalog(Folder& folder, const std::shared_ptr<EngineFileSystem>& fs,
                            rocksdb::Env* env, const CatalogFiles& files,
                            const std::vector<SoundWal>& wals, RebuiltCatalog* rebuilt);

}  // namespace modelstore::storage::rocks
