// Names of the files in catalog/.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/string_view.h"
#include "rocksdb/file_system.h"
#include "rocksdb/options.h"
#include "storage/rocksdb/db_gate.h"

namespace modelstore::storage::rocks {

// File names, each list sorted by file number.
struct CatalogFiles {
  std::vector<std::string> tables;
  std::vector<std::string> wals;
  std::vector<std::string> manifests;
};

absl::Status ListCatalog(rocksdb::FileSystem* fs, const std::string& path,
                         CatalogFiles* files);

// True for `MANIFEST-{number}`.
bool IsManifestName(absl::string_view name);
// The number in a file's name; 0 if there is none.
uint64_t FileNumber(absl::string_view name);

// The MANIFEST that the content of a CURRENT names; empty if it is malformed.
std::string ManifestIn(absl::string_view current);

// Opens the database with the engine's column families; creates missing ones if the
// options allow it. Family 0 is RocksDB's default; 1, 2 and 3 follow the order of Space.
rocksdb::Status OpenCatalogDatabase(const rocksdb::Options& options,
                                    const std::string& path,
                                    std::unique_ptr<Database>* database);

}  // namespace modelstore::storage::rocks
