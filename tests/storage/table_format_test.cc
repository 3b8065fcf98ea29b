// What stands at the end of a table and RocksDB believes: no damage of it reaches
// RocksDB, which would end the process over some.
#include "storage/rocksdb/table_format.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cstring>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "rocksdb/filter_policy.h"
#include "rocksdb/sst_file_reader.h"
#include "rocksdb/sst_file_writer.h"
#include "rocksdb/table.h"
#include "storage/rocksdb/block_checksum.h"
#include "storage/rocksdb/pack_file.h"
#include "storage/rocksdb/pack_table.h"
#include "tests/storage/rocks_folder.h"
#include "tests/storage/test_bytes.h"

namespace modelstore::storage::rocks {
namespace {

constexpr uint64_t kPack = 7;

// A file in memory.
class BytesFile final : public rocksdb::FSRandomAccessFile {
 public:
  explicit BytesFile(absl::string_view bytes) : bytes_(bytes) {}

  rocksdb::IOStatus Read(uint64_t offset, size_t n, const rocksdb::IOOptions&,
                         rocksdb::Slice* result, char* scratch,
                         rocksdb::IODebugContext*) const override {
    const absl::string_view read =
        bytes_.substr(std::min<size_t>(offset, bytes_.size()), n);
    std::memcpy(scratch, read.data(), read.size());
    *result = rocksdb::Slice(scratch, read.size());
    return rocksdb::IOStatus::OK();
  }

 private:
  const absl::string_view bytes_;
};

rocksdb::IOStatus Check(absl::string_view table) {
  return CheckTableEnd(BytesFile(table), table.size(), "/store/000012.sst");
}

// A file of a disk that fails.
class FailingFile final : public rocksdb::FSRandomAccessFile {
 public:
  rocksdb::IOStatus Read(uint64_t, size_t, const rocksdb::IOOptions&, rocksdb::Slice*,
                         char*, rocksdb::IODebugContext*) const override {
    return rocksdb::IOStatus::IOError("the disk is gone");
  }
};

std::string Little(uint64_t value, int bytes) {
  std::string out;
  for (int i = 0; i < bytes; ++i) out.push_back(static_cast<char>(value >> (8 * i)));
  return out;
}

std::string Varint(uint64_t value) {
  std::string out;
  for (; value >= 0x80; value >>= 7) out.push_back(static_cast<char>(value | 0x80));
  out.push_back(static_cast<char>(value));
  return out;
}

std::string Entry(absl::string_view name, absl::string_view value) {
  return absl::StrCat(Varint(0), Varint(name.size()), Varint(value.size()), name, value);
}

// Of a block of one entry that restarts at 0.
std::string WithRestart(absl::string_view entry) {
  return absl::StrCat(entry, Little(0, 4), Little(1, 4));
}

std::string Footer(uint64_t metaindex_offset, uint64_t metaindex_bytes) {
  std::string footer =
      absl::StrCat(std::string(1, kChecksumXxh3), Varint(metaindex_offset),
                   Varint(metaindex_bytes), Varint(0), Varint(1));
  footer.resize(kFooterBytes - kFooterEndBytes, '\0');
  return absl::StrCat(footer, Little(kTableFormat, 4), Little(kTableMagic, 8));
}

std::string WithTrailer(absl::string_view block) {
  return absl::StrCat(block, std::string(1, kNotCompressed),
                      Little(BlockChecksum::Of(block, kNotCompressed), 4));
}

// A table whose first 35 bytes stand for the properties.
std::string TableWithMetaindex(absl::string_view metaindex) {
  const std::string properties = WithTrailer(std::string(35, 'x'));
  return absl::StrCat(properties, WithTrailer(metaindex),
                      Footer(properties.size(), metaindex.size()));
}

// By who wrote the table: "pack", this engine; "catalog", RocksDB; "filtered", RocksDB,
// with a filter in front of the properties, which its metaindex names first.
class TableEnd : public ::testing::TestWithParam<const char*> {
 protected:
  void SetUp() override {
    rocksdb::FileSystem* fs = rocksdb::FileSystem::Default().get();
    ASSERT_TRUE(fs->CreateDirIfMissing(folder_.path(), {}, nullptr).ok());
    for (uint32_t i = 0; i < 5; ++i) {
      const ChunkKey key = EncodeChunkKey({kPack, i});
      values_[std::string(key.data(), key.size())] = TestBytes(100, i);
    }
    ASSERT_NO_FATAL_FAILURE(GetParam() == absl::string_view("pack") ? WritePack()
                                                                    : WriteByRocksDB());
    table_ = FileBytes(path_);
  }

  void WritePack() {
    std::unique_ptr<PackFile> file;
    ASSERT_TRUE(
        PackFile::Create(rocksdb::FileSystem::Default().get(), path_, &file).ok());
    PackTable table(file.get());
    for (const auto& [key, value] : values_) {
      ChunkKey chunk;
      std::copy(key.begin(), key.end(), chunk.begin());
      const absl::string_view fragments[] = {value};
      ASSERT_TRUE(table.Add(chunk, value.size(), fragments).ok());
    }
    ASSERT_TRUE(table.Finish().ok());
    ASSERT_TRUE(file->Finish().ok());
  }

  void WriteByRocksDB() {
    rocksdb::SstFileWriter writer({}, TableOptions());
    ASSERT_TRUE(writer.Open(path_).ok());
    for (const auto& [key, value] : values_) ASSERT_TRUE(writer.Put(key, value).ok());
    ASSERT_TRUE(writer.Finish().ok());
  }

  static rocksdb::Options TableOptions() {
    rocksdb::BlockBasedTableOptions table;
    table.format_version = kTableFormat;
    table.checksum = rocksdb::kXXH3;
    rocksdb::Options options;
    options.compression = rocksdb::kNoCompression;
    if (GetParam() == absl::string_view("filtered")) {
      table.filter_policy.reset(rocksdb::NewBloomFilterPolicy(10));
    }
    options.table_factory.reset(rocksdb::NewBlockBasedTableFactory(table));
    return options;
  }

  // RocksDB finds every value in the file, or says that it is damaged.
  void ExpectAllOrCorruption() {
    rocksdb::SstFileReader reader(TableOptions());
    rocksdb::Status s = reader.Open(path_);
    if (s.ok()) {
      std::map<std::string, std::string> found;
      const std::unique_ptr<rocksdb::Iterator> it(reader.NewIterator({}));
      for (it->SeekToFirst(); it->Valid(); it->Next()) {
        found[it->key().ToString()] = it->value().ToString();
      }
      s = it->status();
      if (s.ok()) {
        EXPECT_EQ(found, values_);
      }
    }
    if (!s.ok()) {
      EXPECT_TRUE(s.IsCorruption()) << s.ToString();
    }
  }

  const modelstore::storage::RocksFolder folder_;
  const std::string path_ = folder_.path() + "/table.sst";
  std::map<std::string, std::string> values_;
  std::string table_;
};

TEST_P(TableEnd, OfASoundTableIsSound) {
  const rocksdb::IOStatus s = Check(table_);
  EXPECT_TRUE(s.ok()) << s.ToString();
}

TEST_P(TableEnd, AFlippedBitIsRefusedUnlessRocksDBCanBearIt) {
  const size_t properties = table_.find("rocksdb.block.based.table");
  const size_t footer = table_.size() - kFooterBytes;
  ASSERT_LT(properties, footer);
  int left_to_rocksdb = 0;
  for (size_t at = 0; at < table_.size(); ++at) {
    for (int bit = 0; bit < 8; ++bit) {
      SCOPED_TRACE(absl::StrCat("bit ", bit, " of byte ", at, " of ", table_.size()));
      std::string damaged_table = table_;
      damaged_table[at] = static_cast<char>(damaged_table[at] ^ (1 << bit));
      const rocksdb::IOStatus s = Check(damaged_table);
      if (!s.ok()) {
        EXPECT_TRUE(s.IsCorruption()) << s.ToString();
        EXPECT_NE(s.ToString().find("/store/000012.sst: the table"), std::string::npos)
            << s.ToString();
        continue;
      }
      EXPECT_TRUE(at < properties || at >= footer);
      FlipBitAt(path_, static_cast<int64_t>(at), bit);
      ExpectAllOrCorruption();
      FlipBitAt(path_, static_cast<int64_t>(at), bit);
      left_to_rocksdb += at >= footer;
    }
  }
  // Zeros that nobody reads, the handle of the index, and higher formats.
  EXPECT_GT(left_to_rocksdb, 0);
}

TEST_P(TableEnd, OfATableThatWasCutIsRefused) {
  for (size_t size = 0; size < table_.size(); ++size) {
    const rocksdb::IOStatus s = Check(absl::string_view(table_).substr(0, size));
    EXPECT_TRUE(s.IsCorruption()) << size << ": " << s.ToString();
  }
}

TEST_P(TableEnd, AFileThatIsShorterThanItsSizeIsRefused) {
  const BytesFile file(absl::string_view(table_).substr(0, table_.size() - 1));
  const rocksdb::IOStatus s = CheckTableEnd(file, table_.size(), path_);
  EXPECT_TRUE(s.IsCorruption());
  EXPECT_NE(s.ToString().find(path_), std::string::npos) << s.ToString();
}

TEST_P(TableEnd, OfTheNextFormatIsLeftToRocksDBAndOfAnyOtherRefused) {
  for (int format = 0; format < 20; ++format) {
    table_[table_.size() - kFooterEndBytes] = static_cast<char>(format);
    EXPECT_EQ(Check(table_).ok(), format == kTableFormat || format == kNextTableFormat)
        << format;
  }
}

INSTANTIATE_TEST_SUITE_P(Writers, TableEnd,
                         ::testing::Values("pack", "catalog", "filtered"),
                         [](const auto& info) { return std::string(info.param); });

TEST(TableEndTest, AMetaindexWithItsChecksumThatLeadsNowhereIsRefused) {
  const std::string name(kPropertiesBlock);
  const uint64_t huge = ~uint64_t{0};
  const std::string sound = Entry(name, Varint(0) + Varint(35));
  ASSERT_TRUE(Check(TableWithMetaindex(WithRestart(sound))).ok());
  const std::string metaindexes[] = {
      "",
      "abc",
      Little(0, 4),     // no entry
      Little(huge, 4),  // more restarts than bytes
      WithRestart(Entry("rocksdb.other", Varint(0) + Varint(1))),
      WithRestart(Entry(name, "")),                       // no handle
      WithRestart(Entry(name, std::string(20, '\xff'))),  // a number without an end
      WithRestart(Entry(name, Varint(huge) + Varint(1))),
      WithRestart(Entry(name, Varint(1) + Varint(huge))),
      WithRestart(Entry(name, Varint(huge) + Varint(huge))),
      WithRestart(Entry(name, Varint(0) + Varint(36))),  // its trailer does not fit in
      WithRestart(Entry(name, Varint(41) + Varint(0))),
      WithRestart(Entry(name, Varint(0) + Varint(30))),  // not its checksum
      WithRestart(Varint(1) + Entry(name, Varint(0) + Varint(1)).substr(1)),
      WithRestart(Varint(0) + Varint(huge >> 30) + Varint(huge >> 30)),
      WithRestart(std::string("\0\x12", 2)),  // cut
  };
  for (const std::string& metaindex : metaindexes) {
    const rocksdb::IOStatus s = Check(TableWithMetaindex(metaindex));
    EXPECT_TRUE(s.IsCorruption()) << metaindex << ": " << s.ToString();
    EXPECT_NE(s.ToString().find("properties"), std::string::npos) << s.ToString();
  }
}

TEST(TableEndTest, AFooterWhoseHandlesLieOutsideOfTheFileIsRefused) {
  const std::string begin(100, 'x');
  const uint64_t huge = ~uint64_t{0};
  for (const auto& [offset, bytes] : std::map<uint64_t, uint64_t>{
           {0, huge}, {1, 95}, {2, huge - 5}, {huge, 0}, {huge - 4, 104}}) {
    EXPECT_TRUE(Check(begin + Footer(offset, bytes)).IsCorruption()) << offset;
  }
}

TEST(TableEndTest, AFailingDiskIsNotTakenForDamage) {
  const rocksdb::IOStatus s = CheckTableEnd(FailingFile(), 1000, "/store/000012.sst");
  EXPECT_TRUE(s.IsIOError()) << s.ToString();
}

}  // namespace
}  // namespace modelstore::storage::rocks
