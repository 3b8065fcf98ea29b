// The metadata of packs/ when it is damaged, and the files that it was of.
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

bool PackCurrentIsLost(const Folder& folder, EngineFileSystem& fs,
                       const std::vector<std::string>& tables);
// Whether RocksDB 9.10 would read the MANIFEST for ever. What cannot be read is RocksDB's
// to judge.
bool PackManifestIsEndless(const Folder& folder, EngineFileSystem& fs);

// A second name, so that power loss cannot take a file from one folder without
// bringing it to the other. File systems without links move it.
rocksdb::IOStatus LinkAside(EngineFileSystem& fs, const std::string& from,
                            const std::string& to);

// Moves the tables to packs.damaged/ and leaves an empty packs/. Cut short anywhere, it
// is done again: as long as a file of the metadata is left it does not open, and tables
// are moved before any is touched.
absl::Status MovePacksAside(const Folder& folder, EngineFileSystem& fs);

}  // namespace modelstore::storage::rocks
