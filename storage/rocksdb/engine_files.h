// Wrappers for the files that EngineFileSystem opens.
#pragma once

#include <atomic>
#include <cstdint>
#include <memory>
#include <string>

#include "rocksdb/file_system.h"
#include "storage/rocksdb/engine_file_system.h"
#include "storage/rocksdb/table_format.h"

namespace modelstore::storage::rocks {

// A WAL or MANIFEST: counts appends, and reports the synced part to `fs`.
std::unique_ptr<rocksdb::FSWritableFile> NewJournalFile(
    std::unique_ptr<rocksdb::FSWritableFile> file, std::string name, EngineFileSystem* fs,
    std::atomic<int64_t>* appends);

// A pack: prefetches the next block while the current one is copied. On a thread with
// ScopedBlockValidation, the index at `index` and the blocks before it are checked when
// they are read; the rest of the file was checked when it was opened.
std::unique_ptr<rocksdb::FSRandomAccessFile> NewReadAheadFile(
    std::unique_ptr<rocksdb::FSRandomAccessFile> file, const BlockHandle& index);

// Any other table: reports failed reads to `fs`.
std::unique_ptr<rocksdb::FSRandomAccessFile> NewNotedFile(
    std::unique_ptr<rocksdb::FSRandomAccessFile> file, EngineFileSystem* fs,
    std::string path);

}  // namespace modelstore::storage::rocks
