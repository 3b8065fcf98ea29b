// rocksdb::Status to absl::Status.
#pragma once

#include "absl/status/status.h"
#include "absl/strings/string_view.h"
#include "rocksdb/io_status.h"
#include "rocksdb/status.h"

namespace modelstore::storage::rocks {

// The message is `{what}: {RocksDB's words}`. Corruption is DATA_LOSS, a full
// disk RESOURCE_EXHAUSTED, any other I/O error UNAVAILABLE: it may pass.
absl::Status FromRocks(const rocksdb::Status& status, absl::string_view what);

// True when the disk was full, whatever the class of the error.
bool IsNoSpace(const rocksdb::Status& status);

}  // namespace modelstore::storage::rocks
