#include "storage/rocksdb/pack_format.h"

#include <memory>

#include "absl/strings/str_format.h"
#include "storage/rocksdb/table_format.h"

namespace modelstore::storage::rocks {
namespace {

// An entry starts with three varints: the length of the prefix that its key shares with
// the previous key (0 here), of the key, and of the value. The internal key follows.
bool TakeEntryHead(absl::string_view* in, absl::string_view* key, uint64_t* value_bytes) {
  if (in->size() < 2 || (*in)[0] != 0 ||
      (*in)[1] != static_cast<char>(kInternalKeyBytes)) {
    return false;
  }
  in->remove_prefix(2);
  if (!TakeVarint(in, kLengthBytes, value_bytes) || in->size() < kInternalKeyBytes) {
    return false;
  }
  *key = in->substr(0, kChunkKeyBytes);
  if (in->substr(kChunkKeyBytes, kInternalKeyEnd.size()) != kInternalKeyEnd) return false;
  in->remove_prefix(kInternalKeyBytes);
  return true;
}

}  // namespace

ChunkKey EncodeChunkKey(ChunkId chunk) {
  ChunkKey key;
  for (int i = 0; i < 8; ++i) key[i] = static_cast<char>(chunk.pack >> (56 - 8 * i));
  for (int i = 0; i < 4; ++i)
    key[8 + i] = static_cast<char>(chunk.sequence >> (24 - 8 * i));
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

bool IsValidBlock(absl::string_view block) {
  if (block.size() <= kBlockTrailerBytes) return false;
  if (block.size() <= kPackBlockBytes) return HasValidChecksum(block);
  // A block of one entry ends with its restart offset (0), the number of restarts (1),
  // and the trailer: no compression, then a checksum of 4 bytes, which is not compared.
  constexpr absl::string_view kTail("\0\0\0\0\1\0\0\0\0", 9);
  absl::string_view in = block;
  absl::string_view key;
  uint64_t value_bytes = 0;
  return TakeEntryHead(&in, &key, &value_bytes) &&
         in.size() == value_bytes + kTail.size() + 4 &&
         in.substr(value_bytes, kTail.size()) == kTail;
}

rocksdb::IOStatus PackOfFile(rocksdb::FileSystem* fs, const std::string& path,
                             std::optional<uint64_t>* pack) {
  pack->reset();
  std::unique_ptr<rocksdb::FSSequentialFile> file;
  rocksdb::IOStatus s =
      fs->NewSequentialFile(path, rocksdb::FileOptions(), &file, nullptr);
  char scratch[64];
  rocksdb::Slice head;
  if (s.ok()) s = file->Read(sizeof(scratch), {}, &head, scratch, nullptr);
  if (!s.ok()) return s;
  absl::string_view in(head.data(), head.size());
  absl::string_view key;
  uint64_t value_bytes = 0;
  if (!TakeEntryHead(&in, &key, &value_bytes)) return s;
  const std::optional<ChunkId> first = DecodeChunkKey(key);
  if (first.has_value() && first->sequence == 0) *pack = first->pack;
  return s;
}

}  // namespace modelstore::storage::rocks
