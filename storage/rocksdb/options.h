// All RocksDB settings of both databases, with their reasons.
#pragma once

#include <memory>

#include "rocksdb/cache.h"
#include "rocksdb/options.h"
#include "storage/rocksdb/folder.h"

namespace modelstore::storage::rocks {

// `env` must outlive databases opened with the options.
rocksdb::Options CatalogOptions(rocksdb::Env* env, std::shared_ptr<Folder> folder);
rocksdb::Options PackOptions(rocksdb::Env* env, std::shared_ptr<Folder> folder,
                             std::shared_ptr<rocksdb::Cache> cache);
rocksdb::IngestExternalFileOptions PackIngestOptions();

}  // namespace modelstore::storage::rocks
