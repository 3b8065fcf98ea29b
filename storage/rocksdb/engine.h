// The embedded engine: two RocksDB databases in one folder, `catalog/` for records and
// manifests, `packs/` for chunks. FORMAT.md describes the layout.
#pragma once

#include <cstdint>
#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "storage/api/listener.h"
#include "storage/engine.h"

namespace rocksdb {
class FileSystem;
}

namespace modelstore::storage {

struct RocksOptions {
  // Folder of the store; created if it does not exist. Locked while open.
  std::string path;
  // Size of a file that is deleted when a delete or a reopen finds the disk full, so that
  // it can proceed. 0: none.
  int64_t ballast_bytes = int64_t{64} << 20;
  // Opens a catalog even if acknowledged writes are lost. The error of a refused open
  // names this flag.
  bool accept_data_loss = false;
  // The underlying file system; tests inject faults here. Null: RocksDB's default.
  std::shared_ptr<rocksdb::FileSystem> file_system;
  // Not owned; may be null.
  Listener* listener = nullptr;
};

// Opens the catalog. The chunk store is opened by its first Reopen().
// DATA_LOSS, naming the file, if the catalog is damaged; FAILED_PRECONDITION if
// another process has the store open.
absl::StatusOr<Engine> OpenRocksEngine(const RocksOptions& options);

}  // namespace modelstore::storage
