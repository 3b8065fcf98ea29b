// The files that EngineFileSystem opens, over those of the file system below it.
#pragma once

#include <atomic>
#include <cstdint>
#include <memory>
#include <string>

#include "rocksdb/file_system.h"
#include "storage/rocksdb/engine_file_system.h"
#include "storage/rocksdb/table_format.h"

namespace modelstore::storage::rocks {

// A WAL or MANIFEST: counts its appends, and tells `fs` what of it is synced.
std::unique_ptr<rocksdb::FSWritableFile> NewJournalFile(
    std::unique_ptr<rocksdb::FSWritableFile> file, std::string name, EngineFileSystem* fs,
    std::atomic<int64_t>* appends);

// A pack: while one block is being copied the disk fetches the next. For a thread with
// SoundBlocksOnly, the index at `index` and the blocks before it are checked when they
// are read; the rest was checked when the file was opened.
std::unique_ptr<rocksdb::FSRandomAccessFile> NewReadAheadFile(
    std::unique_ptr<rocksdb::FSRandomAccessFile> file, const BlockHandle& index);

// Any other table: tells `fs` which reads failed.
std::unique_ptr<rocksdb::FSRandomAccessFile> NewNotedFile(
    std::unique_ptr<rocksdb::FSRandomAccessFile> file, EngineFileSystem* fs,
    std::string path);

}  // namespace modelstore::storage::rocks
