// The embedded engine: two RocksDB databases in one folder, `catalog/` for
// everything small and `packs/` for chunks. FORMAT.md tells what lies where.
#pragma once

#include <cstdint>
#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "storage/checkpoint_store.h"

namespace rocksdb {
class FileSystem;
}

namespace modelstore::storage {

struct RocksOptions {
  // Folder of the store; created if it does not exist. Locked while open.
  std::string path;
  // Preallocated file that is released when a delete or reopen meets a full
  // disk. 0: none.
  int64_t ballast_bytes = int64_t{64} << 20;
  // Accepts a catalog that lost acknowledged writes: the one flag that a refused
  // open names.
  bool accept_data_loss = false;
  // Under the wrapper that guards packs; tests inject faults here. Null: the
  // default file system.
  std::shared_ptr<rocksdb::FileSystem> file_system;
  // Not owned; may be null.
  Listener* listener = nullptr;
};

// Opens the catalog. The chunk store is opened by its first Reopen().
// DATA_LOSS, naming the file, if the catalog is damaged; FAILED_PRECONDITION if
// another process has the store open.
absl::StatusOr<Engine> OpenRocksEngine(const RocksOptions& options);

}  // namespace modelstore::storage
