// What the embedded engine does beyond the seams: what a commit costs, the lock,
// the ballast, HIGH_WATER, the guard of the packs, the pool that reads land in.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <random>
#include <string>
#include <tuple>
#include <utility>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "rocksdb/cache.h"
#include "rocksdb/db.h"
#include "storage/rocksdb/chunk_store.h"
#include "storage/rocksdb/engine.h"
#include "storage/rocksdb/high_water.h"
#include "storage/rocksdb/options.h"
#include "tests/storage/rocks_folder.h"
#include "tests/storage/test_bytes.h"
#include "tests/support/fault_file_system.h"

namespace modelstore::storage {
namespace {

namespace fs = std::filesystem;
using rocks::Folder;
using rocks::HighWater;
using rocks::RocksChunkStore;
using testing::FaultFileSystem;
using testing::FileKind;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::SizeIs;

absl::Status Put(Engine& engine, const std::string& key, const std::string& value) {
  CatalogBatch batch;
  batch.Put(Space::kRecords, key, value);
  return engine.catalog->Write(batch, Durability::kDurable);
}

absl::Status AddPack(ChunkStore& chunks, uint64_t pack,
                     const std::vector<std::string>& contents) {
  auto writer = chunks.NewPack(pack);
  if (!writer.ok()) return writer.status();
  for (const std::string& chunk : contents) {
    const auto id = (*writer)->Append(chunk);
    if (!id.ok()) return id.status();
  }
  const absl::Status status = (*writer)->Finish();
  return status.ok() ? chunks.Publish(*std::move(writer)) : status;
}

class RocksEngineTest : public ::testing::Test {
 protected:
  absl::StatusOr<Engine> Open(bool accept_data_loss = false, int64_t ballast_bytes = 0) {
    disk_ = std::make_shared<FaultFileSystem>(folder_.path());
    return OpenRocksEngine({.path = folder_.path(),
                            .ballast_bytes = ballast_bytes,
                            .accept_data_loss = accept_data_loss,
                            .file_system = disk_});
  }

  RocksFolder folder_;
  std::shared_ptr<FaultFileSystem> disk_;
};

TEST_F(RocksEngineTest, ASmallDurableWriteCostsOneSyncAndNoFile) {
  auto engine = Open();
  ASSERT_TRUE(engine.ok()) << engine.status();
  disk_->ResetCounts();
  int64_t others = 0;
  disk_->SetHook([&](const FaultFileSystem::Operation& operation) {
    others += operation.op != testing::kWrite && operation.op != testing::kSync;
  });
  for (int i = 0; i < 50; ++i) {
    ASSERT_TRUE(Put(*engine, absl::StrCat("k", i), std::string(2000, 'x')).ok());
  }
  disk_->SetHook(nullptr);
  EXPECT_EQ(disk_->counts(FileKind::kWal).syncs, 50);
  EXPECT_EQ(disk_->total().syncs, 50);
  EXPECT_EQ(others, 0);
}

TEST_F(RocksEngineTest, APackIsWrittenOnce) {
  auto engine = Open();
  ASSERT_TRUE(engine.ok()) << engine.status();
  ASSERT_TRUE(engine->chunks->Reopen({}).ok());
  disk_->ResetCounts();
  const std::string chunk = TestBytes(4 << 20, 1);
  ASSERT_TRUE(AddPack(*engine->chunks, 1, {chunk, chunk}).ok());
  EXPECT_LT(disk_->total().bytes, 2 * (4 << 20) + 64'000);
}

TEST_F(RocksEngineTest, AStoreIsOpenedOnce) {
  auto engine = Open();
  ASSERT_TRUE(engine.ok()) << engine.status();
  const auto second = OpenRocksEngine({.path = folder_.path()});
  EXPECT_TRUE(absl::IsFailedPrecondition(second.status())) << second.status();
  *engine = Engine();
  EXPECT_TRUE(Open().ok());
}

TEST_F(RocksEngineTest, TheBallastIsReleasedAndTakenAgain) {
  constexpr int64_t kBallast = 4 << 20;
  auto engine = Open(false, kBallast);
  ASSERT_TRUE(engine.ok()) << engine.status();
  EXPECT_GE(disk_->used_bytes(), kBallast);
  disk_->SetQuota(disk_->used_bytes());
  EXPECT_EQ(*engine->free_bytes(), 0);
  EXPECT_TRUE(absl::IsResourceExhausted(Put(*engine, "a", "1")));
  engine->release_ballast();
  EXPECT_GE(*engine->free_bytes(), kBallast);
  EXPECT_TRUE(Put(*engine, "a", "1").ok());
  // Not before there is room for more than it.
  engine->restore_ballast();
  EXPECT_THAT(folder_.Files("", "BALLAST"), IsEmpty());
  disk_->SetQuota(-1);
  engine->restore_ballast();
  EXPECT_THAT(folder_.Files("", "BALLAST"), SizeIs(1));
}

// As a copy of the folder has it that leaves out what was never written.
TEST_F(RocksEngineTest, ABallastWithoutItsBytesIsRecreatedAtOpen) {
  constexpr int64_t kBallast = 4 << 20;
  ASSERT_TRUE(Open(false, kBallast).ok());
  const std::string path = folder_.path() + "/BALLAST";
  EXPECT_EQ(fs::file_size(path), static_cast<uint64_t>(kBallast));
  CutFile(path, 0);
  ASSERT_TRUE(Open(false, kBallast).ok());
  EXPECT_EQ(fs::file_size(path), static_cast<uint64_t>(kBallast));
}

TEST_F(RocksEngineTest, ACatalogBelowItsHighWaterIsRefusedUntilTheLossIsAccepted) {
  auto engine = Open();
  ASSERT_TRUE(engine.ok()) << engine.status();
  ASSERT_TRUE(Put(*engine, "a", "1").ok());
  *engine = Engine();
  RocksFolder older;
  CopyFolder(folder_.path(), older.path());
  engine = Open();
  ASSERT_TRUE(engine.ok()) << engine.status();
  ASSERT_TRUE(Put(*engine, "a", "2").ok());
  *engine = Engine();
  // An older catalog, whole in itself, under the mark of the newer.
  fs::remove_all(folder_.path() + "/catalog");
  CopyFolder(older.path() + "/catalog", folder_.path() + "/catalog");

  engine = Open();
  ASSERT_TRUE(absl::IsDataLoss(engine.status())) << engine.status();
  EXPECT_THAT(std::string(engine.status().message()), HasSubstr("HIGH_WATER"));
  EXPECT_THAT(std::string(engine.status().message()), HasSubstr("--accept-data-loss"));
  engine = Open(/*accept_data_loss=*/true);
  ASSERT_TRUE(engine.ok()) << engine.status();
  EXPECT_EQ(*engine->catalog->Get(Space::kRecords, "a"), "1");
  *engine = Engine();
  EXPECT_TRUE(Open().ok());
}

TEST(HighWaterTest, OneDamagedSlotLeavesTheOther) {
  RocksFolder folder;
  fs::create_directories(folder.path());
  const std::string path = folder.path() + "/HIGH_WATER";
  rocksdb::FileSystem* file_system = rocksdb::FileSystem::Default().get();
  {
    auto mark = HighWater::Open(file_system, path);
    ASSERT_TRUE(mark.ok()) << mark.status();
    EXPECT_TRUE((*mark)->created());
    for (uint64_t n = 1; n <= 9; ++n) {
      ASSERT_TRUE(
          (*mark)->Write(n, {{"000007.log", static_cast<int64_t>(n), n * n}}).ok());
    }
  }
  for (const int64_t slot : {0, 1}) {
    RocksFolder copy;
    CopyFolder(folder.path(), copy.path());
    FlipBitAt(copy.path() + "/HIGH_WATER", 4096 * slot + 17, 0);
    auto mark = HighWater::Open(file_system, copy.path() + "/HIGH_WATER");
    ASSERT_TRUE(mark.ok()) << mark.status();
    EXPECT_FALSE((*mark)->damaged());
    EXPECT_GE((*mark)->number(), 8u);
    ASSERT_THAT((*mark)->journals(), SizeIs(1));
    EXPECT_EQ((*mark)->journals()[0].name, "000007.log");
    EXPECT_EQ((*mark)->journals()[0].hash, (*mark)->number() * (*mark)->number());
    FlipBitAt(copy.path() + "/HIGH_WATER", 4096 * (1 - slot) + 17, 0);
    mark = HighWater::Open(file_system, copy.path() + "/HIGH_WATER");
    ASSERT_TRUE(mark.ok()) << mark.status();
    EXPECT_TRUE((*mark)->damaged());
  }
}

TEST_F(RocksEngineTest, PacksOutliveTheHalfOfTheirManifest) {
  auto engine = Open();
  ASSERT_TRUE(engine.ok()) << engine.status();
  ASSERT_TRUE(engine->chunks->Reopen({}).ok());
  std::vector<uint64_t> expected;
  for (uint64_t pack = 1; pack <= 10; ++pack) {
    ASSERT_TRUE(AddPack(*engine->chunks, pack, {TestBytes(20'000, pack)}).ok());
    expected.push_back(pack);
  }
  *engine = Engine();
  const std::vector<std::string> manifests = folder_.Files("packs", "MANIFEST");
  ASSERT_THAT(manifests, SizeIs(1));
  CutFile(manifests[0], static_cast<int64_t>(fs::file_size(manifests[0]) / 2));

  engine = Open();
  ASSERT_TRUE(engine.ok()) << engine.status();
  const absl::Status status = engine->chunks->Reopen(expected);
  ASSERT_TRUE(status.ok()) << status;
  EXPECT_THAT(*engine->chunks->ListPacks(), SizeIs(10));
  for (const uint64_t pack : expected) {
    const auto bytes = engine->chunks->Read({pack, 0});
    ASSERT_TRUE(bytes.ok()) << bytes.status();
    EXPECT_TRUE(bytes->view() == TestBytes(20'000, pack));
  }
}

TEST_F(RocksEngineTest, AMetadataThatIsRecreatedTakesInOnlyWhatTheCatalogNames) {
  auto engine = Open();
  ASSERT_TRUE(engine.ok()) << engine.status();
  ASSERT_TRUE(engine->chunks->Reopen({}).ok());
  for (uint64_t pack = 1; pack <= 3; ++pack) {
    ASSERT_TRUE(AddPack(*engine->chunks, pack, {TestBytes(20'000, pack)}).ok());
  }
  *engine = Engine();
  fs::remove(folder_.path() + "/packs/CURRENT");
  engine = Open();
  ASSERT_TRUE(engine.ok()) << engine.status();
  const uint64_t expected[] = {1, 3};
  ASSERT_TRUE(engine->chunks->Reopen(expected).ok());
  EXPECT_THAT(*engine->chunks->ListPacks(), SizeIs(2));
  EXPECT_THAT(folder_.Files("packs", ".sst"), SizeIs(2));
  EXPECT_FALSE(fs::exists(folder_.path() + "/packs.damaged"));
}

TEST_F(RocksEngineTest, APackThatCannotBeTakenInIsKeptAside) {
  auto engine = Open();
  ASSERT_TRUE(engine.ok()) << engine.status();
  ASSERT_TRUE(engine->chunks->Reopen({}).ok());
  for (uint64_t pack = 1; pack <= 2; ++pack) {
    ASSERT_TRUE(AddPack(*engine->chunks, pack, {TestBytes(20'000, pack)}).ok());
  }
  *engine = Engine();
  fs::remove(folder_.path() + "/packs/CURRENT");
  for (const std::string& path : folder_.Files("packs", ".sst")) {
    if (PackIn(path) == 1u) CutFile(path, 10'000);
  }
  engine = Open();
  ASSERT_TRUE(engine.ok()) << engine.status();
  const uint64_t expected[] = {1, 2};
  const absl::Status status = engine->chunks->Reopen(expected);
  ASSERT_TRUE(status.ok()) << status;
  EXPECT_TRUE(absl::IsNotFound(engine->chunks->Read({1, 0}).status()));
  EXPECT_TRUE(engine->chunks->Read({2, 0}).ok());
  EXPECT_THAT(folder_.Files("quarantine", ".sst"), SizeIs(1));
  const uint64_t drop[] = {1};
  ASSERT_TRUE(engine->chunks->DropPacks(drop).ok());
  EXPECT_THAT(folder_.Files("quarantine", ".sst"), IsEmpty());
}

TEST_F(RocksEngineTest, APackWhoseFirstOrLastChunkIsDamagedIsKeptAside) {
  auto engine = Open();
  ASSERT_TRUE(engine.ok()) << engine.status();
  ASSERT_TRUE(engine->chunks->Reopen({}).ok());
  std::vector<std::string> chunks;
  for (uint64_t seed = 1; seed <= 3; ++seed) chunks.push_back(TestBytes(60'000, seed));
  for (uint64_t pack = 1; pack <= 3; ++pack) {
    ASSERT_TRUE(AddPack(*engine->chunks, pack, chunks).ok());
  }
  *engine = Engine();
  fs::remove(folder_.path() + "/packs/CURRENT");
  for (const std::string& path : folder_.Files("packs", ".sst")) {
    if (PackIn(path) == 1u) FlipBitAt(path, 30'000, 0);
    if (PackIn(path) == 2u) FlipBitAt(path, 150'000, 0);
  }
  engine = Open();
  ASSERT_TRUE(engine.ok()) << engine.status();
  const uint64_t expected[] = {1, 2, 3};
  const absl::Status status = engine->chunks->Reopen(expected);
  ASSERT_TRUE(status.ok()) << status;
  EXPECT_THAT(folder_.Files("quarantine", ".sst"), SizeIs(2));
  EXPECT_THAT(*engine->chunks->ListPacks(), SizeIs(1));
  EXPECT_TRUE(engine->chunks->Read({3, 2}).ok());
}

TEST_F(RocksEngineTest, APackThatIsDamagedBeforeItIsPublishedIsRefused) {
  auto engine = Open();
  ASSERT_TRUE(engine.ok()) << engine.status();
  ASSERT_TRUE(engine->chunks->Reopen({}).ok());
  for (const int64_t place : {10'000, 30'000}) {
    auto writer = engine->chunks->NewPack(7);
    ASSERT_TRUE(writer.ok());
    for (uint64_t seed = 1; seed <= 2; ++seed) {
      ASSERT_TRUE((*writer)->Append(TestBytes(20'000, seed)).ok());
    }
    ASSERT_TRUE((*writer)->Finish().ok());
    FlipBitAt(folder_.Files("incoming", ".sst").at(0), place, 0);
    const absl::Status status = engine->chunks->Publish(*std::move(writer));
    EXPECT_TRUE(absl::IsDataLoss(status)) << place << ": " << status;
    EXPECT_THAT(folder_.Files("packs", ".sst"), IsEmpty());
  }
  EXPECT_TRUE(AddPack(*engine->chunks, 7, {TestBytes(20'000, 1)}).ok());
}

// How all packs but the last are hurt, and whether the metadata of packs/ was made when
// the engine did not ingest behind.
class DamagedNeighbours : public RocksEngineTest,
                          public ::testing::WithParamInterface<std::tuple<bool, bool>> {
 protected:
  // Makes the metadata of packs/ of the same files, as it was made before.
  void MakeOldMetadata() {
    auto folder = Folder::Open({.path = folder_.path(), .ballast_bytes = 0});
    ASSERT_TRUE(folder.ok()) << folder.status();
    const std::string aside = folder_.path() + "/aside";
    fs::rename((*folder)->packs(), aside);
    rocksdb::Options options = rocks::PackOptions(rocksdb::Env::Default(), *folder,
                                                  rocksdb::NewLRUCache(1 << 20));
    options.allow_ingest_behind = false;
    rocksdb::DB* db = nullptr;
    ASSERT_TRUE(rocksdb::DB::Open(options, (*folder)->packs(), &db).ok());
    rocksdb::IngestExternalFileOptions ingest = rocks::PackIngestOptions();
    ingest.ingest_behind = false;
    for (const std::string& file : folder_.Files("aside", ".sst")) {
      const rocksdb::Status s = db->IngestExternalFile({file}, ingest);
      EXPECT_TRUE(s.ok()) << s.ToString();
    }
    delete db;
    fs::remove_all(aside);
  }
};

TEST_P(DamagedNeighbours, RefuseNoPackThatIsPublishedOrTakenIn) {
  const auto [cuts, is_old] = GetParam();
  std::vector<uint64_t> expected;
  auto engine = Open();
  ASSERT_TRUE(engine.ok()) << engine.status();
  ASSERT_TRUE(engine->chunks->Reopen({}).ok());
  for (uint64_t pack = 100; pack <= 2000; pack += 100) {
    ASSERT_TRUE(AddPack(*engine->chunks, pack, {TestBytes(20'000, pack)}).ok());
    expected.push_back(pack);
  }
  *engine = Engine();
  if (is_old) {
    ASSERT_NO_FATAL_FAILURE(MakeOldMetadata());
  }
  for (const std::string& path : folder_.Files("packs", ".sst")) {
    const uint64_t pack = PackIn(path).value();
    if (pack == 500) {
      // As a recovery that was cut short leaves it.
      fs::create_directory(folder_.path() + "/packs.damaged");
      fs::rename(path, folder_.path() + "/packs.damaged/a.sst");
    } else if (pack != 2000 && cuts) {
      CutFile(path, static_cast<int64_t>(fs::file_size(path)) - 20);
    } else if (pack != 2000) {
      FlipBitAt(path, 10'000, 0);
    }
  }

  engine = Open();
  ASSERT_TRUE(engine.ok()) << engine.status();
  ASSERT_EQ(engine->chunks->Reopen(expected), absl::OkStatus());
  EXPECT_THAT(folder_.Files("quarantine", ".sst"), IsEmpty());
  EXPECT_TRUE(engine->chunks->Read({500, 0}).ok());
  std::vector<uint64_t> added;
  for (uint64_t pack = 110; pack < 2110; pack += 40) {
    ASSERT_EQ(AddPack(*engine->chunks, pack, {TestBytes(20'000, pack)}),
              absl::OkStatus());
    added.push_back(pack);
    expected.push_back(pack);
  }
  EXPECT_EQ(AddPack(*engine->chunks, 110, {"again"}).code(),
            absl::StatusCode::kAlreadyExists);
  *engine = Engine();
  engine = Open();
  ASSERT_TRUE(engine.ok()) << engine.status();
  ASSERT_EQ(engine->chunks->Reopen(expected), absl::OkStatus());
  EXPECT_THAT(*engine->chunks->ListPacks(), SizeIs(20 + 50));
  for (const uint64_t pack : added) {
    const auto bytes = engine->chunks->Read({pack, 0});
    ASSERT_TRUE(bytes.ok()) << bytes.status();
    EXPECT_TRUE(bytes->view() == TestBytes(20'000, pack));
  }
  // Hurt ones go as well.
  ASSERT_EQ(engine->chunks->DropPacks(expected), absl::OkStatus());
  EXPECT_THAT(folder_.Files("packs", ".sst"), IsEmpty());
}

INSTANTIATE_TEST_SUITE_P(Packs, DamagedNeighbours,
                         ::testing::Combine(::testing::Bool(), ::testing::Bool()),
                         [](const auto& info) {
                           return absl::StrCat(
                               std::get<0>(info.param) ? "cut" : "flipped",
                               std::get<1>(info.param) ? "_of_an_old_store" : "");
                         });

TEST_F(RocksEngineTest, AFileInQuarantineIsNotReplacedByAnotherOfItsName) {
  auto engine = Open();
  ASSERT_TRUE(engine.ok()) << engine.status();
  fs::create_directory(folder_.path() + "/quarantine");
  for (const char* folder : {"/quarantine", "/packs"}) {
    WriteBytes(folder_.path() + folder + "/000012.sst", folder);
  }
  const uint64_t expected[] = {1};
  ASSERT_EQ(engine->chunks->Reopen(expected), absl::OkStatus());
  ASSERT_THAT(folder_.Files("quarantine", ".sst"), SizeIs(2));
  EXPECT_EQ(FileBytes(folder_.path() + "/quarantine/000012.sst"), "/quarantine");
  EXPECT_EQ(FileBytes(folder_.path() + "/quarantine/000012-2.sst"), "/packs");
}

TEST_F(RocksEngineTest, APackIsOpenedOnceWhenItIsFirstRead) {
  auto engine = Open();
  ASSERT_TRUE(engine.ok()) << engine.status();
  ASSERT_TRUE(engine->chunks->Reopen({}).ok());
  std::vector<uint64_t> expected;
  for (uint64_t pack = 1; pack <= 40; ++pack) {
    ASSERT_TRUE(AddPack(*engine->chunks, pack, {TestBytes(20'000, pack)}).ok());
    expected.push_back(pack);
  }
  *engine = Engine();
  engine = Open();
  ASSERT_TRUE(engine.ok()) << engine.status();
  ASSERT_TRUE(engine->chunks->Reopen(expected).ok());
  int reads = 0;
  disk_->SetHook([&](const FaultFileSystem::Operation& operation) {
    reads += operation.op == testing::kRead && operation.kind == FileKind::kPack;
  });
  int most = 0;
  for (const uint64_t pack : expected) {
    reads = 0;
    ASSERT_TRUE(engine->chunks->Read({pack, 0}).ok());
    most = std::max(most, reads);
  }
  disk_->SetHook(nullptr);
  // The open, the end by us and by RocksDB, the index, the block.
  EXPECT_EQ(most, 1 + 3 + 3 + 1 + 1);
}

TEST_F(RocksEngineTest, AnAbandonedPackLeavesNoFile) {
  auto engine = Open();
  ASSERT_TRUE(engine.ok()) << engine.status();
  ASSERT_TRUE(engine->chunks->Reopen({}).ok());
  auto writer = engine->chunks->NewPack(1);
  ASSERT_TRUE(writer.ok());
  ASSERT_TRUE((*writer)->Append(TestBytes(100'000, 1)).ok());
  EXPECT_THAT(folder_.Files("incoming", ""), SizeIs(1));
  // Reopening leaves alone what is still being written.
  ASSERT_TRUE(engine->chunks->Reopen({}).ok());
  EXPECT_THAT(folder_.Files("incoming", ""), SizeIs(1));
  writer->reset();
  EXPECT_THAT(folder_.Files("incoming", ""), IsEmpty());
  std::ofstream(folder_.path() + "/incoming/0000000000000009.sst") << "left by a crash";
  ASSERT_TRUE(engine->chunks->Reopen({}).ok());
  EXPECT_THAT(folder_.Files("incoming", ""), IsEmpty());
}

TEST_F(RocksEngineTest, ADroppedPackFreesItsFile) {
  auto engine = Open();
  ASSERT_TRUE(engine.ok()) << engine.status();
  ASSERT_TRUE(engine->chunks->Reopen({}).ok());
  for (uint64_t pack = 1; pack <= 3; ++pack) {
    ASSERT_TRUE(AddPack(*engine->chunks, pack, {TestBytes(50'000, pack)}).ok());
  }
  EXPECT_THAT(folder_.Files("packs", ".sst"), SizeIs(3));
  const uint64_t drop[] = {1, 3};
  ASSERT_TRUE(engine->chunks->DropPacks(drop).ok());
  EXPECT_THAT(folder_.Files("packs", ".sst"), SizeIs(1));
}

TEST(RocksChunkStoreTest, ReadsLandInMemoryThatIsUsedAgainAndAreNotCopied) {
  RocksFolder path;
  auto folder = Folder::Open({.path = path.path(), .ballast_bytes = 0});
  ASSERT_TRUE(folder.ok()) << folder.status();
  RocksChunkStore store(*folder);
  ASSERT_TRUE(store.Reopen({}).ok());
  const std::string chunk = TestBytes(4 << 20, 1);
  ASSERT_TRUE(AddPack(store, 1, {chunk, "tiny", chunk}).ok());
  // Taking in a pack reads its ends.
  const int64_t before = store.pool_counts().reused;
  for (int i = 0; i < 20; ++i) {
    const auto bytes = store.Read({1, i % 2 ? 0u : 2u});
    ASSERT_TRUE(bytes.ok());
    EXPECT_TRUE(bytes->view() == chunk);
  }
  const auto counts = store.pool_counts();
  EXPECT_EQ(counts.fresh, 1);
  EXPECT_EQ(counts.reused - before, 20);
  EXPECT_EQ(counts.used_bytes, 0u);
  EXPECT_LE(counts.free_bytes, size_t{5} << 20);
  // A small chunk does not cost its large neighbour.
  EXPECT_EQ(store.Read({1, 1})->view(), "tiny");
  EXPECT_EQ(store.pool_counts().reused - before, 20);
  EXPECT_EQ(store.copied_reads(), 0);
}

TEST_F(RocksEngineTest, ADamagedFileIsKeptWhileAPackIsMissingWhateverElseIsThere) {
  auto engine = Open();
  ASSERT_TRUE(engine.ok()) << engine.status();
  ASSERT_TRUE(engine->chunks->Reopen({}).ok());
  ASSERT_TRUE(AddPack(*engine->chunks, 1, {TestBytes(20'000, 1)}).ok());
  *engine = Engine();
  engine = Open();
  ASSERT_TRUE(engine.ok()) << engine.status();
  const std::string file = folder_.path() + "/packs/000777.sst";
  WriteBytes(file, "no pack can be told from this");
  // Pack 1 is there and nothing names it; pack 2 is missing.
  const uint64_t missing[] = {2};
  ASSERT_EQ(engine->chunks->Reopen(missing), absl::OkStatus());
  EXPECT_THAT(folder_.Files("quarantine", ".sst"), SizeIs(1));
  // Where none is missing, such a file is garbage.
  WriteBytes(file, "no pack can be told from this");
  const uint64_t present[] = {1};
  ASSERT_EQ(engine->chunks->Reopen(present), absl::OkStatus());
  EXPECT_THAT(folder_.Files("quarantine", ".sst"), SizeIs(1));
}

}  // namespace
}  // namespace modelstore::storage
