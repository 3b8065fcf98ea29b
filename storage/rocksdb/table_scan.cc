#include "storage/rocksdb/table_scan.h"

#include <memory>
#include <optional>
#include <vector>

#include "storage/rocksdb/table_format.h"

namespace modelstore::storage::rocks {
namespace {

constexpr absl::string_view kFamilyProperty = "rocksdb.column.family.id";
constexpr size_t kNumberBytes = 10;
// After a key: its type (1 byte) and the sequence number (7, little-endian).
constexpr size_t kKeyEnd = 8;
enum EntryType : uint8_t { kDeletion = 0, kValue = 1, kSingleDeletion = 7 };

uint64_t Fixed(absl::string_view bytes) {
  uint64_t value = 0;
  for (size_t i = bytes.size(); i-- > 0;) {
    value = value << 8 | static_cast<uint8_t>(bytes[i]);
  }
  return value;
}

// The entries of a block without its restarts. Absent if the block is malformed.
std::optional<absl::string_view> EntriesOf(absl::string_view block) {
  constexpr size_t kRestart = sizeof(uint32_t);
  if (block.size() < kRestart) return std::nullopt;
  const uint64_t restarts = Fixed(block.substr(block.size() - kRestart));
  if (restarts >= block.size() / kRestart) return std::nullopt;
  return block.substr(0, block.size() - (restarts + 1) * kRestart);
}

// Consumes an entry. `key` holds the previous key and receives this one. If `value` is
// null, the entry has no value length: an index entry.
bool TakeEntry(absl::string_view* in, std::string* key, absl::string_view* value) {
  uint64_t shared = 0, own = 0, value_bytes = 0;
  if (!TakeVarint(in, kLengthBytes, &shared) || !TakeVarint(in, kLengthBytes, &own) ||
      (value != nullptr && !TakeVarint(in, kLengthBytes, &value_bytes)) ||
      shared > key->size() || in->size() < own + value_bytes) {
    return false;
  }
  key->resize(shared);
  key->append(in->data(), own);
  in->remove_prefix(own);
  if (value == nullptr) return true;
  *value = in->substr(0, value_bytes);
  in->remove_prefix(value_bytes);
  return true;
}

class Scan {
 public:
  Scan(rocksdb::FileSystem* fs, const std::string& path) : fs_(fs), path_(path) {}

  rocksdb::Status Open();
  bool FindFamily(uint32_t* family) const;
  // Positions of the data blocks.
  rocksdb::Status ReadIndex(std::vector<BlockHandle>* blocks) const;
  // Reads a block without its trailer and verifies its checksum.
  rocksdb::Status ReadBlock(const BlockHandle& handle, std::string* block) const;
  rocksdb::Status VisitBlock(
      absl::string_view block,
      absl::FunctionRef<rocksdb::Status(const TableEntry&)> visit) const;

 private:
  rocksdb::Status Damaged(const char* what) const {
    return rocksdb::Status::Corruption(path_, what);
  }

  rocksdb::FileSystem* const fs_;
  const std::string& path_;
  std::unique_ptr<rocksdb::FSRandomAccessFile> file_;
  uint64_t size_ = 0;
  TableEnd end_;
};

rocksdb::Status Scan::Open() {
  rocksdb::Status s = fs_->GetFileSize(path_, {}, &size_, nullptr);
  if (s.ok())
    s = fs_->NewRandomAccessFile(path_, rocksdb::FileOptions(), &file_, nullptr);
  if (s.ok()) s = ReadTableEnd(*file_, size_, path_, &end_);
  if (s.ok() && end_.format != kTableFormat) {
    s = rocksdb::Status::NotSupported(path_, "a table of a format that is not known");
  }
  return s;
}

rocksdb::Status Scan::ReadBlock(const BlockHandle& handle, std::string* block) const {
  rocksdb::Status s =
      ReadTableAt(*file_, path_, handle.offset, handle.bytes + kBlockTrailerBytes, block);
  if (!s.ok()) return s;
  if (!HasValidChecksum(*block)) return Damaged("a block is damaged");
  if (static_cast<uint8_t>((*block)[handle.bytes]) != kNotCompressed) {
    return rocksdb::Status::NotSupported(path_, "a block is compressed");
  }
  block->resize(handle.bytes);
  return s;
}

bool Scan::FindFamily(uint32_t* family) const {
  std::optional<absl::string_view> in = EntriesOf(end_.properties);
  std::string name;
  absl::string_view value;
  while (in.has_value() && !in->empty() && TakeEntry(&*in, &name, &value)) {
    if (name != kFamilyProperty) continue;
    uint64_t number = 0;
    if (!TakeVarint(&value, kNumberBytes, &number)) return false;
    *family = static_cast<uint32_t>(number);
    return true;
  }
  return false;
}

rocksdb::Status Scan::VisitBlock(
    absl::string_view block,
    absl::FunctionRef<rocksdb::Status(const TableEntry&)> visit) const {
  std::optional<absl::string_view> in = EntriesOf(block);
  if (!in.has_value()) return Damaged("a block has no entries");
  std::string key;
  TableEntry entry;
  while (!in->empty()) {
    if (!TakeEntry(&*in, &key, &entry.value) || key.size() < kKeyEnd) {
      return Damaged("an entry of a block is damaged");
    }
    const uint64_t end = Fixed(absl::string_view(key).substr(key.size() - kKeyEnd));
    const auto type = static_cast<uint8_t>(end);
    if (type != kValue && type != kDeletion && type != kSingleDeletion) {
      return rocksdb::Status::NotSupported(path_, "an entry of a kind that is not known");
    }
    entry.key = absl::string_view(key).substr(0, key.size() - kKeyEnd);
    entry.sequence = end >> 8;
    // The engine writes no single deletions, but they mean the same here.
    entry.is_deletion = type != kValue;
    const rocksdb::Status s = visit(entry);
    if (!s.ok()) return s;
  }
  return rocksdb::Status::OK();
}

rocksdb::Status Scan::ReadIndex(std::vector<BlockHandle>* blocks) const {
  std::string index;
  rocksdb::Status s = ReadBlock(end_.index, &index);
  if (!s.ok()) return s;
  // An entry of the index: a key, the block's handle.
  std::optional<absl::string_view> in = EntriesOf(index);
  if (!in.has_value()) return Damaged("the table's index is damaged");
  std::string key;
  while (!in->empty()) {
    BlockHandle handle;
    if (!TakeEntry(&*in, &key, nullptr) || !TakeHandle(&*in, &handle) ||
        !handle.EndsAtOrBefore(size_)) {
      return Damaged("the table's index is damaged");
    }
    blocks->push_back(handle);
  }
  return s;
}

}  // namespace

rocksdb::Status ScanTable(rocksdb::FileSystem* fs, const std::string& path,
                          uint32_t* family,
                          absl::FunctionRef<rocksdb::Status(const TableEntry&)> visit) {
  Scan scan(fs, path);
  rocksdb::Status s = scan.Open();
  if (!s.ok()) return s;
  if (!scan.FindFamily(family)) {
    return rocksdb::Status::Corruption(path, "the table has no column family");
  }
  std::vector<BlockHandle> blocks;
  s = scan.ReadIndex(&blocks);
  std::string block;
  for (const BlockHandle& handle : blocks) {
    if (s.ok()) s = scan.ReadBlock(handle, &block);
    if (s.ok()) s = scan.VisitBlock(block, visit);
    if (!s.ok()) break;
  }
  return s;
}

rocksdb::Status CheckOuterBlocks(rocksdb::FileSystem* fs, const std::string& path) {
  Scan scan(fs, path);
  std::vector<BlockHandle> blocks;
  rocksdb::Status s = scan.Open();
  if (s.ok()) s = scan.ReadIndex(&blocks);
  if (!s.ok()) return s;
  if (blocks.empty()) return rocksdb::Status::Corruption(path, "the table is empty");
  std::string block;
  s = scan.ReadBlock(blocks.front(), &block);
  return s.ok() && blocks.size() > 1 ? scan.ReadBlock(blocks.back(), &block) : s;
}

}  // namespace modelstore::storage::rocks
