// A store that went on without a part of its catalog: no byte of what was given up is
// deleted, and what "Salvage" in storage/FORMAT.md says brings it back.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <set>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "storage/rocksdb/journal_format.h"
#include "tests/fault/store_scenario.h"
#include "tests/storage/rocks_folder.h"
#include "tests/support/fault_file_system.h"

namespace modelstore::storage {
namespace {

namespace fs = std::filesystem;
using testing::FaultFileSystem;
using ::testing::HasSubstr;

class Events final : public Listener {
 public:
  void OnEvent(Severity, absl::string_view message) override {
    absl::StrAppend(&text, message, "\n");
  }
  std::string text;
};

// Every pack with a file anywhere in the store.
std::set<uint64_t> PacksIn(const std::string& folder) {
  std::set<uint64_t> packs;
  for (const auto& file : fs::recursive_directory_iterator(folder)) {
    if (file.path().extension() != ".sst" ||
        absl::StrContains(file.path().string(), "/catalog")) {
      continue;
    }
    if (const auto pack = PackIn(file.path())) packs.insert(*pack);
  }
  return packs;
}

// The one loss in quarantine/.
std::string LossIn(const std::string& folder) {
  std::string loss;
  for (const auto& entry : fs::directory_iterator(folder + "/quarantine")) {
    EXPECT_EQ(loss, "") << "two losses";
    if (entry.is_directory()) loss = entry.path().string();
  }
  return loss;
}

class SalvageTest : public ::testing::Test {
 protected:
  void SetUp() override {
    CopyFolder(scenario_.folder(), store_.path());
    all_packs_ = PacksIn(store_.path());
    ASSERT_FALSE(all_packs_.empty());
  }

  absl::StatusOr<std::unique_ptr<CheckpointStore>> Open(
      bool accept_data_loss, std::shared_ptr<FaultFileSystem> disk = nullptr) {
    if (disk == nullptr) disk = std::make_shared<FaultFileSystem>(store_.path());
    return OpenStore(store_.path(), disk, 0, accept_data_loss, &events_);
  }
  // The versions that the store lists, each read and compared.
  std::set<int64_t> Versions(CheckpointStore& store) {
    std::set<int64_t> versions;
    for (const auto& [version, content] : scenario_.known().versions) {
      const absl::Status status = VerifyVersion(store, version, content);
      if (status.ok()) versions.insert(version);
      EXPECT_TRUE(status.ok() || absl::IsNotFound(status)) << version << ": " << status;
    }
    return versions;
  }
  // Damages the WAL right behind the first save.
  void DamageWal() {
    const std::string wal = store_.Files("catalog", ".log").back();
    const std::vector<size_t> records = rocks::JournalRecords(FileBytes(wal));
    for (size_t i = records.size() / 2; i < records.size(); ++i) {
      FlipBitAt(wal, static_cast<int64_t>(records[i]) + 20, 0);
    }
  }

  const RocksFolder base_;
  const Scenario scenario_{base_.path()};
  const std::set<int64_t> all_ = {1, 2, 3};
  RocksFolder store_;
  std::set<uint64_t> all_packs_;
  Events events_;
};

TEST_F(SalvageTest, ALostCurrentCostsNothingAndNeedsNoFlag) {
  fs::remove(store_.path() + "/catalog/CURRENT");
  const auto store = Open(false);
  ASSERT_TRUE(store.ok()) << store.status();
  EXPECT_EQ(Versions(**store), all_);
  EXPECT_EQ(PacksIn(store_.path()), all_packs_);
  EXPECT_THAT(events_.text, HasSubstr("has been restored"));
}

TEST_F(SalvageTest, ACutManifestCostsNothingOnceTheLossIsAccepted) {
  const std::string manifest = store_.Files("catalog", "MANIFEST").back();
  CutFile(manifest, 10);
  const absl::Status refused = Open(false).status();
  ASSERT_TRUE(absl::IsDataLoss(refused)) << refused;
  EXPECT_THAT(std::string(refused.message()), HasSubstr(manifest));
  {
    const auto store = Open(true);
    ASSERT_TRUE(store.ok()) << store.status();
    EXPECT_EQ(Versions(**store), all_);
  }
  EXPECT_THAT(events_.text, HasSubstr("no durable write that HIGH_WATER names is lost"));
  EXPECT_THAT(events_.text, HasSubstr("rows may reappear, run VerifyCheckpoint"));
  EXPECT_EQ(PacksIn(store_.path()), all_packs_);
  EXPECT_FALSE(fs::exists(store_.path() + "/SALVAGE"));
  EXPECT_TRUE(fs::exists(LossIn(store_.path()) + "/README.txt"));
  const auto store = Open(false);
  ASSERT_TRUE(store.ok()) << store.status();
  EXPECT_EQ(Versions(**store), all_);
}

TEST_F(SalvageTest, PacksThatALossLeftWithoutANameAreKeptAndComeBackWithTheirCatalog) {
  RocksFolder whole;
  CopyFolder(store_.path(), whole.path());
  DamageWal();
  ASSERT_TRUE(absl::IsDataLoss(Open(false).status()));
  {
    const auto store = Open(true);
    ASSERT_TRUE(store.ok()) << store.status();
    EXPECT_LT(Versions(**store).size(), all_.size());
    EXPECT_TRUE((*store)->maintenance().CollectGarbage(false, nullptr).ok());
  }
  const std::string loss = LossIn(store_.path());
  EXPECT_FALSE(fs::is_empty(loss + "/packs"));
  EXPECT_EQ(PacksIn(store_.path()), all_packs_);
  EXPECT_THAT(events_.text, HasSubstr(loss));
  EXPECT_THAT(events_.text, HasSubstr("are lost"));
  // Further starts leave it alone.
  ASSERT_TRUE(Open(false).ok());
  ASSERT_TRUE(Open(true).ok());
  EXPECT_EQ(PacksIn(store_.path()), all_packs_);

  // As FORMAT.md says; somebody repaired the catalog.
  fs::remove_all(store_.path() + "/catalog");
  CopyFolder(whole.path() + "/catalog", store_.path() + "/catalog");
  fs::copy(loss + "/HIGH_WATER", store_.path() + "/HIGH_WATER",
           fs::copy_options::overwrite_existing);
  CopyFolder(loss + "/packs", store_.path() + "/packs.damaged");
  const auto store = Open(false);
  ASSERT_TRUE(store.ok()) << store.status();
  EXPECT_EQ(Versions(**store), all_);
}

TEST_F(SalvageTest, AnOlderCatalogWhoseLossIsAcceptedCostsNoPack) {
  RocksFolder newer;
  CopyFolder(store_.path(), newer.path());
  // A catalog from before everything, whole in itself.
  RocksFolder empty;
  ASSERT_TRUE(OpenStore(empty.path()).ok());
  fs::remove_all(store_.path() + "/catalog");
  CopyFolder(empty.path() + "/catalog", store_.path() + "/catalog");
  const absl::Status refused = Open(false).status();
  ASSERT_TRUE(absl::IsDataLoss(refused)) << refused;
  ASSERT_TRUE(Open(true).ok());
  EXPECT_EQ(PacksIn(store_.path()), all_packs_);
  EXPECT_EQ(PacksIn(LossIn(store_.path())), all_packs_);
}

// Wherever a start with the flag is cut short, no pack is lost, and the next ends it.
TEST_F(SalvageTest, ASalvageThatIsCutShortAnywhereLosesNoPack) {
  DamageWal();
  RocksFolder damaged;
  CopyFolder(store_.path(), damaged.path());
  std::set<int64_t> versions;
  {
    const auto store = Open(true);
    ASSERT_TRUE(store.ok()) << store.status();
    versions = Versions(**store);
  }
  int cut = 0;
  for (int64_t at = 1; at <= 500 && !HasFailure(); at += 3) {
    fs::remove_all(store_.path());
    CopyFolder(damaged.path(), store_.path());
    auto disk = std::make_shared<FaultFileSystem>(store_.path());
    disk->CutPowerAt(at);
    const bool is_over = Open(true, disk).ok() && !disk->power_is_off();
    EXPECT_EQ(PacksIn(store_.path()), all_packs_) << at;
    if (is_over) break;
    ++cut;
    auto store = Open(false);
    if (!store.ok()) {
      ASSERT_TRUE(absl::IsDataLoss(store.status())) << at << ": " << store.status();
      store = Open(true);
    }
    ASSERT_TRUE(store.ok()) << at << ": " << store.status();
    EXPECT_EQ(Versions(**store), versions) << at;
    store->reset();
    EXPECT_EQ(PacksIn(store_.path()), all_packs_) << at;
  }
  EXPECT_GT(cut, 20);
}

}  // namespace
}  // namespace modelstore::storage
