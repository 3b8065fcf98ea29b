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

// Keeps what the engine reports.
class Events final : public Listener {
 public:
  void OnEvent(Severity, absl::string_view message) override {
    absl::StrAppend(&text, message, "\n");
  }
  std::string text;
};

absl::StatusOr<std::shared_ptr<Folder>> OpenFolder(const std::string& path,
                                                   Listener* listener = nullptr) {
  return Folder::Open({.path = path,
                       .ballast_bytes = 0,
                       .file_system = std::make_shared<FaultFileSystem>(path),
                       .listener = listener});
}

absl::StatusOr<std::unique_ptr<RocksCatalog>> OpenCatalog(const std::string& path,
                                                          bool accept_data_loss,
                                                          Listener* listener = nullptr) {
  auto folder = OpenFolder(path, listener);
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

TEST_F(CatalogSalvageTest, ALostCurrentIsRewrittenWhereHighWaterNamesAWholeManifest) {
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

TEST_F(CatalogSalvageTest, ALostCurrentIsNotRewrittenForAnOlderManifest) {
  ASSERT_NO_FATAL_FAILURE(Make(2));
  fs::copy(Manifest(), Path("MANIFEST-009999"));
  fs::remove(Path("CURRENT"));
  ASSERT_NO_FATAL_FAILURE(RefusedFor("/catalog/CURRENT"));
  EXPECT_FALSE(fs::exists(Path("CURRENT")));
}

TEST_F(CatalogSalvageTest, ALostManifestIsRecreatedOfTablesAndJournalsWithoutALoss) {
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

// Behind a record that it cannot read RocksDB goes on at the next block.
TEST_F(CatalogSalvageTest, ARecycledRecordInALaterBlockIsNotGivenToRocksDB) {
  constexpr size_t kBlock = 32768;
  ASSERT_NO_FATAL_FAILURE(Make(1));
  const std::string wal = store_.Files("catalog", ".log").back();
  const std::string bytes = FileBytes(wal);
  ASSERT_GT(bytes.size(), 3 * kBlock);
  fs::remove(store_.path() + "/HIGH_WATER");
  for (const char type : {'\5', '\10', '\13'}) {
    std::string damaged = bytes;
    damaged[20] ^= 1;  // in the first record
    EXPECT_FALSE(rocks::ReadJournal(damaged).recycled);
    EXPECT_FALSE(rocks::HasRecycledRecord(damaged));
    damaged[2 * kBlock + 6] = type;
    EXPECT_TRUE(rocks::ReadJournal(damaged).recycled);
    EXPECT_TRUE(rocks::HasRecycledRecord(damaged));
    WriteBytes(wal, damaged);
    ASSERT_NO_FATAL_FAILURE(RefusedFor(wal));
    // A header that the file does not hold is not read.
    damaged.resize(2 * kBlock + 6);
    EXPECT_FALSE(rocks::ReadJournal(damaged).recycled);
    EXPECT_FALSE(rocks::HasRecycledRecord(damaged));
  }
}

TEST_F(CatalogSalvageTest, ARecycledRecordOfAManifestIsRefusedWhereNoWalExists) {
  ASSERT_NO_FATAL_FAILURE(Make(2));
  for (const std::string& wal : store_.Files("catalog", ".log")) fs::remove(wal);
  fs::remove(store_.path() + "/HIGH_WATER");
  std::string bytes = FileBytes(Manifest());
  bytes[rocks::JournalRecords(bytes).at(1) + 6] = '\5';
  WriteBytes(Manifest(), bytes);
  ASSERT_NO_FATAL_FAILURE(RefusedFor(Manifest()));
}

// Of an append that was not synced, whatever it looks like.
TEST_F(CatalogSalvageTest, WhatAPowerLossLeftBehindTheLastRecordIsCutOff) {
  ASSERT_NO_FATAL_FAILURE(Make(2));
  const std::string wal = store_.Files("catalog", ".log").back();
  const std::string bytes = FileBytes(wal);
  std::string garbage = TestBytes(100'000, 1);
  garbage[6] = '\6';
  const RocksFolder original;
  CopyFolder(store_.path(), original.path());
  WriteBytes(wal, bytes + garbage);
  ASSERT_TRUE(rocks::ReadJournal(bytes + garbage).recycled);
  {
    const auto catalog = OpenCatalog(store_.path(), false);
    ASSERT_TRUE(catalog.ok()) << catalog.status();
    EXPECT_TRUE(ContentOf(**catalog) == content_);
    EXPECT_THAT(store_.Files("catalog", "dbtmp"), ::testing::IsEmpty());
  }
  // Not where it could be more: nothing is noted, or there is a record.
  fs::remove_all(store_.path());
  CopyFolder(original.path(), store_.path());
  WriteBytes(wal, bytes + garbage);
  fs::remove(store_.path() + "/HIGH_WATER");
  ASSERT_NO_FATAL_FAILURE(RefusedFor(wal));
  fs::remove_all(store_.path());
  CopyFolder(original.path(), store_.path());
  std::string record = bytes.substr(0, rocks::JournalRecords(bytes).at(1));
  record[6] = '\5';
  EXPECT_TRUE(rocks::IsGarbage(garbage, 0));
  EXPECT_FALSE(rocks::IsGarbage(record, 0));
  std::string later = garbage;
  later.replace(65'536, record.size(), record);
  EXPECT_FALSE(rocks::IsGarbage(later, 0));
}

TEST_F(CatalogSalvageTest, GarbageMayFollowAPartOfARecord) {
  constexpr size_t kBlock = 32768;
  ASSERT_NO_FATAL_FAILURE(Make(1));
  std::string garbage = TestBytes(100'000, 1);
  garbage[6] = '\6';
  const std::string wal = FileBytes(store_.Files("catalog", ".log").back());
  ASSERT_GT(wal.size(), 3 * kBlock);
  const std::string bytes = wal.substr(0, 2 * kBlock) + garbage;
  const rocks::Journal journal = rocks::ReadJournal(bytes);
  EXPECT_TRUE(journal.recycled);
  EXPECT_LE(journal.valid_bytes, 2 * kBlock);
  EXPECT_EQ(journal.readable_bytes, 2 * kBlock);
  EXPECT_TRUE(rocks::IsGarbage(bytes, journal.readable_bytes));
}

// A power loss may cut the last journal anywhere; RocksDB opens all of these.
TEST_F(CatalogSalvageTest, AJournalThatIsCutAnywhereIsNeitherDamagedNorRecycled) {
  constexpr size_t kBlock = 32768;
  ASSERT_NO_FATAL_FAILURE(Make(1));
  const std::string bytes = FileBytes(store_.Files("catalog", ".log").back());
  ASSERT_GT(bytes.size(), 2 * kBlock);
  std::vector<size_t> ends;
  for (size_t end = 0; end < 64; ++end) ends.push_back(end);
  for (size_t end = kBlock - 64; end < kBlock + 64; ++end) ends.push_back(end);
  for (size_t end = 64; end < bytes.size(); end += 997) ends.push_back(end);
  size_t records = 0;
  std::sort(ends.begin(), ends.end());
  for (const size_t end : ends) {
    const std::string cut = bytes.substr(0, end);
    const rocks::Journal journal = rocks::ReadJournal(cut);
    EXPECT_NE(journal.end, rocks::Journal::End::kDamaged) << end;
    EXPECT_FALSE(journal.recycled) << end;
    EXPECT_FALSE(rocks::HasRecycledRecord(cut)) << end;
    EXPECT_LE(journal.valid_bytes, end);
    EXPECT_GE(journal.records.size(), records) << end;
    records = journal.records.size();
    // A file that was made larger before it was written ends in zeros.
    const std::string whole = bytes.substr(0, journal.valid_bytes);
    const rocks::Journal longer = rocks::ReadJournal(whole + std::string(100'000, '\0'));
    EXPECT_EQ(longer.end, rocks::Journal::End::kWhole) << end;
    EXPECT_EQ(longer.records.size(), records) << end;
  }
  EXPECT_GT(records, 10u);
}

TEST_F(CatalogSalvageTest, AJournalThatCannotBeReadIsRefusedByName) {
  ASSERT_NO_FATAL_FAILURE(Make(2));
  const auto open = [&](testing::FileKind kind, bool for_good) {
    auto disk = std::make_shared<FaultFileSystem>(store_.path());
    auto folder =
        Folder::Open({.path = store_.path(), .ballast_bytes = 0, .file_system = disk});
    EXPECT_TRUE(folder.ok()) << folder.status();
    disk->SetFault({.ops = testing::kRead, .kind = kind, .for_good = for_good});
    return RocksCatalog::Open(*folder, /*accept_data_loss=*/false).status();
  };
  for (const auto kind : {testing::FileKind::kWal, testing::FileKind::kManifest}) {
    const char* part = kind == testing::FileKind::kWal ? ".log" : "MANIFEST";
    const std::string file = store_.Files("catalog", part).back();
    const absl::Status refused = open(kind, true);
    EXPECT_TRUE(absl::IsUnavailable(refused)) << refused;
    EXPECT_THAT(std::string(refused.message()), HasSubstr(file));
    EXPECT_THAT(std::string(refused.message()), HasSubstr("--accept-data-loss"));
    // One that passes is not damage.
    EXPECT_EQ(open(kind, false), absl::OkStatus());
  }
  EXPECT_FALSE(fs::exists(store_.path() + "/quarantine"));
}

// Fails reads of one file from a place on.
class BadSectorFileSystem final : public rocksdb::FileSystemWrapper {
 public:
  BadSectorFileSystem(std::string path, uint64_t place)
      : FileSystemWrapper(rocksdb::FileSystem::Default()),
        path_(std::move(path)),
        place_(place) {}
  const char* Name() const override { return "BadSectorFileSystem"; }
  rocksdb::IOStatus NewSequentialFile(const std::string& path,
                                      const rocksdb::FileOptions& options,
                                      std::unique_ptr<rocksdb::FSSequentialFile>* result,
                                      rocksdb::IODebugContext* dbg) override {
    rocksdb::IOStatus s = target()->NewSequentialFile(path, options, result, dbg);
    if (s.ok() && path == path_) {
      *result = std::make_unique<File>(std::move(*result), place_);
    }
    return s;
  }

 private:
  class File final : public rocksdb::FSSequentialFileOwnerWrapper {
   public:
    File(std::unique_ptr<rocksdb::FSSequentialFile> file, uint64_t place)
        : FSSequentialFileOwnerWrapper(std::move(file)), left_(place) {}
    rocksdb::IOStatus Read(size_t n, const rocksdb::IOOptions& options,
                           rocksdb::Slice* result, char* scratch,
                           rocksdb::IODebugContext* dbg) override {
      if (n > left_) return rocksdb::IOStatus::IOError("a bad place");
      left_ -= n;
      return FSSequentialFileOwnerWrapper::Read(n, options, result, scratch, dbg);
    }

   private:
    uint64_t left_;
  };

  const std::string path_;
  const uint64_t place_;
};

TEST_F(CatalogSalvageTest, ABadPlaceOfAWalGivesTheStateBeforeIt) {
  ASSERT_NO_FATAL_FAILURE(Make(1));
  std::vector<Content> states = {content_};
  {
    auto catalog = OpenCatalog(store_.path(), false);
    ASSERT_TRUE(catalog.ok());
    for (int i = 0; i < 40; ++i) {
      ASSERT_NO_FATAL_FAILURE(Write(**catalog, 1, random_, &content_));
      states.push_back(content_);
    }
  }
  const std::string wal = store_.Files("catalog", ".log").back();
  const auto disk =
      std::make_shared<BadSectorFileSystem>(wal, fs::file_size(wal) / 2 / 4096 * 4096);
  for (const bool accept : {false, true}) {
    auto folder =
        Folder::Open({.path = store_.path(), .ballast_bytes = 0, .file_system = disk});
    ASSERT_TRUE(folder.ok()) << folder.status();
    const auto catalog = RocksCatalog::Open(*folder, accept);
    if (!accept) {
      EXPECT_TRUE(absl::IsUnavailable(catalog.status())) << catalog.status();
      continue;
    }
    ASSERT_TRUE(catalog.ok()) << catalog.status();
    const auto state = std::find(states.begin(), states.end(), ContentOf(**catalog));
    ASSERT_NE(state, states.end());
    EXPECT_GT(state - states.begin(), 5);
    EXPECT_LT(state - states.begin(), 35);
  }
}

TEST_F(CatalogSalvageTest, AManifestThatCannotBeReadIsRecreatedOnceTheLossIsAccepted) {
  ASSERT_NO_FATAL_FAILURE(Make(3));
  {
    auto folder = Folder::Open(
        {.path = store_.path(),
         .ballast_bytes = 0,
         .file_system = std::make_shared<BadSectorFileSystem>(Manifest(), 0)});
    ASSERT_TRUE(folder.ok()) << folder.status();
    const auto catalog = RocksCatalog::Open(*folder, /*accept_data_loss=*/true);
    ASSERT_TRUE(catalog.ok()) << catalog.status();
    EXPECT_TRUE(ContentOf(**catalog) == content_);
  }
  ASSERT_NO_FATAL_FAILURE(SalvagedWith(content_));
}

// Of a WAL whose families were written to tables at different times.
TEST_F(CatalogSalvageTest, TablesThatAreAheadOfACutWalAreSaid) {
  {
    auto catalog = OpenCatalog(store_.path(), false);
    ASSERT_TRUE(catalog.ok()) << catalog.status();
    for (int i = 0; i < 20; ++i) {
      CatalogBatch batch;
      batch.Put(Space::kRecords, absl::StrCat("record", i), "small");
      batch.Put(Space::kManifests, absl::StrCat("manifest", i), TestBytes(1 << 20, i));
      ASSERT_EQ((*catalog)->Write(batch, Durability::kDurable), absl::OkStatus());
    }
  }
  const std::vector<std::string> wals = store_.Files("catalog", ".log");
  ASSERT_GT(wals.size(), 1u);
  FlipBitAt(wals.front(), static_cast<int64_t>(fs::file_size(wals.front())) / 2, 0);
  Events events;
  ASSERT_TRUE(OpenCatalog(store_.path(), true, &events).ok());
  EXPECT_THAT(events.text, HasSubstr("versions may be incomplete, run VerifyCheckpoint"));
}

TEST_F(CatalogSalvageTest, ADamagedWalWhoseTablesAreOlderIsNotSaidToBeBehindThem) {
  ASSERT_NO_FATAL_FAILURE(Make(2));
  const std::string wal = store_.Files("catalog", ".log").back();
  FlipBitAt(wal, static_cast<int64_t>(fs::file_size(wal)) / 2, 0);
  Events events;
  ASSERT_TRUE(OpenCatalog(store_.path(), true, &events).ok());
  EXPECT_THAT(events.text, HasSubstr("was kept"));
  EXPECT_THAT(events.text, ::testing::Not(HasSubstr("may be incomplete")));
}

TEST_F(CatalogSalvageTest, WhatIsBeyondRepairIsNotReportedToAcceptALossAgain) {
  ASSERT_NO_FATAL_FAILURE(Make(3));
  for (const std::string& table : store_.Files("catalog", ".sst")) CutFile(table, 50);
  for (const std::string& wal : store_.Files("catalog", ".log")) CutFile(wal, 0);
  const absl::Status status = OpenCatalog(store_.path(), true).status();
  ASSERT_TRUE(absl::IsDataLoss(status)) << status;
  EXPECT_THAT(std::string(status.message()), HasSubstr("beyond repair"));
  EXPECT_THAT(std::string(status.message()), HasSubstr("from a backup"));
  EXPECT_THAT(std::string(status.message()),
              ::testing::Not(HasSubstr("--accept-data-loss")));
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

// It had its end when the MANIFEST was made.
TEST_F(CatalogSalvageTest, ATableThatLostItsEndIsNotTakenForTheRestOfACrash) {
  ASSERT_NO_FATAL_FAILURE(Make(3));
  const std::string table = store_.Files("catalog", ".sst").front();
  CutFile(table, static_cast<int64_t>(fs::file_size(table)) / 2);
  CutFile(Manifest(), 10);
  const absl::Status status = OpenCatalog(store_.path(), true).status();
  ASSERT_TRUE(absl::IsDataLoss(status)) << status;
  EXPECT_THAT(std::string(status.message()), HasSubstr(table));
  EXPECT_THAT(std::string(status.message()), HasSubstr("is truncated"));
}

// What a loss keeps replaces nothing that an earlier one, or one cut short, has kept.
TEST_F(CatalogSalvageTest, AKeptPackReplacesNoOtherOfItsNumber) {
  rocks::Quarantine loss(rocksdb::FileSystem::Default(), store_.path());
  fs::create_directories(store_.path());
  ASSERT_EQ(loss.Begin("a test"), absl::OkStatus());
  std::vector<std::string> kept(2);
  for (size_t i = 0; i < kept.size(); ++i) {
    const std::string path = absl::StrCat(store_.path(), "/", i, ".sst");
    WriteBytes(path, path);
    ASSERT_EQ(loss.KeepPack(path, 7, &kept[i]), absl::OkStatus());
  }
  EXPECT_NE(kept[0], kept[1]);
  for (size_t i = 0; i < kept.size(); ++i) {
    EXPECT_EQ(FileBytes(kept[i]), absl::StrCat(store_.path(), "/", i, ".sst"));
    EXPECT_TRUE(absl::EndsWith(kept[i], ".sst"));
  }
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
