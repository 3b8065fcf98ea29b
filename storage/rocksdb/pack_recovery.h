// Opens packs/, and brings its metadata and its files into agreement with the
// packs that the catalog names.
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

// Damaged metadata is moved aside and made anew from the files of the packs that
// are expected; files of other packs are deleted. A file that cannot be taken in
// is kept in quarantine/ and reported; its chunks are lost, nothing else is.
absl::StatusOr<std::unique_ptr<Database>> OpenPacks(Folder& folder, EngineFileSystem& fs,
                                                    const rocksdb::Options& options,
                                                    absl::Span<const uint64_t> expected);

}  // namespace modelstore::storage::rocks
