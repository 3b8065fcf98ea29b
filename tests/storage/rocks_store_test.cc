// The store over the embedded engine: damage of its files is noticed and not
// inherited, and a deletion in the background survives a kill at any step.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "proto/contract/mutex.h"
#include "storage/rocksdb/engine.h"
#include "tests/storage/rocks_folder.h"
#include "tests/storage/store_fixture.h"
#include "tests/support/fault_file_system.h"

namespace modelstore::storage {
namespace {

using testing::FaultFileSystem;
using testing::FileKind;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

class Events final : public Listener {
 public:
  void OnEvent(Severity, absl::string_view message) override {
    MutexLock lock(mutex_);
    told_ += absl::StrCat(message, "\n");
  }
  std::string told() {
    MutexLock lock(mutex_);
    return told_;
  }

 private:
  Mutex mutex_;
  std::string told_ GUARDED_BY(mutex_);
};

class RocksStoreTest : public ::testing::Test {
 protected:
  void SetUp() override {
    ASSERT_OK(Open());
    ASSERT_OK(SaveByUpload(*store_, content_).status());
  }
  absl::Status Open() {
    store_.reset();
    auto engine = OpenRocksEngine({.path = folder_.path(),
                                   .ballast_bytes = 0,
                                   .file_system = disk_,
                                   .listener = &events_});
    if (!engine.ok()) return engine.status();
    StoreOptions options = StoreFixture::SmallOptions();
    options.pack_bytes = 64 << 20;
    options.grace = grace_;
    auto store = CheckpointStore::Open(options, *std::move(engine));
    if (store.ok()) store_ = *std::move(store);
    return store.status();
  }
  // The file of the only pack.
  std::string PackFile() {
    const std::vector<std::string> files = folder_.Files("packs", ".sst");
    EXPECT_EQ(files.size(), 1u);
    return files.at(0);
  }
  // Flips a bit of the first `text` of each table that has it; returns how many have.
  int FlipBitAtFirst(const std::string& subfolder, const std::string& text) {
    int hits = 0;
    for (const std::string& file : folder_.Files(subfolder, ".sst")) {
      const size_t at = FileBytes(file).find(text);
      if (at == std::string::npos) continue;
      FlipBitAt(file, static_cast<int64_t>(at), 1);
      ++hits;
    }
    return hits;
  }
  int64_t Damaged() { return store_->maintenance().Stats()->damaged_chunks; }
  void ExpectTheNextSaveIsWhole(const TestContent& content, int64_t renewed_chunks) {
    const auto reopened = SaveByUpload(*store_, content);
    ASSERT_OK(reopened.status());
    EXPECT_EQ(reopened->damaged_base_bytes(), renewed_chunks * kTestChunk);
    EXPECT_EQ(*LoadAll(*store_, reopened->version()), Expected(content));
    ASSERT_OK(Open());
    EXPECT_EQ(*LoadAll(*store_, reopened->version()), Expected(content));
    const auto next = SaveByUpload(*store_, content);
    EXPECT_EQ(next->stored_bytes(), 0);
    EXPECT_EQ(*LoadAll(*store_, next->version()), Expected(content));
  }
  // Collects, which gives the first version what the save after it has stored anew.
  void ExpectTheFirstIsRepaired() {
    ASSERT_OK(store_->maintenance().CollectGarbage(false, nullptr).status());
    EXPECT_EQ(Damaged(), 0);
    EXPECT_EQ(*LoadAll(*store_, 1), Expected(content_));
    ASSERT_OK(Open());
    EXPECT_EQ(Damaged(), 0);
    EXPECT_EQ(*LoadAll(*store_, 1), Expected(content_));
  }

  const TestContent content_ = RandomContent(1, 2, 12 * kTestChunk);
  absl::Duration grace_;
  Events events_;
  RocksFolder folder_;
  std::shared_ptr<FaultFileSystem> disk_ =
      std::make_shared<FaultFileSystem>(folder_.path());
  std::unique_ptr<CheckpointStore> store_;
};

TEST_F(RocksStoreTest, AByteOfAPackDamagesNoSaveThatComesAfterItWasNoticed) {
  const std::string chunk = ChunksOf(content_)[15];
  const size_t at = FileBytes(PackFile()).find(chunk);
  ASSERT_NE(at, std::string::npos);
  FlipBitAt(PackFile(), static_cast<int64_t>(at) + 100, 5);
  EXPECT_TRUE(absl::IsDataLoss(LoadAll(*store_, 1).status()));
  EXPECT_EQ(Damaged(), 1);
  ASSERT_OK(Open());
  EXPECT_EQ(Damaged(), 1);
  ExpectTheNextSaveIsWhole(content_, 1);
  ExpectTheFirstIsRepaired();
}

TEST_F(RocksStoreTest, ATableThatCannotBeReadCountsForAllOfItsChunks) {
  const std::string file = PackFile();
  store_.reset();
  CutFile(file, static_cast<int64_t>(std::filesystem::file_size(file)) - 40);
  ASSERT_OK(Open());
  {
    const auto read = store_->reads().Open("m", 1);
    ASSERT_OK(read.status());
    EXPECT_TRUE(absl::IsDataLoss((*read)->ReadChunk(1, 0, 2).status()));
  }
  EXPECT_EQ(Damaged(), 24);
  ASSERT_OK(Open());
  EXPECT_EQ(Damaged(), 24);
  // A save that is small enough to need no pack.
  ExpectTheNextSaveIsWhole({content_[0]}, 12);
}

TEST_F(RocksStoreTest, APackThatIsMissingIsNoticedAtTheStart) {
  const std::string file = PackFile();
  store_.reset();
  std::filesystem::remove(file);
  ASSERT_OK(Open());
  EXPECT_EQ(Damaged(), 24);
  ExpectTheNextSaveIsWhole(content_, 24);
  ExpectTheFirstIsRepaired();
}

TEST_F(RocksStoreTest, AnErrorOfTheDiskIsNoDamage) {
  disk_->SetFault(
      {.ops = testing::kRead, .kind = FileKind::kPack, .at = 1, .for_good = true});
  const absl::Status failed = LoadAll(*store_, 1).status();
  EXPECT_TRUE(absl::IsUnavailable(failed)) << failed;
  disk_->ClearFault();
  EXPECT_EQ(Damaged(), 0);
  EXPECT_EQ(*LoadAll(*store_, 1), Expected(content_));
  EXPECT_EQ(SaveByUpload(*store_, content_)->stored_bytes(), 0);
}

TEST_F(RocksStoreTest, ADeletedModelContinuesGoingAfterAKillAtAnyStep) {
  constexpr int kVersions = 1200;
  for (int v = 0; v < kVersions; ++v) {
    const TestContent content = RandomContent(10 + v / 4, 1, 100);
    ASSERT_OK(SaveOneShot(*store_, content, {.model = "large"}).status());
  }
  ASSERT_OK(store_->models().Delete("large", true, {}).status());
  const TestContent fresh = RandomContent(5, 1, 1000);
  ASSERT_OK(SaveOneShot(*store_, fresh, {.model = "large"}).status());
  auto collect = [&] {
    return store_->maintenance().CollectGarbage(false, nullptr).status();
  };
  // Of a whole collection.
  const int64_t kills[] = {1, 2, 3, 4, 5, 7, 10, 20, 100, 400};
  for (const int64_t step : kills) {
    disk_->CutPowerAt(step);
    collect().IgnoreError();
    store_.reset();
    disk_ = std::make_shared<FaultFileSystem>(folder_.path());
    ASSERT_OK(Open());
    EXPECT_EQ(*LoadAll(*store_, 1, "large"), Expected(fresh)) << step;
    EXPECT_EQ(store_->models().Get("large")->checkpoint_count(), 1);
  }
  ASSERT_OK(collect());
  EXPECT_EQ(*LoadAll(*store_, 1, "large"), Expected(fresh));
  EXPECT_EQ(*LoadAll(*store_, 1), Expected(content_));
  // Nothing is left of it: another collection has nothing to do.
  ASSERT_OK(store_->models().Delete("large", true, {}).status());
  ASSERT_OK(store_->models().Delete("m", true, {}).status());
  ASSERT_OK(collect());
  store_.reset();
  auto engine =
      OpenRocksEngine({.path = folder_.path(), .ballast_bytes = 0, .file_system = disk_});
  ASSERT_OK(engine.status());
  std::vector<std::string> left;
  for (const Space space : {Space::kRecords, Space::kManifests, Space::kChunks}) {
    ASSERT_OK(
        engine->catalog->Scan(space, {}, [&](absl::string_view key, absl::string_view) {
          if (key != "s") left.emplace_back(key);
          return true;
        }));
  }
  EXPECT_THAT(left, IsEmpty());
}

TEST_F(RocksStoreTest, AVersionWhoseManifestIsDamagedCanBeDeletedAndCollected) {
  const std::string key = "a.tensor.of.the.doomed";
  ASSERT_OK(SaveOneShot(*store_, {Vector(key, "xyz")}, {.model = "doomed"}).status());
  ASSERT_OK(Open());
  store_.reset();
  ASSERT_EQ(FlipBitAtFirst("catalog", key), 1);
  // Both wait for the collection.
  grace_ = absl::Milliseconds(100);
  ASSERT_OK(Open());
  ASSERT_TRUE(absl::IsDataLoss(store_->reads().Open("doomed", 1).status()));
  ASSERT_OK(store_->checkpoints().Delete("m", 1, {}).status());
  ASSERT_OK(store_->checkpoints().Delete("doomed", 1, {}).status());
  absl::SleepFor(2 * grace_);
  ASSERT_OK(store_->maintenance().CollectGarbage(false, nullptr).status());
  EXPECT_THAT(folder_.Files("packs", ".sst"), IsEmpty());
  EXPECT_EQ(store_->maintenance().Stats()->waiting_bytes, 0);
  ASSERT_OK(Open());
  ASSERT_OK(store_->maintenance().CollectGarbage(false, nullptr).status());
  ASSERT_OK(SaveOneShot(*store_, {Vector(key, "xyz")}, {.model = "doomed"}).status());
}

TEST_F(RocksStoreTest, SavesContinueWhenACompactionOfTheCatalogMeetsDamage) {
  const std::string key = "a.tensor.of.the.doomed";
  ASSERT_OK(Open());  // in a table of its own
  ASSERT_OK(SaveOneShot(*store_, {Vector(key, "xyz")}, {.model = "doomed"}).status());
  ASSERT_OK(Open());
  store_.reset();
  ASSERT_EQ(FlipBitAtFirst("catalog", key), 1);
  ASSERT_OK(Open());
  uint64_t seed = 100;
  for (int i = 0; i < 6; ++i) {
    // Ranges of keys that overlap, so that tables are not just moved.
    for (int save = 0; save < 8; ++save) {
      ASSERT_OK(SaveOneShot(*store_, RandomContent(seed++, 1, 100)).status()) << i;
    }
    ASSERT_OK(Open()) << i;
  }
  for (int i = 0; i < 10; ++i) {
    ASSERT_OK(SaveOneShot(*store_, RandomContent(seed++, 1, 100)).status()) << i;
    absl::SleepFor(absl::Milliseconds(100));
  }
  EXPECT_EQ(store_->maintenance().Stats()->reopen_count, 0);
  EXPECT_THAT(events_.told(), HasSubstr("a table of the catalog is damaged"));
  EXPECT_TRUE(absl::IsDataLoss(store_->reads().Open("doomed", 1).status()));
  // Versions whose manifests are in other tables are not concerned.
  EXPECT_EQ(*LoadAll(*store_, 1), Expected(content_));
  ASSERT_OK(store_->checkpoints().Delete("doomed", 1, {}).status());
  ASSERT_OK(store_->maintenance().CollectGarbage(false, nullptr).status());
}

}  // namespace
}  // namespace modelstore::storage
