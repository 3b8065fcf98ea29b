#include "storage/rocksdb/pack_format.h"

#include <memory>

#include "absl/strings/str_format.h"

namespace modelstore::storage::rocks {
namespace {

// What RocksDB adds to a key: sequence number 0 and the type "value".
constexpr size_t kInternalKeyBytes = kChunkKeyBytes + 8;

// Skips a varint of at most five bytes. False if there is none.
bool SkipVarint(absl::string_view* in) {
  for (size_t i = 0; i < 5 && i < in->size(); ++i) {
    if ((static_cast<uint8_t>((*in)[i]) & 0x80) == 0) {
      in->remove_prefix(i + 1);
      return true;
    }
  }
  return false;
}

}  // namespace

ChunkKey EncodeChunkKey(ChunkId chunk) {
  ChunkKey key;
  for (int i = 0; i < 8; ++i) key[i] = static_cast<char>(chunk.pack >> (56 - 8 * i));
  for (int i = 0; i < 4; ++i) key[8 + i] = static_cast<char>(chunk.sequence >> (24 - 8 * i));
  return key;
}

std::optional<ChunkId> DecodeChunkKey(absl::string_view key) {
  if (key.size() != kChunkKeyBytes) return std::nullopt;
  ChunkId chunk;
  for (int i = 0; i < 8; ++i) chunk.pack = chunk.pack << 8 | static_cast<uint8_t>(key[i]);
  for (int i = 8; i < 12; ++i) {
    chunk.sequence = chunk.sequence << 8 | static_cast<uint8_t>(key[i]);
  }
  return chunk;
}

std::string PackFileName(uint64_t pack) { return absl::StrFormat("%016x.sst", pack); }

std::string TableFileName(uint64_t number) { return absl::StrFormat("%06u.sst", number); }

std::optional<uint64_t> PackOfFile(rocksdb::FileSystem* fs, const std::string& path) {
  std::unique_ptr<rocksdb::FSSequentialFile> file;
  if (!fs->NewSequentialFile(path, rocksdb::FileOptions(), &file, nullptr).ok()) {
    return std::nullopt;
  }
  char scratch[64];
  rocksdb::Slice head;
  if (!file->Read(sizeof(scratch), {}, &head, scratch, nullptr).ok()) return std::nullopt;
  // An entry: bytes shared with the key before it (0), bytes of key, bytes of
  // value, all varints; then the key.
  absl::string_view in(head.data(), head.size());
  if (in.size() < 2 || in[0] != 0 || in[1] != static_cast<char>(kInternalKeyBytes)) {
    return std::nullopt;
  }
  in.remove_prefix(2);
  if (!SkipVarint(&in) || in.size() < kInternalKeyBytes) return std::nullopt;
  const std::optional<ChunkId> first = DecodeChunkKey(in.substr(0, kChunkKeyBytes));
  if (!first.has_value() || first->sequence != 0) return std::nullopt;
  return first->pack;
}

}  // namespace modelstore::storage::rocks
