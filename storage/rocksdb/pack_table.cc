#include "storage/rocksdb/pack_table.h"

#include <cstring>
#include <map>

#include "storage/rocksdb/table_format.h"

namespace modelstore::storage::rocks {
namespace {

constexpr size_t kEntryOverhead = 32;
// Bytes are checksummed and copied in steps that fit the second-level cache.
constexpr size_t kStep = size_t{128} << 10;

void PutFixed32(std::string* out, uint32_t value) {
  for (int i = 0; i < 4; ++i) out->push_back(static_cast<char>(value >> (8 * i)));
}

void PutFixed64(std::string* out, uint64_t value) {
  for (int i = 0; i < 8; ++i) out->push_back(static_cast<char>(value >> (8 * i)));
}

void PutVarint(std::string* out, uint64_t value) {
  for (; value >= 0x80; value >>= 7) out->push_back(static_cast<char>(value | 0x80));
  out->push_back(static_cast<char>(value));
}

std::string Varint(uint64_t value) {
  std::string bytes;
  PutVarint(&bytes, value);
  return bytes;
}

// Every entry is a restart point: no key shares a prefix with the previous one.
void PutEntry(std::string* block, std::vector<uint32_t>* entries, absl::string_view key,
              absl::string_view value) {
  entries->push_back(static_cast<uint32_t>(block->size()));
  PutVarint(block, 0);
  PutVarint(block, key.size());
  PutVarint(block, value.size());
  block->append(key.data(), key.size());
  block->append(value.data(), value.size());
}

std::string Restarts(absl::Span<const uint32_t> entries) {
  std::string bytes;
  for (const uint32_t entry : entries) PutFixed32(&bytes, entry);
  PutFixed32(&bytes, static_cast<uint32_t>(entries.size()));
  return bytes;
}

}  // namespace

std::string PackTable::Handle(const Block& block) {
  return Varint(block.offset) + Varint(block.bytes);
}

rocksdb::IOStatus PackTable::Write(absl::string_view bytes) {
  while (!bytes.empty()) {
    const absl::string_view step = bytes.substr(0, kStep);
    checksum_.Update(step);
    rocksdb::IOStatus s = file_->Append(step);
    if (!s.ok()) return s;
    bytes.remove_prefix(step.size());
  }
  return rocksdb::IOStatus::OK();
}

// Writes the trailer: compression type and checksum, which covers the type.
rocksdb::IOStatus PackTable::EndBlock(Block* block) {
  *block = {begin_, file_->size() - begin_};
  std::string trailer(1, static_cast<char>(kNotCompressed));
  PutFixed32(&trailer, checksum_.Finish(kNotCompressed));
  rocksdb::IOStatus s = file_->Append(trailer);
  begin_ = file_->size();
  return s;
}

rocksdb::IOStatus PackTable::WriteBlock(absl::string_view content, Block* block) {
  rocksdb::IOStatus s = Write(content);
  return s.ok() ? EndBlock(block) : s;
}

rocksdb::IOStatus PackTable::EndDataBlock() {
  rocksdb::IOStatus s = Write(Restarts(entries_));
  Block block;
  if (s.ok()) s = EndBlock(&block);
  // An index entry: the block's last key and its handle, without a value length.
  index_entries_.push_back(static_cast<uint32_t>(index_.size()));
  PutVarint(&index_, 0);
  PutVarint(&index_, last_key_.size());
  index_.append(last_key_.data(), last_key_.size());
  index_ += Handle(block);
  entries_.clear();
  expected_bytes_ = 0;
  return s;
}

rocksdb::IOStatus PackTable::Add(const ChunkKey& key, uint64_t bytes,
                                 absl::Span<const absl::string_view> fragments) {
  // Including lengths, restart offset and a share of the trailer.
  const size_t needed = kInternalKeyBytes + bytes + kEntryOverhead;
  if (entry_count_ > 0 &&
      std::memcmp(key.data(), last_key_.data(), kChunkKeyBytes) <= 0) {
    return rocksdb::IOStatus::InvalidArgument("the keys of a pack do not ascend");
  }
  rocksdb::IOStatus s;
  // A chunk that does not fit starts a new block, so a large chunk has its own.
  if (!entries_.empty() && expected_bytes_ + needed > kPackBlockBytes) s = EndDataBlock();
  if (!s.ok()) return s;
  expected_bytes_ += needed;
  entries_.push_back(static_cast<uint32_t>(file_->size() - begin_));
  std::string head;
  PutVarint(&head, 0);
  PutVarint(&head, kInternalKeyBytes);
  PutVarint(&head, bytes);
  head.append(key.data(), key.size());
  head.append(kInternalKeyEnd.data(), kInternalKeyEnd.size());
  s = Write(head);
  for (const absl::string_view fragment : fragments) {
    if (s.ok()) s = Write(fragment);
  }
  last_key_ = key;
  ++entry_count_;
  value_bytes_ += bytes;
  return s;
}

// Properties that readers need or tools show. Without creator and time, so that equal
// content gives equal bytes.
std::string PackTable::Properties(const Block& index) const {
  std::string index_type, external_version, global_sequence;
  PutFixed32(&index_type, 0);  // binary search
  PutFixed32(&external_version, 2);
  PutFixed64(&global_sequence, 0);
  const std::map<std::string, std::string> properties = {
      {"rocksdb.block.based.table.index.type", index_type},
      {"rocksdb.block.based.table.prefix.filtering", "0"},
      {"rocksdb.block.based.table.whole.key.filtering", "1"},
      {"rocksdb.comparator", "leveldb.BytewiseComparator"},
      {"rocksdb.compression", "NoCompression"},
      {"rocksdb.data.size", Varint(data_bytes_)},
      {"rocksdb.deleted.keys", Varint(0)},
      {"rocksdb.external_sst_file.global_seqno", global_sequence},
      {"rocksdb.external_sst_file.version", external_version},
      {"rocksdb.filter.size", Varint(0)},
      {"rocksdb.fixed.key.length", Varint(0)},
      {"rocksdb.format.version", Varint(0)},
      {"rocksdb.index.key.is.user.key", Varint(1)},
      {"rocksdb.index.size", Varint(index.bytes + kBlockTrailerBytes)},
      {"rocksdb.index.value.is.delta.encoded", Varint(1)},
      {"rocksdb.merge.operands", Varint(0)},
      {"rocksdb.num.data.blocks", Varint(index_entries_.size())},
      {"rocksdb.num.entries", Varint(entry_count_)},
      {"rocksdb.num.range-deletions", Varint(0)},
      {"rocksdb.raw.key.size", Varint(entry_count_ * kInternalKeyBytes)},
      {"rocksdb.raw.value.size", Varint(value_bytes_)},
  };
  std::string block;
  std::vector<uint32_t> entries;
  for (const auto& [name, value] : properties) PutEntry(&block, &entries, name, value);
  return block + Restarts(entries);
}

rocksdb::IOStatus PackTable::Finish() {
  if (entry_count_ == 0) return rocksdb::IOStatus::InvalidArgument("the pack is empty");
  rocksdb::IOStatus s = EndDataBlock();
  data_bytes_ = file_->size();
  Block index, properties, directory;
  if (s.ok()) s = WriteBlock(index_ + Restarts(index_entries_), &index);
  if (s.ok()) s = WriteBlock(Properties(index), &properties);
  std::string blocks;
  std::vector<uint32_t> entries;
  PutEntry(&blocks, &entries, kPropertiesBlock, Handle(properties));
  if (s.ok()) s = WriteBlock(blocks + Restarts(entries), &directory);
  // The footer has a fixed size; handles are varints, so it is padded with zeros.
  std::string footer(1, kChecksumXxh3);
  footer += Handle(directory) + Handle(index);
  footer.resize(kFooterBytes - kFooterEndBytes, '\0');
  PutFixed32(&footer, kTableFormat);
  PutFixed64(&footer, kTableMagic);
  return s.ok() ? file_->Append(footer) : s;
}

}  // namespace modelstore::storage::rocks
