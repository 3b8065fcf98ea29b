// A catalog that lost its CURRENT, its MANIFEST or a part of its WAL: what is refused,
// what is made anew without a loss, and what an accepted loss gives up.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <filesystem>
#include <map>
#include <optional>
#include <random>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "storage/rocksdb/catalog.h"
#include "storage/rocksdb/journal_format.h"
#include "tests/storage/rocks_folder.h"
#include "tests/storage/test_bytes.h"
#include "tests/support/fault_file_system.h"
#include "tests/support/seed.h"

namespace modelstore::storage {
namespace {

namespace fs = std::filesystem;
using rocks::Folder;
using rocks::RocksCatalog;
using testing::FaultFileSystem;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::SizeIs;

constexpr Space kSpaces[] = {Space::kRecords, Space::kManifests, Space::kChunks};
using Content = std::map<std::pair<Space, std::string>, std::string>;

absl::StatusOr<std::shared_ptr<Folder>> OpenFolder(const std::string& path) {
  return Folder::Open({.path = path,
                       .ballast_bytes = 0,
                       .file_system = std::make_shared<FaultFileSystem>(path)});
}

absl::StatusOr<std::unique_ptr<RocksCatalog>> OpenCatalog(const std::string& path,
                                                          bool accept_data_loss) {
  auto folder = OpenFolder(path);
  if (!folder.ok()) return folder.status();
  return RocksCatalog::Open(*std::move(folder), accept_data_loss);
}

// Writes that put and delete, some of them larger than a block of a journal.
void Write(RocksCatalog& catalog, int writes, std::mt19937_64& random, Content* content) {
  for (int i = 0; i < writes; ++i) {
    CatalogBatch batch;
    for (const Space space : kSpaces) {
      const std::string key = absl::StrCat("key", random() % 300);
      if (random() % 4 == 0) {
        batch.Delete(space, key);
        content->erase({space, key});
        continue;
      }
      const std::string value =
          TestBytes(random() % (i % 8 == 0 ? 90'000 : 2'000), random());
      batch.Put(space, key, value);
      (*content)[{space, key}] = value;
    }
    ASSERT_EQ(catalog.Write(batch, Durability::kDurable), absl::OkStatus());
  }
}

// A catalog of some generations: tables, compacted ones among them, and a WAL.
void MakeCatalog(const std::string& path, int generations, std::mt19937_64& random,
                 Content* content) {
  for (int generation = 0; generation < generations; ++generation) {
    auto catalog = OpenCatalog(path, false);
    ASSERT_TRUE(catalog.ok()) << catalog.status();
    ASSERT_NO_FATAL_FAILURE(Write(**catalog, 60, random, content));
  }
}

Content ContentOf(RocksCatalog& catalog) {
  Content content;
  for (const Space space : kSpaces) {
    const absl::Status status = catalog.Scan(
        space, PrefixRange(""), [&](absl::string_view key, absl::string_view value) {
          content[{space, std::string(key)}] = std::string(value);
          return true;
        });
    EXPECT_EQ(status, absl::OkStatus());
  }
  return content;
}

class CatalogSalvageTest : public ::testing::Test {
 protected:
  void Make(int generations) {
    ASSERT_NO_FATAL_FAILURE(MakeCatalog(store_.path(), generations, random_, &content_));
  }
  std::string Path(const std::string& name) const {
    return store_.path() + "/catalog/" + name;
  }
  std::string Manifest() const { return store_.Files("catalog", "MANIFEST").back(); }
  void RefusedFor(const std::string& file) {
    const absl::Status status = OpenCatalog(store_.path(), false).status();
    ASSERT_TRUE(absl::IsDataLoss(status)) << status;
    EXPECT_THAT(std::string(status.message()), HasSubstr(file));
    EXPECT_THAT(std::string(status.message()), HasSubstr("--accept-data-loss"));
  }
  // Opens it with the loss accepted, and again without.
  void SalvagedWith(const Content& expected) {
    {
      const auto catalog = OpenCatalog(store_.path(), true);
      ASSERT_TRUE(catalog.ok()) << catalog.status();
      EXPECT_TRUE(ContentOf(**catalog) == expected);
    }
    const auto catalog = OpenCatalog(store_.path(), false);
    ASSERT_TRUE(catalog.ok()) << catalog.status();
    EXPECT_TRUE(ContentOf(**catalog) == expected);
    CatalogBatch batch;
    batch.Put(Space::kRecords, "after", "loss");
    EXPECT_EQ((*catalog)->Write(batch, Durability::kDurable), absl::OkStatus());
  }
  // The file of that name in quarantine.
  std::string Kept(const std::string& name) const {
    for (const auto& entry :
         fs::recursive_directory_iterator(store_.path() + "/quarantine")) {
      if (entry.path().filename() == name) return entry.path().string();
    }
    return "";
  }

  std::mt19937_64 random_{TestSeed()};
  RocksFolder store_;
  Content content_;
};

TEST_F(CatalogSalvageTest, ALostCurrentIsWrittenAnewWhereHighWaterNamesAWholeManifest) {
  ASSERT_NO_FATAL_FAILURE(Make(3));
  for (const char* content : {"", "\n", "MANIFEST-000001\n", "garbage", "MANIFEST-"}) {
    fs::remove(Path("CURRENT"));
    if (*content != '\0') WriteBytes(Path("CURRENT"), content);
    const auto catalog = OpenCatalog(store_.path(), false);
    ASSERT_TRUE(catalog.ok()) << content << ": " << catalog.status();
    EXPECT_TRUE(ContentOf(**catalog) == content_) << content;
    EXPECT_FALSE(fs::exists(store_.path() + "/quarantine"));
  }
}

TEST_F(CatalogSalvageTest, ALostCurrentIsRefusedWhereNothingProvesTheManifest) {
  ASSERT_NO_FATAL_FAILURE(Make(2));
  fs::remove(Path("CURRENT"));
  fs::remove(store_.path() + "/HIGH_WATER");
  ASSERT_NO_FATAL_FAILURE(RefusedFor("/catalog/CURRENT"));
  ASSERT_NO_FATAL_FAILURE(SalvagedWith(content_));
}

TEST_F(CatalogSalvageTest, ALostManifestIsMadeAnewOfTablesAndJournalsWithoutALoss) {
  for (int generations = 1; generations <= 9; generations += 2) {
    SCOPED_TRACE(generations);
    fs::remove_all(store_.path());
    content_.clear();
    ASSERT_NO_FATAL_FAILURE(Make(generations));
    const std::string manifest = Manifest();
    CutFile(manifest, 10);
    ASSERT_NO_FATAL_FAILURE(RefusedFor(manifest));
    const std::vector<std::string> tables = store_.Files("catalog", ".sst");
    ASSERT_NO_FATAL_FAILURE(SalvagedWith(content_));
    // As it was found.
    const std::string kept = Kept(fs::path(manifest).filename().string());
    ASSERT_FALSE(kept.empty());
    EXPECT_EQ(fs::file_size(kept), 10u);
    for (const std::string& table : tables) {
      EXPECT_FALSE(Kept(fs::path(table).filename().string()).empty()) << table;
    }
  }
}

TEST_F(CatalogSalvageTest, ADamagedWalGivesTheStateBeforeTheDamageAndIsKept) {
  ASSERT_NO_FATAL_FAILURE(Make(2));
  const Content before = content_;
  std::vector<Content> states = {before};
  {
    auto catalog = OpenCatalog(store_.path(), false);
    ASSERT_TRUE(catalog.ok());
    for (int i = 0; i < 40; ++i) {
      ASSERT_NO_FATAL_FAILURE(Write(**catalog, 1, random_, &content_));
      states.push_back(content_);
    }
  }
  const RocksFolder original;
  CopyFolder(store_.path(), original.path());
  for (int round = 0; round < TestRounds(12); ++round) {
    fs::remove_all(store_.path());
    CopyFolder(original.path(), store_.path());
    const std::string wal = store_.Files("catalog", ".log").back();
    FlipBitAt(wal, static_cast<int64_t>(random_() % fs::file_size(wal)),
              static_cast<int>(random_() % 8));
    const std::string damaged = FileBytes(wal);
    ASSERT_NO_FATAL_FAILURE(RefusedFor(wal));
    const auto catalog = OpenCatalog(store_.path(), true);
    ASSERT_TRUE(catalog.ok()) << catalog.status();
    EXPECT_GE(std::count(states.begin(), states.end(), ContentOf(**catalog)), 1);
    EXPECT_EQ(FileBytes(Kept(fs::path(wal).filename().string())), damaged);
    EXPECT_TRUE(fs::exists(store_.path() + "/SALVAGE"));
  }
}

// RocksDB 9.10 reads a journal for ever that has such a record.
TEST_F(CatalogSalvageTest, ARecordOfARecycledJournalIsNotGivenToRocksDB) {
  ASSERT_NO_FATAL_FAILURE(Make(2));
  const RocksFolder original;
  CopyFolder(store_.path(), original.path());
  for (const char* part : {"MANIFEST", ".log"}) {
    SCOPED_TRACE(part);
    const std::string bytes = FileBytes(original.Files("catalog", part).back());
    std::vector<size_t> records = rocks::JournalRecords(bytes);
    // The last part of a record, type 4, has none beside it that differs by one bit.
    std::erase_if(records, [&](size_t record) { return bytes[record + 6] == 4; });
    ASSERT_FALSE(records.empty());
    for (const size_t record :
         {records.front(), records[records.size() / 2], records.back()}) {
      for (const bool noted : {true, false}) {
        fs::remove_all(store_.path());
        CopyFolder(original.path(), store_.path());
        const std::string journal = store_.Files("catalog", part).back();
        FlipBitAt(journal, static_cast<int64_t>(record) + 6, 2);
        if (!noted) fs::remove(store_.path() + "/HIGH_WATER");
        ASSERT_NO_FATAL_FAILURE(RefusedFor(journal));
        const auto catalog = OpenCatalog(store_.path(), true);
        ASSERT_TRUE(catalog.ok()) << catalog.status();
        if (*part == 'M') {
          EXPECT_TRUE(ContentOf(**catalog) == content_);
        }
      }
    }
  }
}

TEST_F(CatalogSalvageTest, AMissingTableIsNoMissingKey) {
  ASSERT_NO_FATAL_FAILURE(Make(3));
  const std::vector<std::string> tables = store_.Files("catalog", ".sst");
  const std::string table = *std::max_element(
      tables.begin(), tables.end(),
      [](const auto& a, const auto& b) { return fs::file_size(a) < fs::file_size(b); });
  fs::remove(table);
  // RocksDB asks for it by an older name as well.
  ASSERT_NO_FATAL_FAILURE(RefusedFor(fs::path(table).stem().string()));
  const auto catalog = OpenCatalog(store_.path(), true);
  ASSERT_TRUE(catalog.ok()) << catalog.status();
  int lost = 0;
  for (const auto& [key, value] : content_) {
    const auto read = (*catalog)->Get(key.first, key.second);
    if (read.ok() && *read == value) continue;
    EXPECT_TRUE(absl::IsDataLoss(read.status())) << key.second << ": " << read.status();
    ++lost;
  }
  EXPECT_GT(lost, 0);
}

TEST_F(CatalogSalvageTest, DamagedTablesWithoutAManifestAreRefusedAndLeftAsTheyAre) {
  ASSERT_NO_FATAL_FAILURE(Make(3));
  fs::remove(Manifest());
  const std::string table = store_.Files("catalog", ".sst").front();
  FlipBitAt(table, 100, 0);
  const std::string bytes = FileBytes(table);
  const absl::Status status = OpenCatalog(store_.path(), true).status();
  ASSERT_TRUE(absl::IsDataLoss(status)) << status;
  EXPECT_THAT(std::string(status.message()), HasSubstr("beyond repair"));
  EXPECT_EQ(FileBytes(table), bytes);
  EXPECT_FALSE(fs::exists(store_.path() + "/catalog.new"));
  EXPECT_FALSE(fs::exists(store_.path() + "/SALVAGE"));
}

// A crash in the middle of a flush or compaction leaves a part of a table.
TEST_F(CatalogSalvageTest, ATableThatACrashCutShortIsLeftOut) {
  ASSERT_NO_FATAL_FAILURE(Make(3));
  fs::remove(Manifest());
  const std::string table = store_.Files("catalog", ".sst").front();
  fs::copy(table, Path("009999.sst"));
  CutFile(Path("009999.sst"), static_cast<int64_t>(fs::file_size(table)) / 2);
  ASSERT_NO_FATAL_FAILURE(SalvagedWith(content_));
}

TEST_F(CatalogSalvageTest, AnEmptyCatalogOverPacksIsNoNewStore) {
  ASSERT_NO_FATAL_FAILURE(Make(1));
  fs::remove_all(store_.path() + "/catalog");
  fs::remove(store_.path() + "/HIGH_WATER");
  WriteBytes(store_.path() + "/packs/000007.sst", "a pack");
  ASSERT_NO_FATAL_FAILURE(RefusedFor("/catalog/CURRENT"));
  const auto catalog = OpenCatalog(store_.path(), true);
  ASSERT_TRUE(catalog.ok()) << catalog.status();
  EXPECT_TRUE(fs::exists(store_.path() + "/SALVAGE"));
}

// Wherever it stops, the next start ends it or begins it anew: nothing more is lost.
TEST_F(CatalogSalvageTest, ASalvageThatIsCutShortAnywhereEndsAsOneThatWasNot) {
  ASSERT_NO_FATAL_FAILURE(Make(2));
  CutFile(Manifest(), 10);
  int cut = 0;
  for (int64_t at = 1; at <= 400; at += 7) {
    RocksFolder copy;
    CopyFolder(store_.path(), copy.path());
    bool is_over = false;
    {
      auto disk = std::make_shared<FaultFileSystem>(copy.path());
      auto folder =
          Folder::Open({.path = copy.path(), .ballast_bytes = 0, .file_system = disk});
      ASSERT_TRUE(folder.ok()) << folder.status();
      disk->CutPowerAt(at);
      auto catalog = RocksCatalog::Open(*folder, true);
      is_over = catalog.ok() && !disk->power_is_off();
    }
    auto catalog = OpenCatalog(copy.path(), false);
    if (!catalog.ok()) {
      ASSERT_TRUE(absl::IsDataLoss(catalog.status())) << at << ": " << catalog.status();
      catalog = OpenCatalog(copy.path(), true);
    }
    ASSERT_TRUE(catalog.ok()) << at << ": " << catalog.status();
    ASSERT_TRUE(ContentOf(**catalog) == content_) << at;
    if (is_over) break;
    ++cut;
  }
  EXPECT_GT(cut, 10);
  EXPECT_LT(cut, 130);
}

}  // namespace
}  // namespace modelstore::storage
