// Detects damaged metadata of packs/ and moves its tables aside.
#pragma once

#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "rocksdb/file_system.h"
#include "storage/rocksdb/engine_file_system.h"
#include "storage/rocksdb/folder.h"

namespace modelstore::storage::rocks {

// The names of the tables in a folder; none if it does not exist.
absl::StatusOr<std::vector<std::string>> ListTables(EngineFileSystem& fs,
                                                    const std::string& folder);

// Whether packs/ has tables but no CURRENT: RocksDB would create a new, empty database.
bool PackCurrentIsLost(const Folder& folder, EngineFileSystem& fs,
                       const std::vector<std::string>& tables);
// Whether the MANIFEST has a record of a recycled type, on which RocksDB 9.10 loops
// forever. False if it cannot be read: RocksDB then reports the error.
bool PackManifestHasRecycledRecord(const Folder& folder, EngineFileSystem& fs);

// Adds a second name to a file, so that a power loss during a move cannot lose it. File
// systems without hard links rename it.
rocksdb::IOStatus LinkAside(EngineFileSystem& fs, const std::string& from,
                            const std::string& to);

// Moves the tables to packs.damaged/ and empties packs/. If a crash interrupts it, it is
// repeated: tables are linked and synced before anything is deleted, and the damaged
// metadata is deleted last.
absl::Status MovePacksAside(const Folder& folder, EngineFileSystem& fs);

}  // namespace modelstore::storage::rocks
