// Bits flipped and files cut at random places of every kind of file of a store:
// the right bytes, or a refusal that says what is damaged; never a wrong value,
// never a loss in silence, never a crash.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <filesystem>
#include <map>
#include <random>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "storage/rocksdb/catalog.h"
#include "storage/rocksdb/chunk_store.h"
#include "storage/rocksdb/journal_format.h"
#include "storage/rocksdb/table_format.h"
#include "tests/storage/file_damage.h"
#include "tests/storage/rocks_folder.h"
#include "tests/storage/test_bytes.h"
#include "tests/support/fault_file_system.h"
#include "tests/support/seed.h"

namespace modelstore::storage {
namespace {

namespace fs = std::filesystem;
using rocks::Folder;
using rocks::RocksCatalog;
using rocks::RocksChunkStore;
using testing::FaultFileSystem;

constexpr int kRounds = 1000;

absl::StatusOr<std::shared_ptr<Folder>> OpenFolder(const std::string& path) {
  // Over the fault file system nothing waits for a sync.
  return Folder::Open({.path = path,
                       .ballast_bytes = 0,
                       .file_system = std::make_shared<FaultFileSystem>(path)});
}

using CatalogContent = std::map<std::pair<Space, std::string>, std::string>;

// A catalog with tables, a WAL, and two MANIFEST edits in a row.
void MakeCatalog(const std::string& path, std::mt19937_64& random,
                 CatalogContent* content) {
  auto folder = OpenFolder(path);
  ASSERT_TRUE(folder.ok()) << folder.status();
  for (int generation = 0; generation < 3; ++generation) {
    auto catalog = RocksCatalog::Open(*folder, false);
    ASSERT_TRUE(catalog.ok()) << catalog.status();
    for (int i = 0; i < 20; ++i) {
      CatalogBatch batch;
      for (const Space space : {Space::kRecords, Space::kManifests, Space::kChunks}) {
        const std::string key = absl::StrCat("key", random() % 60);
        const std::string value = TestBytes(random() % 3000, random());
        batch.Put(space, key, value);
        (*content)[{space, key}] = value;
      }
      ASSERT_TRUE((*catalog)->Write(batch, Durability::kDurable).ok());
    }
  }
}

// Counts what became of the rounds.
struct Tally {
  int intact = 0;
  int refused = 0;
  int lossy_reads = 0;
};

void CheckContent(RocksCatalog& catalog, const CatalogContent& content, bool may_miss,
                  Tally* tally) {
  bool lossy = false;
  for (const auto& [key, value] : content) {
    const auto read = catalog.Get(key.first, key.second);
    if (!read.ok()) {
      EXPECT_TRUE(absl::IsDataLoss(read.status())) << read.status();
      lossy = true;
    } else if (read->has_value()) {
      EXPECT_TRUE(may_miss || **read == value) << "a wrong value of " << key.second;
    } else {
      EXPECT_TRUE(may_miss) << "a value is missing in silence: " << key.second;
    }
  }
  ++(lossy ? tally->lossy_reads : tally->intact);
}

class CatalogDamage : public ::testing::TestWithParam<const char*> {};

TEST_P(CatalogDamage, IsNoticedByName) {
  const std::string kind = GetParam();
  std::mt19937_64 random(TestSeed());
  RocksFolder original;
  CatalogContent content;
  ASSERT_NO_FATAL_FAILURE(MakeCatalog(original.path(), random, &content));
  const std::string subfolder = kind == "HIGH_WATER" ? "" : "catalog";
  Tally tally;
  for (int round = 0; round < TestRounds(kRounds) && !HasFailure(); ++round) {
    RocksFolder damaged_copy;
    CopyFolder(original.path(), damaged_copy.path());
    const std::vector<std::string> files = damaged_copy.Files(subfolder, kind);
    ASSERT_FALSE(files.empty()) << kind;
    SCOPED_TRACE(DamageFile(files[random() % files.size()], random));
    auto folder = OpenFolder(damaged_copy.path());
    ASSERT_TRUE(folder.ok()) << folder.status();
    auto catalog = RocksCatalog::Open(*folder, /*accept_data_loss=*/false);
    if (catalog.ok()) {
      CheckContent(**catalog, content, /*may_miss=*/false, &tally);
      continue;
    }
    ++tally.refused;
    ASSERT_TRUE(absl::IsDataLoss(catalog.status())) << catalog.status();
    EXPECT_THAT(std::string(catalog.status().message()),
                ::testing::AllOf(::testing::HasSubstr("/catalog/"),
                                 ::testing::HasSubstr("--accept-data-loss")));
  }
  std::printf("%s: %d intact, %d refused, %d with reads that are data loss\n",
              kind.c_str(), tally.intact, tally.refused, tally.lossy_reads);
}

INSTANTIATE_TEST_SUITE_P(Files, CatalogDamage,
                         ::testing::Values(".log", "MANIFEST", ".sst", "CURRENT",
                                           "HIGH_WATER", "OPTIONS", "IDENTITY"),
                         [](const auto& info) {
                           std::string name = info.param;
                           std::erase(name, '.');
                           return name;
                         });

// Where the properties of a table say how many restarts they have: the metaindex
// behind them begins with their name.
int64_t RestartCountOfProperties(const std::string& table) {
  const std::string bytes = FileBytes(table);
  const size_t name = bytes.rfind(std::string(rocks::kPropertiesBlock));
  constexpr size_t kEntryHead = 3;
  constexpr size_t kCount = 4;
  return static_cast<int64_t>(name - kEntryHead - rocks::kBlockTrailerBytes - kCount);
}

TEST(CatalogDamageTest, AnAcceptedLossOpensAndTakesWrites) {
  std::mt19937_64 random(TestSeed());
  RocksFolder original;
  CatalogContent content;
  ASSERT_NO_FATAL_FAILURE(MakeCatalog(original.path(), random, &content));
  int refused = 0;
  for (int round = 0; round < TestRounds(40); ++round) {
    RocksFolder damaged_copy;
    CopyFolder(original.path(), damaged_copy.path());
    const std::vector<std::string> logs =
        damaged_copy.Files("catalog", round % 2 ? ".log" : "MANIFEST");
    SCOPED_TRACE(DamageFile(logs[random() % logs.size()], random));
    auto folder = OpenFolder(damaged_copy.path());
    ASSERT_TRUE(folder.ok()) << folder.status();
    if (RocksCatalog::Open(*folder, false).ok()) continue;
    ++refused;
    auto catalog = RocksCatalog::Open(*folder, /*accept_data_loss=*/true);
    ASSERT_TRUE(catalog.ok()) << catalog.status();
    CatalogBatch batch;
    batch.Put(Space::kRecords, "after", "loss");
    ASSERT_TRUE((*catalog)->Write(batch, Durability::kDurable).ok());
    catalog->reset();
    // What was accepted once is not asked again.
    catalog = RocksCatalog::Open(*folder, /*accept_data_loss=*/false);
    ASSERT_TRUE(catalog.ok()) << catalog.status();
    EXPECT_EQ(*(*catalog)->Get(Space::kRecords, "after"), "loss");
  }
  EXPECT_GT(refused, 0);
}

TEST(CatalogDamageTest, AnAcceptedLossOfATableLosesOnlyItsKeys) {
  std::mt19937_64 random(TestSeed());
  RocksFolder original;
  CatalogContent content;
  ASSERT_NO_FATAL_FAILURE(MakeCatalog(original.path(), random, &content));
  Tally tally;
  for (const std::string& table : original.Files("catalog", ".sst")) {
    SCOPED_TRACE(table);
    RocksFolder damaged_copy;
    CopyFolder(original.path(), damaged_copy.path());
    const std::string path = damaged_copy.path() + table.substr(original.path().size());
    FlipBitAt(path, RestartCountOfProperties(path), 3);
    auto folder = OpenFolder(damaged_copy.path());
    ASSERT_TRUE(folder.ok()) << folder.status();
    auto catalog = RocksCatalog::Open(*folder, /*accept_data_loss=*/true);
    ASSERT_TRUE(catalog.ok()) << catalog.status();
    CheckContent(**catalog, content, /*may_miss=*/false, &tally);
    CatalogBatch batch;
    batch.Put(Space::kRecords, "after", "loss");
    ASSERT_TRUE((*catalog)->Write(batch, Durability::kDurable).ok());
    // As after a full disk: nobody is there to accept it again.
    const absl::Status reopened = (*catalog)->Reopen();
    ASSERT_TRUE(reopened.ok()) << reopened;
    EXPECT_EQ(*(*catalog)->Get(Space::kRecords, "after"), "loss");
    CheckContent(**catalog, content, /*may_miss=*/false, &tally);
    // The table is as hurt as it was, and whoever starts the server next shall know.
    catalog->reset();
    EXPECT_TRUE(absl::IsDataLoss(RocksCatalog::Open(*folder, false).status()));
  }
  EXPECT_GT(tally.lossy_reads, 0);
}

TEST(CatalogDamageTest, ACatalogWithoutCurrentIsNotTakenForANewOne) {
  std::mt19937_64 random(TestSeed());
  RocksFolder store;
  CatalogContent content;
  ASSERT_NO_FATAL_FAILURE(MakeCatalog(store.path(), random, &content));
  fs::remove(store.path() + "/catalog/CURRENT");
  // Which would tell what CURRENT held.
  fs::remove(store.path() + "/HIGH_WATER");
  auto folder = OpenFolder(store.path());
  ASSERT_TRUE(folder.ok());
  const auto catalog = RocksCatalog::Open(*folder, false);
  ASSERT_TRUE(absl::IsDataLoss(catalog.status())) << catalog.status();
  EXPECT_THAT(std::string(catalog.status().message()),
              ::testing::HasSubstr("/catalog/CURRENT"));
}

// RocksDB takes the properties apart before it looks at their checksum, and asserts
// what it expects of them.
TEST(CatalogDamageTest, PropertiesThatCrashRocksDBAreReportedByName) {
  std::mt19937_64 random(TestSeed());
  RocksFolder store;
  CatalogContent content;
  ASSERT_NO_FATAL_FAILURE(MakeCatalog(store.path(), random, &content));
  const std::string table = store.Files("catalog", ".sst").at(0);
  const int64_t count = RestartCountOfProperties(table);
  for (int bit = 0; bit < 32; ++bit) {
    FlipBitAt(table, count + bit / 8, bit % 8);
    auto folder = OpenFolder(store.path());
    ASSERT_TRUE(folder.ok()) << folder.status();
    const auto catalog = RocksCatalog::Open(*folder, /*accept_data_loss=*/false);
    ASSERT_TRUE(absl::IsDataLoss(catalog.status())) << bit << ": " << catalog.status();
    EXPECT_THAT(std::string(catalog.status().message()),
                ::testing::AllOf(::testing::HasSubstr(table),
                                 ::testing::HasSubstr("properties are damaged")));
    FlipBitAt(table, count + bit / 8, bit % 8);
  }
  auto folder = OpenFolder(store.path());
  ASSERT_TRUE(folder.ok()) << folder.status();
  auto catalog = RocksCatalog::Open(*folder, /*accept_data_loss=*/false);
  ASSERT_TRUE(catalog.ok()) << catalog.status();
  Tally tally;
  CheckContent(**catalog, content, /*may_miss=*/false, &tally);
  EXPECT_EQ(tally.intact, 1);
}

using PackContent = std::map<uint64_t, std::vector<std::string>>;

void MakePacks(const std::string& path, std::mt19937_64& random, PackContent* content) {
  auto folder = OpenFolder(path);
  ASSERT_TRUE(folder.ok()) << folder.status();
  RocksChunkStore store(*folder);
  ASSERT_TRUE(store.Reopen({}).ok());
  for (uint64_t pack = 1; pack <= 4; ++pack) {
    auto writer = store.NewPack(pack);
    ASSERT_TRUE(writer.ok()) << writer.status();
    for (int i = 0; i < 8; ++i) {
      (*content)[pack].push_back(TestBytes(random() % (i % 2 ? 2000 : 60'000), random()));
      ASSERT_TRUE((*writer)->Append((*content)[pack].back()).ok());
    }
    ASSERT_TRUE((*writer)->Finish().ok());
    ASSERT_TRUE(store.Publish(*std::move(writer)).ok());
  }
}

// Chunks of a pack that do not read back as they were written.
int LostChunks(RocksChunkStore& store, uint64_t pack, const PackContent& content) {
  int lost = 0;
  const std::vector<std::string>& chunks = content.at(pack);
  for (uint32_t i = 0; i < chunks.size(); ++i) {
    const auto bytes = store.Read({pack, i});
    if (bytes.ok() && bytes->view() == chunks[i]) continue;
    ++lost;
    if (bytes.ok()) continue;  // The digest tells.
    EXPECT_TRUE(absl::IsDataLoss(bytes.status()) || absl::IsNotFound(bytes.status()))
        << bytes.status();
  }
  return lost;
}

TEST(PackDamageTest, PropertiesThatCrashRocksDBLoseOnlyTheirPack) {
  std::mt19937_64 random(TestSeed());
  RocksFolder store;
  PackContent content;
  ASSERT_NO_FATAL_FAILURE(MakePacks(store.path(), random, &content));
  const uint64_t expected[] = {1, 2, 3, 4};
  const std::string table = store.Files("packs", ".sst").at(1);
  const uint64_t damaged_pack = PackIn(table).value();
  const int64_t count = RestartCountOfProperties(table);
  for (int bit = 0; bit < 32; ++bit) {
    FlipBitAt(table, count + bit / 8, bit % 8);
    auto folder = OpenFolder(store.path());
    ASSERT_TRUE(folder.ok()) << folder.status();
    RocksChunkStore chunks(*folder);
    const absl::Status status = chunks.Reopen(expected);
    ASSERT_TRUE(status.ok()) << status;
    for (uint64_t pack : expected) {
      EXPECT_EQ(LostChunks(chunks, pack, content), pack == damaged_pack ? 8 : 0) << bit;
    }
    const auto lost = chunks.Read({damaged_pack, 0});
    EXPECT_TRUE(absl::IsDataLoss(lost.status())) << lost.status();
    EXPECT_THAT(std::string(lost.status().message()), ::testing::HasSubstr(table));
    FlipBitAt(table, count + bit / 8, bit % 8);
  }
}

// RocksDB 9.10 reads a MANIFEST for ever that has a record of a recycled journal.
TEST(PackDamageTest, ARecordThatRocksDBWouldReadForEverCostsNoPack) {
  std::mt19937_64 random(TestSeed());
  RocksFolder original;
  PackContent content;
  ASSERT_NO_FATAL_FAILURE(MakePacks(original.path(), random, &content));
  const std::string manifest = original.Files("packs", "MANIFEST").at(0);
  const std::string bytes = FileBytes(manifest);
  const std::vector<size_t> records = rocks::JournalRecords(bytes);
  ASSERT_GE(records.size(), 5u);
  EXPECT_FALSE(rocks::HasRecycledRecord(bytes));
  for (const size_t record : records) {
    RocksFolder damaged_copy;
    CopyFolder(original.path(), damaged_copy.path());
    // From type 1 to 5.
    FlipBitAt(damaged_copy.path() + manifest.substr(original.path().size()),
              static_cast<int64_t>(record) + 6, 2);
    auto folder = OpenFolder(damaged_copy.path());
    ASSERT_TRUE(folder.ok()) << folder.status();
    RocksChunkStore store(*folder);
    const uint64_t expected[] = {1, 2, 3, 4};
    const absl::Status status = store.Reopen(expected);
    ASSERT_TRUE(status.ok()) << status;
    for (uint64_t pack : expected)
      EXPECT_EQ(LostChunks(store, pack, content), 0) << record;
  }
}

class PackDamage : public ::testing::TestWithParam<const char*> {};

TEST_P(PackDamage, DamagesNoOtherPack) {
  const std::string kind = GetParam();
  std::mt19937_64 random(TestSeed());
  RocksFolder original;
  PackContent content;
  ASSERT_NO_FATAL_FAILURE(MakePacks(original.path(), random, &content));
  const uint64_t expected[] = {1, 2, 3, 4};
  int damaged_packs = 0;
  int lost_chunks = 0;
  for (int round = 0; round < TestRounds(kRounds) && !HasFailure(); ++round) {
    RocksFolder damaged_copy;
    CopyFolder(original.path(), damaged_copy.path());
    const std::vector<std::string> files = damaged_copy.Files("packs", kind);
    ASSERT_FALSE(files.empty()) << kind;
    const std::string& file = files[random() % files.size()];
    const uint64_t damaged_pack = kind == ".sst" ? PackIn(file).value() : 0;
    SCOPED_TRACE(DamageFile(file, random));
    auto folder = OpenFolder(damaged_copy.path());
    ASSERT_TRUE(folder.ok()) << folder.status();
    RocksChunkStore store(*folder);
    const absl::Status status = store.Reopen(expected);
    ASSERT_TRUE(status.ok()) << status;
    for (uint64_t pack : expected) {
      const int lost = LostChunks(store, pack, content);
      lost_chunks += lost;
      if (pack == damaged_pack) {
        damaged_packs += lost > 0;
      } else {
        EXPECT_EQ(lost, 0) << "of pack " << pack;
      }
    }
    // Work goes on: a hurt pack is dropped, a new one written.
    const uint64_t drop[] = {damaged_pack == 0 ? 1 : damaged_pack};
    EXPECT_TRUE(store.DropPacks(drop).ok());
    auto writer = store.NewPack(9);
    ASSERT_TRUE(writer.ok()) << writer.status();
    ASSERT_TRUE((*writer)->Append("new").ok());
    ASSERT_TRUE((*writer)->Finish().ok());
    EXPECT_TRUE(store.Publish(*std::move(writer)).ok());
    EXPECT_EQ(store.ListPacks()->size(), 4u);
  }
  std::printf("%s: chunks were hurt in %d rounds, %d in all\n", kind.c_str(),
              damaged_packs, lost_chunks);
}

INSTANTIATE_TEST_SUITE_P(Files, PackDamage,
                         ::testing::Values(".sst", "MANIFEST", "CURRENT", "OPTIONS",
                                           "IDENTITY"),
                         [](const auto& info) {
                           std::string name = info.param;
                           std::erase(name, '.');
                           return name;
                         });

}  // namespace
}  // namespace modelstore::storage
