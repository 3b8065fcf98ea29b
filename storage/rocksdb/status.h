// rocksdb::Status to absl::Status.
#pragma once

#include "absl/status/status.h"
#include "absl/strings/string_view.h"
#include "rocksdb/io_status.h"
#include "rocksdb/status.h"

namespace modelstore::storage::rocks {

// The message is `{what}: {RocksDB's words}`. Corruption is DATA_LOSS; a full disk and
// too many open files are RESOURCE_EXHAUSTED, the latter with the name of the limit; any
// other I/O error is UNAVAILABLE: it may pass.
absl::Status FromRocks(const rocksdb::Status& status, absl::string_view what);

// True when the disk was full, whatever the class of the error.
bool IsNoSpace(const rocksdb::Status& status);

// Whether FromRocks() named a limit of descriptors.
bool IsTooManyOpenFiles(const absl::Status& status);

// Whether a system call failed with `error`, an errno. RocksDB keeps only its text.
bool FailedWith(const rocksdb::Status& status, int error);

}  // namespace modelstore::storage::rocks
