// Opens packs/ and makes its metadata and files agree with the packs that the catalog
// names.
#pragma once

#include <cstdint>
#include <memory>
#include <unordered_set>

#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "rocksdb/options.h"
#include "storage/rocksdb/db_gate.h"
#include "storage/rocksdb/engine_file_system.h"
#include "storage/rocksdb/folder.h"

namespace modelstore::storage::rocks {

// Damaged metadata is rebuilt by ingesting the files of the `expected` packs; files of
// other packs are deleted, or kept if a loss is open (Quarantine). A damaged file that
// cannot be ingested is moved to quarantine/ and reported; only its chunks are lost. A
// transient error is UNAVAILABLE and changes nothing. May be repeated after a crash at
// any point.
absl::StatusOr<std::unique_ptr<Database>> OpenPacks(Folder& folder, EngineFileSystem& fs,
                                                    const rocksdb::Options& options,
                                                    absl::Span<const uint64_t> expected);

}  // namespace modelstore::storage::rocks
