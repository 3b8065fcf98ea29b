// A pack's file is the table that RocksDB itself would write.
#include "storage/rocksdb/pack_table.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cstring>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "rocksdb/flush_block_policy.h"
#include "rocksdb/sst_file_reader.h"
#include "rocksdb/sst_file_writer.h"
#include "rocksdb/table.h"
#include "rocksdb/table_properties.h"
#include "storage/rocksdb/pack_file.h"
#include "tests/storage/rocks_folder.h"
#include "tests/storage/test_bytes.h"

namespace modelstore::storage::rocks {
namespace {

constexpr uint64_t kPack = 0x0123456789abcdef;

// Ends a block before an entry that does not fit in with those it has.
class BlockPolicy final : public rocksdb::FlushBlockPolicy {
 public:
  bool Update(const rocksdb::Slice& key, const rocksdb::Slice& value) override {
    const size_t bytes = key.size() + value.size() + 32;
    const bool end = held_ > 0 && held_ + bytes > kPackBlockBytes;
    held_ = end ? bytes : held_ + bytes;
    return end;
  }

 private:
  size_t held_ = 0;
};

class BlockPolicyFactory final : public rocksdb::FlushBlockPolicyFactory {
 public:
  const char* Name() const override { return "test.BlockPolicyFactory"; }
  rocksdb::FlushBlockPolicy* NewFlushBlockPolicy(
      const rocksdb::BlockBasedTableOptions&,
      const rocksdb::BlockBuilder&) const override {
    return new BlockPolicy();
  }
};

rocksdb::Options TableOptions() {
  rocksdb::BlockBasedTableOptions table;
  table.format_version = 5;
  table.checksum = rocksdb::kXXH3;
  table.block_restart_interval = 1;
  table.index_shortening =
      rocksdb::BlockBasedTableOptions::IndexShorteningMode::kNoShortening;
  table.flush_block_policy_factory = std::make_shared<BlockPolicyFactory>();
  rocksdb::Options options;
  options.compression = rocksdb::kNoCompression;
  options.table_factory.reset(rocksdb::NewBlockBasedTableFactory(table));
  return options;
}

// In the order of RocksDB, which takes bytes as unsigned.
struct KeyOrder {
  bool operator()(const ChunkKey& a, const ChunkKey& b) const {
    return std::memcmp(a.data(), b.data(), kChunkKeyBytes) < 0;
  }
};

class PackTableTest : public ::testing::Test {
 protected:
  void SetUp() override {
    rocksdb::FileSystem* fs = rocksdb::FileSystem::Default().get();
    ASSERT_TRUE(fs->CreateDirIfMissing(folder_.path(), {}, nullptr).ok());
    uint32_t sequence = 0;
    for (const size_t bytes : {0, 1, 3000, 12'000, 9000, 7, 16'330, 16'400, 524'288, 5,
                               4 << 20, 300'000, 16'000, 16'000, 1, 5417, 5417, 5417}) {
      values_[EncodeChunkKey({kPack, sequence})] = TestBytes(bytes, sequence);
      sequence += sequence == 3 ? 70'000 : 1;  // a gap
    }
    for (int i = 0; i < 1000; ++i, ++sequence) {
      values_[EncodeChunkKey({kPack, sequence})] = TestBytes(i % 40, sequence);
    }
  }

  // In fragments of about `fragment` bytes.
  void WriteOurs(size_t fragment) {
    std::unique_ptr<PackFile> file;
    ASSERT_TRUE(
        PackFile::Create(rocksdb::FileSystem::Default().get(), ours_, &file).ok());
    PackTable table(file.get());
    for (const auto& [key, value] : values_) {
      std::vector<absl::string_view> fragments;
      for (absl::string_view rest = value; !rest.empty();) {
        fragments.push_back(rest.substr(0, fragment + fragments.size() % 3));
        rest.remove_prefix(fragments.back().size());
      }
      ASSERT_TRUE(table.Add(key, value.size(), fragments).ok());
    }
    ASSERT_TRUE(table.Finish().ok());
    ASSERT_TRUE(file->Finish().ok());
    EXPECT_EQ(file->size(), FileBytes(ours_).size());
  }

  void WriteTheirs() {
    rocksdb::SstFileWriter writer({}, TableOptions());
    ASSERT_TRUE(writer.Open(theirs_).ok());
    for (const auto& [key, value] : values_) {
      ASSERT_TRUE(writer.Put(rocksdb::Slice(key.data(), key.size()), value).ok());
    }
    ASSERT_TRUE(writer.Finish().ok());
  }

  modelstore::storage::RocksFolder folder_;
  const std::string ours_ = folder_.path() + "/ours.sst";
  const std::string theirs_ = folder_.path() + "/theirs.sst";
  std::map<ChunkKey, std::string, KeyOrder> values_;
};

TEST_F(PackTableTest, BlocksAndIndexAreThoseOfRocksDBsOwnWriter) {
  WriteTheirs();
  const std::string theirs = FileBytes(theirs_);
  for (const size_t fragment : {size_t{1} << 30, size_t{16384}, size_t{777}}) {
    WriteOurs(fragment);
    const std::string ours = FileBytes(ours_);
    rocksdb::SstFileReader reader(TableOptions());
    ASSERT_TRUE(reader.Open(ours_).ok());
    const auto properties = reader.GetTableProperties();
    const size_t bytes = properties->data_size + properties->index_size;
    ASSERT_GT(bytes, 5'000'000u);
    ASSERT_LT(bytes, std::min(ours.size(), theirs.size()));
    EXPECT_TRUE(ours.compare(0, bytes, theirs, 0, bytes) == 0) << fragment;
  }
}

TEST_F(PackTableTest, PropertiesSayWhatThoseOfRocksDBsOwnWriterSay) {
  WriteOurs(16384);
  WriteTheirs();
  rocksdb::SstFileReader ours(TableOptions()), theirs(TableOptions());
  ASSERT_TRUE(ours.Open(ours_).ok());
  ASSERT_TRUE(theirs.Open(theirs_).ok());
  const auto a = ours.GetTableProperties(), b = theirs.GetTableProperties();
  EXPECT_EQ(a->data_size, b->data_size);
  EXPECT_EQ(a->index_size, b->index_size);
  EXPECT_EQ(a->index_key_is_user_key, b->index_key_is_user_key);
  EXPECT_EQ(a->index_value_is_delta_encoded, b->index_value_is_delta_encoded);
  EXPECT_EQ(a->filter_size, b->filter_size);
  EXPECT_EQ(a->raw_key_size, b->raw_key_size);
  EXPECT_EQ(a->raw_value_size, b->raw_value_size);
  EXPECT_EQ(a->num_data_blocks, b->num_data_blocks);
  EXPECT_EQ(a->num_entries, values_.size());
  EXPECT_EQ(a->num_entries, b->num_entries);
  EXPECT_EQ(a->num_deletions, b->num_deletions);
  EXPECT_EQ(a->num_merge_operands, b->num_merge_operands);
  EXPECT_EQ(a->num_range_deletions, b->num_range_deletions);
  EXPECT_EQ(a->fixed_key_len, b->fixed_key_len);
  EXPECT_EQ(a->comparator_name, b->comparator_name);
  EXPECT_EQ(a->compression_name, b->compression_name);
  EXPECT_EQ(a->user_collected_properties, b->user_collected_properties);
}

TEST_F(PackTableTest, RocksDBVerifiesAndReadsEveryValue) {
  WriteOurs(16384);
  rocksdb::SstFileReader reader(TableOptions());
  ASSERT_TRUE(reader.Open(ours_).ok());
  ASSERT_TRUE(reader.VerifyChecksum().ok());
  const std::unique_ptr<rocksdb::Iterator> it(reader.NewIterator({}));
  auto expected = values_.begin();
  for (it->SeekToFirst(); it->Valid(); it->Next(), ++expected) {
    ASSERT_NE(expected, values_.end());
    EXPECT_EQ(it->key().ToString(),
              std::string(expected->first.data(), expected->first.size()));
    EXPECT_TRUE(it->value() == rocksdb::Slice(expected->second));
  }
  EXPECT_TRUE(it->status().ok()) << it->status().ToString();
  EXPECT_EQ(expected, values_.end());
  for (const auto& [key, value] : values_) {
    it->Seek(rocksdb::Slice(key.data(), key.size()));
    ASSERT_TRUE(it->Valid());
    EXPECT_TRUE(it->value() == rocksdb::Slice(value));
  }
}

TEST_F(PackTableTest, AFlippedBitAnywhereFailsTheChecksums) {
  WriteOurs(16384);
  const size_t bytes = FileBytes(ours_).size();
  // The footer has no checksum. In front of it come index, properties and directory.
  for (size_t at = 3; at < bytes - 53; at += at + 8192 < bytes ? bytes / 97 : 41) {
    FlipBitAt(ours_, static_cast<int64_t>(at), 3);
    rocksdb::SstFileReader reader(TableOptions());
    const bool open = reader.Open(ours_).ok();
    EXPECT_FALSE(open && reader.VerifyChecksum().ok()) << at;
    FlipBitAt(ours_, static_cast<int64_t>(at), 3);
  }
}

TEST_F(PackTableTest, KeysThatDoNotRiseAndTablesWithoutAValueAreRefused) {
  std::unique_ptr<PackFile> file;
  ASSERT_TRUE(PackFile::Create(rocksdb::FileSystem::Default().get(), ours_, &file).ok());
  PackTable table(file.get());
  EXPECT_TRUE(table.Finish().IsInvalidArgument());
  EXPECT_TRUE(table.Add(EncodeChunkKey({kPack, 7}), 0, {}).ok());
  EXPECT_TRUE(table.Add(EncodeChunkKey({kPack, 7}), 0, {}).IsInvalidArgument());
  EXPECT_TRUE(table.Add(EncodeChunkKey({kPack, 6}), 0, {}).IsInvalidArgument());
}

}  // namespace
}  // namespace modelstore::storage::rocks
