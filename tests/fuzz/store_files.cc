// The files of a store that the engine reads by itself: journals, tables, the high-water
// mark. Damage never gets past a checksum by chance, so the first byte of an input says
// whether checksums are put right before it is read.
#include <algorithm>
#include <cstring>
#include <memory>

#include "absl/strings/str_cat.h"
#include "rocksdb/file_system.h"
#include "storage/rocksdb/block_checksum.h"
#include "storage/rocksdb/high_water.h"
#include "storage/rocksdb/journal_format.h"
#include "storage/rocksdb/pack_format.h"
#include "storage/rocksdb/table_format.h"
#include "storage/rocksdb/table_scan.h"
#include "tests/fuzz/targets.h"
#include "xxhash.h"

namespace modelstore::fuzz {
namespace {

using namespace storage::rocks;  // NOLINT: all names of this file are its names
using rocksdb::IOStatus;

std::string Little(uint64_t value, int bytes) {
  std::string out;
  for (int i = 0; i < bytes; ++i) out.push_back(static_cast<char>(value >> (8 * i)));
  return out;
}

// A file system that holds one file, whatever it is called.
class OneFile final : public rocksdb::FileSystemWrapper {
 public:
  explicit OneFile(absl::string_view bytes)
      : FileSystemWrapper(rocksdb::FileSystem::Default()), bytes_(bytes) {}

  const char* Name() const override { return "one file"; }
  IOStatus FileExists(const std::string&, const rocksdb::IOOptions&,
                      rocksdb::IODebugContext*) override {
    return IOStatus::OK();
  }
  IOStatus GetFileSize(const std::string&, const rocksdb::IOOptions&, uint64_t* size,
                       rocksdb::IODebugContext*) override {
    *size = bytes_.size();
    return IOStatus::OK();
  }
  IOStatus NewRandomAccessFile(const std::string&, const rocksdb::FileOptions&,
                               std::unique_ptr<rocksdb::FSRandomAccessFile>* file,
                               rocksdb::IODebugContext*) override {
    *file = std::make_unique<RandomAccess>(bytes_);
    return IOStatus::OK();
  }
  IOStatus NewSequentialFile(const std::string&, const rocksdb::FileOptions&,
                             std::unique_ptr<rocksdb::FSSequentialFile>* file,
                             rocksdb::IODebugContext*) override {
    *file = std::make_unique<Sequential>(bytes_);
    return IOStatus::OK();
  }
  IOStatus NewRandomRWFile(const std::string&, const rocksdb::FileOptions&,
                           std::unique_ptr<rocksdb::FSRandomRWFile>* file,
                           rocksdb::IODebugContext*) override {
    *file = std::make_unique<RandomRw>(bytes_);
    return IOStatus::OK();
  }

 private:
  static rocksdb::Slice ReadAt(absl::string_view bytes, uint64_t offset, size_t n,
                               char* scratch) {
    const absl::string_view read =
        bytes.substr(std::min<size_t>(offset, bytes.size()), n);
    if (!read.empty()) std::memcpy(scratch, read.data(), read.size());
    return rocksdb::Slice(scratch, read.size());
  }

  class RandomAccess final : public rocksdb::FSRandomAccessFile {
   public:
    explicit RandomAccess(absl::string_view bytes) : bytes_(bytes) {}
    IOStatus Read(uint64_t offset, size_t n, const rocksdb::IOOptions&,
                  rocksdb::Slice* result, char* scratch,
                  rocksdb::IODebugContext*) const override {
      *result = ReadAt(bytes_, offset, n, scratch);
      return IOStatus::OK();
    }

   private:
    const absl::string_view bytes_;
  };

  class Sequential final : public rocksdb::FSSequentialFile {
   public:
    explicit Sequential(absl::string_view bytes) : rest_(bytes) {}
    IOStatus Read(size_t n, const rocksdb::IOOptions&, rocksdb::Slice* result,
                  char* scratch, rocksdb::IODebugContext*) override {
      *result = ReadAt(rest_, 0, n, scratch);
      return Skip(result->size());
    }
    IOStatus Skip(uint64_t n) override {
      rest_.remove_prefix(std::min<size_t>(n, rest_.size()));
      return IOStatus::OK();
    }

   private:
    absl::string_view rest_;
  };

  // Read alone.
  class RandomRw final : public rocksdb::FSRandomRWFile {
   public:
    explicit RandomRw(absl::string_view bytes) : bytes_(bytes) {}
    IOStatus Read(uint64_t offset, size_t n, const rocksdb::IOOptions&,
                  rocksdb::Slice* result, char* scratch,
                  rocksdb::IODebugContext*) const override {
      *result = ReadAt(bytes_, offset, n, scratch);
      return IOStatus::OK();
    }
    IOStatus Write(uint64_t, const rocksdb::Slice&, const rocksdb::IOOptions&,
                   rocksdb::IODebugContext*) override {
      return IOStatus::NotSupported();
    }
    IOStatus Flush(const rocksdb::IOOptions&, rocksdb::IODebugContext*) override {
      return IOStatus::OK();
    }
    IOStatus Sync(const rocksdb::IOOptions&, rocksdb::IODebugContext*) override {
      return IOStatus::OK();
    }
    IOStatus Close(const rocksdb::IOOptions&, rocksdb::IODebugContext*) override {
      return IOStatus::OK();
    }

   private:
    const absl::string_view bytes_;
  };

  const absl::string_view bytes_;
};

// --- Journals: see journal_format.h.

constexpr size_t kJournalBlock = 32768;
constexpr size_t kJournalHeader = 7;

uint32_t MaskedCrc32c(absl::string_view bytes) {
  uint32_t crc = ~0u;
  for (const char byte : bytes) {
    crc ^= static_cast<uint8_t>(byte);
    for (int bit = 0; bit < 8; ++bit) crc = crc >> 1 ^ (crc & 1 ? 0x82f63b78u : 0);
  }
  crc = ~crc;
  return (crc >> 15 | crc << 17) + 0xa282ead8u;
}

// Gives the records that follow each other from the front their checksums.
std::string WithJournalChecksums(std::string journal) {
  for (size_t at = 0; at + kJournalHeader <= journal.size();) {
    const size_t left = kJournalBlock - at % kJournalBlock;
    const size_t bytes = static_cast<uint8_t>(journal[at + 4]) |
                         size_t{static_cast<uint8_t>(journal[at + 5])} << 8;
    const size_t record = kJournalHeader + bytes;
    if (left < kJournalHeader) {
      at += left;
      continue;
    }
    if (record > left || record > journal.size() - at) break;
    const absl::string_view covered(journal.data() + at + kJournalHeader - 1, bytes + 1);
    journal.replace(at, 4, Little(MaskedCrc32c(covered), 4));
    at += record;
  }
  return journal;
}

std::string JournalRecord(char type, absl::string_view content) {
  return absl::StrCat(std::string(4, '\0'), Little(content.size(), 2),
                      std::string(1, type), content);
}

std::vector<std::string> Journals() {
  const std::string whole = JournalRecord(1, "one record");
  const std::string parts =
      JournalRecord(2, "first") + JournalRecord(3, "middle") + JournalRecord(4, "last");
  std::vector<std::string> seeds;
  for (const std::string& journal :
       {std::string(), whole, whole + parts, parts + std::string(20, '\0'),
        whole + JournalRecord(2, "begun"), whole + JournalRecord(5, "recycled")}) {
    seeds.push_back("\1" + journal);
  }
  seeds.push_back(std::string(1, '\0') + WithJournalChecksums(whole + parts));
  return seeds;
}

bool RunJournal(absl::string_view input) {
  if (input.empty()) return false;
  std::string bytes(input.substr(1));
  if (input[0] & 1) bytes = WithJournalChecksums(std::move(bytes));
  const Journal journal = ReadJournal(bytes);
  FUZZ_REQUIRE(journal.valid_bytes <= journal.readable_bytes);
  FUZZ_REQUIRE(journal.readable_bytes <= bytes.size() ||
               journal.end == Journal::End::kWhole);
  FUZZ_REQUIRE(journal.records.empty() == (journal.valid_bytes == 0));
  // What is sound reads the same alone.
  const Journal sound =
      ReadJournal(absl::string_view(bytes).substr(0, journal.valid_bytes));
  FUZZ_REQUIRE(sound.end == Journal::End::kWhole);
  FUZZ_REQUIRE(sound.records == journal.records);
  FUZZ_REQUIRE(sound.valid_bytes == journal.valid_bytes);
  if (journal.recycled) FUZZ_REQUIRE(HasRecycledRecord(bytes));
  // A record begins at the front of whatever has one.
  if (!journal.records.empty()) FUZZ_REQUIRE(!IsGarbage(bytes, 0));
  FUZZ_REQUIRE(IsGarbage(bytes, bytes.size()));
  const std::vector<size_t> begins = JournalRecords(bytes);
  FUZZ_REQUIRE(std::is_sorted(begins.begin(), begins.end()));
  FUZZ_REQUIRE(begins.empty() || begins.back() + kJournalHeader <= bytes.size());
  return !journal.records.empty();
}

// --- Tables: see table_format.h.

std::string Varint(uint64_t value) {
  std::string out;
  for (; value >= 0x80; value >>= 7) out.push_back(static_cast<char>(value | 0x80));
  out.push_back(static_cast<char>(value));
  return out;
}

std::string Entry(absl::string_view key, absl::string_view value) {
  return absl::StrCat(Varint(0), Varint(key.size()), Varint(value.size()), key, value);
}

// Of a block whose one restart is its front.
std::string Restart() { return Little(0, 4) + Little(1, 4); }

std::string WithTrailer(absl::string_view block) {
  return absl::StrCat(block, std::string(1, static_cast<char>(kNotCompressed)),
                      Little(BlockChecksum::Of(block, kNotCompressed), 4));
}

// A table of one data block with an index and properties, all of which may be damaged;
// everything else is as it should be.
std::string MakeTable(absl::string_view data, absl::string_view index,
                      absl::string_view properties) {
  std::string table;
  std::string handles[3];
  const absl::string_view blocks[] = {data, index, properties};
  for (int i = 0; i < 3; ++i) {
    handles[i] = Varint(table.size()) + Varint(blocks[i].size());
    table += WithTrailer(blocks[i]);
  }
  const std::string metaindex = Entry(kPropertiesBlock, handles[2]) + Restart();
  std::string footer = std::string(1, kChecksumXxh3) + Varint(table.size()) +
                       Varint(metaindex.size()) + handles[1];
  table += WithTrailer(metaindex);
  footer.resize(kFooterBytes - kFooterEndBytes, '\0');
  return table + footer + Little(kTableFormat, 4) + Little(kTableMagic, 8);
}

// After the first byte, 1 for a table that MakeTable() makes: the length of the data
// block and of the index, a byte each, and the three blocks.
std::vector<std::string> Tables() {
  const ChunkKey key = EncodeChunkKey({7, 0});
  const std::string data =
      Entry(absl::StrCat(absl::string_view(key.data(), key.size()), kInternalKeyEnd),
            "a chunk") +
      Restart();
  // Entries of an index have no length of their value.
  const std::string index = absl::StrCat(Varint(0), Varint(8), std::string(8, 'k'),
                                         Varint(0), Varint(data.size()), Restart());
  const std::string properties = Entry("rocksdb.column.family.id", Varint(3)) + Restart();
  std::vector<std::string> seeds = {absl::StrCat(
      "\1", std::string(1, static_cast<char>(data.size())),
      std::string(1, static_cast<char>(index.size())), data, index, properties)};
  seeds.push_back(std::string(1, '\0') + MakeTable(data, index, properties));
  seeds.push_back(std::string(1, '\0') + WithTrailer(data));
  return seeds;
}

bool RunTable(absl::string_view input) {
  if (input.empty()) return false;
  std::string table(input.substr(1));
  if ((input[0] & 1) && input.size() >= 3) {
    const absl::string_view rest = input.substr(3);
    const absl::string_view data = rest.substr(0, static_cast<uint8_t>(input[1]));
    const absl::string_view index =
        rest.substr(data.size()).substr(0, static_cast<uint8_t>(input[2]));
    table = MakeTable(data, index, rest.substr(data.size() + index.size()));
  }
  OneFile fs(table);
  uint32_t family = 0;
  uint64_t bytes = 0;
  const rocksdb::Status scanned =
      ScanTable(&fs, "t.sst", &family, [&](const TableEntry& entry) {
        bytes += entry.key.size() + entry.value.size();
        return rocksdb::Status::OK();
      });
  const rocksdb::Status outer = CheckOuterBlocks(&fs, "t.sst");
  // Damage is told as such, and a table that can be read is not empty of blocks alone.
  FUZZ_REQUIRE(scanned.ok() || scanned.IsCorruption() || scanned.IsNotSupported());
  FUZZ_REQUIRE(outer.ok() || outer.IsCorruption() || outer.IsNotSupported());
  bool has_footer = false;
  FUZZ_REQUIRE(HasTableFooter(&fs, "t.sst", &has_footer).ok());
  if (scanned.ok()) FUZZ_REQUIRE(has_footer);
  std::optional<uint64_t> pack;
  FUZZ_REQUIRE(PackOfFile(&fs, "t.sst", &pack).ok());
  IsValidBlock(table);
  if (const auto chunk = DecodeChunkKey(input)) {
    const ChunkKey key = EncodeChunkKey(*chunk);
    FUZZ_REQUIRE(absl::string_view(key.data(), key.size()) == input);
  }
  return scanned.ok();
}

// --- The high-water mark: see high_water.h.

constexpr size_t kSlotBytes = 4096;
constexpr absl::string_view kHighWaterMagic = "MSHIGHW1";
constexpr size_t kJournalEntryBytes = 40;

std::string Slot(uint64_t turn, uint64_t number, int journals) {
  std::string slot = absl::StrCat(kHighWaterMagic, Little(turn, 8), Little(number, 8),
                                  Little(static_cast<uint64_t>(journals), 8));
  for (int i = 0; i < journals; ++i) {
    std::string name = "000012.log";
    name.resize(24, '\0');
    slot += name + Little(100, 8) + Little(7, 8);
  }
  return slot;
}

std::vector<std::string> HighWaters() {
  return {"\1" + Slot(1, 5, 0), "\1" + Slot(2, 9, 2), "\1" + Slot(0, 0, 65),
          std::string(1, '\0') + Slot(1, 5, 0)};
}

bool RunHighWater(absl::string_view input) {
  if (input.empty()) return false;
  std::string file(input.substr(1, kSlotBytes));
  if ((input[0] & 1) && file.size() >= 32) {
    const size_t covered = 32 + static_cast<uint8_t>(file[24]) * kJournalEntryBytes;
    file.resize(std::min(covered, kSlotBytes - 8), '\0');
    file += Little(XXH3_64bits(file.data(), file.size()), 8);
  }
  file.resize(2 * kSlotBytes, '\0');
  OneFile fs(file);
  const auto mark = HighWater::Open(&fs, "/store/HIGH_WATER");
  FUZZ_REQUIRE(mark.ok());
  FUZZ_REQUIRE(!(*mark)->created());
  FUZZ_REQUIRE((*mark)->journals().size() <= 64);
  for (const SyncedJournal& journal : (*mark)->journals()) {
    FUZZ_REQUIRE(journal.name.size() <= 24);
  }
  return !(*mark)->damaged();
}

}  // namespace

std::vector<Target> StoreFileTargets() {
  return {{"high_water", HighWaters, RunHighWater},
          {"journal", Journals, RunJournal},
          {"table", Tables, RunTable}};
}

}  // namespace modelstore::fuzz
