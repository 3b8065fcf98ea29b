// Keys of packs/: pack and sequence, both big-endian, so that the chunks of a pack are
// adjacent and in order.
#pragma once

#include <array>
#include <cstdint>
#include <optional>
#include <string>

#include "absl/strings/string_view.h"
#include "rocksdb/file_system.h"
#include "storage/chunk_store.h"

namespace modelstore::storage::rocks {

inline constexpr size_t kChunkKeyBytes = 12;
using ChunkKey = std::array<char, kChunkKeyBytes>;

// RocksDB appends to each key its type (value) and a sequence number (0).
inline constexpr absl::string_view kInternalKeyEnd("\1\0\0\0\0\0\0\0", 8);
inline constexpr size_t kInternalKeyBytes = kChunkKeyBytes + kInternalKeyEnd.size();

ChunkKey EncodeChunkKey(ChunkId chunk);
std::optional<ChunkId> DecodeChunkKey(absl::string_view key);

// `{pack in 16 hex digits}.sst`: a pack's file name outside packs/.
std::string PackFileName(uint64_t pack);

// `{file number in 6 digits}.sst`: RocksDB's name for a table.
std::string TableFileName(uint64_t number);

// Small chunks share blocks of at most this size. A larger chunk has its own block, so
// that reading a small chunk never reads a large neighbour.
inline constexpr size_t kPackBlockBytes = size_t{16} << 10;

// Whether RocksDB can parse a data block (trailer included) without verifying its
// checksum: it asserts the expected structure. Of a large block only the bytes around the
// chunk are checked; the chunk itself has a digest.
bool IsValidBlock(absl::string_view block);

// Reads the id of a file's pack from its first entry, so that a damaged index does not
// matter. Absent if the first bytes are damaged.
rocksdb::IOStatus PackOfFile(rocksdb::FileSystem* fs, const std::string& path,
                             std::optional<uint64_t>* pack);

}  // namespace modelstore::storage::rocks
