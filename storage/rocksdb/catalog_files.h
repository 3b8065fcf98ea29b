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

// Names, each in the order of their numbers.
struct CatalogFiles {
  std::vector<std::string> tables;
  std::vector<std::string> wals;
  std::vector<std::string> manifests;
};

absl::Status ListCatalog(rocksdb::FileSystem* fs, const std::string& path,
                         CatalogFiles* files);

// `MANIFEST-` and a number.
bool IsManifestName(absl::string_view name);
// The number in a file's name; 0 if there is none.
uint64_t FileNumber(absl::string_view name);

// The MANIFEST that the text of a CURRENT names; empty if it names none.
std::string ManifestIn(absl::string_view current);

// Opens the database with the families that the engine uses, and makes those that
// do not exist if the options say so. Their numbers are RocksDB's own, 0, and then 1, 2,
// 3 in the order of Space.
rocksdb::Status OpenCatalogDatabase(const rocksdb::Options& options,
                                    const std::string& path,
                                    std::unique_ptr<Database>* database);

}  // namespace modelstore::storage::rocks
