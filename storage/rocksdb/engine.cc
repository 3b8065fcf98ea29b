#include "storage/rocksdb/engine.h"

#include <utility>

#include "storage/rocksdb/catalog.h"
#include "storage/rocksdb/chunk_store.h"
#include "storage/rocksdb/folder.h"

namespace modelstore::storage {

absl::StatusOr<Engine> OpenRocksEngine(const RocksOptions& options) {
  absl::StatusOr<std::shared_ptr<rocks::Folder>> folder = rocks::Folder::Open(options);
  if (!folder.ok()) return folder.status();
  auto catalog = rocks::RocksCatalog::Open(*folder, options.accept_data_loss);
  if (!catalog.ok()) return catalog.status();
  Engine engine;
  engine.catalog = *std::move(catalog);
  engine.chunks = std::make_unique<rocks::RocksChunkStore>(*folder);
  engine.free_bytes = [folder = *folder] { return folder->FreeBytes(); };
  engine.release_ballast = [folder = *folder] { folder->ReleaseBallast(); };
  engine.restore_ballast = [folder = *folder] { folder->RestoreBallast(); };
  return engine;
}

}  // namespace modelstore::storage
