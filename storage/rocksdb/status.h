// Converts rocksdb::Status to absl::Status.
#pragma once

#include "absl/status/status.h"
#include "absl/strings/string_view.h"
#include "rocksdb/io_status.h"
#include "rocksdb/status.h"

namespace modelstore::storage::rocks {

// The message is `{what}: {RocksDB's message}`. Corruption is DATA_LOSS. A full disk and
// too many open files are RESOURCE_EXHAUSTED, the latter with the name of the limit. Any
// other I/O error may be transient: UNAVAILABLE.
absl::Status FromRocks(const rocksdb::Status& status, absl::string_view what);

// Whether the disk was full, whatever the error code.
bool IsNoSpace(const rocksdb::Status& status);

// Whether a FromRocks() status names a descriptor limit.
bool IsTooManyOpenFiles(const absl::Status& status);

// Whether a system call failed with `error`, an errno. RocksDB keeps only its text.
bool FailedWith(const rocksdb::Status& status, int error);

}  // namespace modelstore::storage::rocks
