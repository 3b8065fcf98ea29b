// Keys of packs/: pack and sequence, both big-endian, so that the chunks of a
// pack lie together and in order.
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

// What RocksDB adds to a key: its type, "value", and sequence number 0.
inline constexpr absl::string_view kInternalKeyEnd("\1\0\0\0\0\0\0\0", 8);
inline constexpr size_t kInternalKeyBytes = kChunkKeyBytes + kInternalKeyEnd.size();

ChunkKey EncodeChunkKey(ChunkId chunk);
std::optional<ChunkId> DecodeChunkKey(absl::string_view key);

// `{pack in 16 hex digits}.sst`, the name of a pack outside packs/.
std::string PackFileName(uint64_t pack);

// `{file number in 6 digits}.sst`, as RocksDB names it.
std::string TableFileName(uint64_t number);

// Blocks of small chunks hold at most this; a larger chunk has a block of its own,
// so that reading a small one never reads a large neighbour.
inline constexpr size_t kPackBlockBytes = size_t{16} << 10;

// True if RocksDB can take apart a data block, trailer included, whose checksum
// it does not verify: it asserts what it expects of one. Of a large block only what
// surrounds the chunk is looked at; the chunk has a digest.
bool IsSoundBlock(absl::string_view block);

// The pack that a file holds, from its first entry: readable while the file's
// first bytes are, whatever happened to its index. Absent if they are damaged.
rocksdb::IOStatus PackOfFile(rocksdb::FileSystem* fs, const std::string& path,
                             std::optional<uint64_t>* pack);

}  // namespace modelstore::storage::rocks
