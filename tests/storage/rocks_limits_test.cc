// Where a system gives the store less than it asks for: few descriptors, a file system
// without hard links, one that cannot sync folders.
#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/resource.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <filesystem>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "storage/rocksdb/engine.h"
#include "tests/storage/rocks_folder.h"
#include "tests/storage/test_bytes.h"
#include "tests/support/fault_file_system.h"

namespace modelstore::storage {
namespace {

namespace fs = std::filesystem;
using testing::FaultFileSystem;
using testing::FileKind;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::SizeIs;

// Keeps what the engine reports.
class Events final : public Listener {
 public:
  void OnEvent(Severity, absl::string_view message) override {
    messages.emplace_back(message);
  }
  int Count(const std::string& part) const {
    int count = 0;
    for (const std::string& message : messages) {
      count += message.find(part) != std::string::npos;
    }
    return count;
  }
  std::vector<std::string> messages;
};

std::string PackChunk(uint64_t pack) { return TestBytes(20'000, pack); }

absl::Status AddPack(ChunkStore& chunks, uint64_t pack, int chunks_in_it = 1) {
  auto writer = chunks.NewPack(pack);
  if (!writer.ok()) return writer.status();
  for (int i = 0; i < chunks_in_it; ++i) {
    const auto id = (*writer)->Append(PackChunk(pack));
    if (!id.ok()) return id.status();
  }
  const absl::Status status = (*writer)->Finish();
  return status.ok() ? chunks.Publish(*std::move(writer)) : status;
}

absl::Status ReadPack(ChunkStore& chunks, uint64_t pack) {
  const auto bytes = chunks.Read({pack, 0});
  if (!bytes.ok()) return bytes.status();
  return bytes->view() == PackChunk(pack)
             ? absl::OkStatus()
             : absl::InternalError(absl::StrCat("wrong bytes of pack ", pack));
}

std::vector<uint64_t> Numbers(uint64_t last) {
  std::vector<uint64_t> numbers;
  for (uint64_t n = 1; n <= last; ++n) numbers.push_back(n);
  return numbers;
}

absl::Status Put(Engine& engine, const std::string& key, const std::string& value) {
  CatalogBatch batch;
  batch.Put(Space::kRecords, key, value);
  return engine.catalog->Write(batch, Durability::kDurable);
}

class RocksLimitsTest : public ::testing::Test {
 protected:
  void Open() {
    engine_ = Engine();
    disk_ = std::make_shared<FaultFileSystem>(folder_.path());
    if (fault_.has_value()) disk_->SetFault(*fault_);
    auto engine = OpenRocksEngine({.path = folder_.path(),
                                   .ballast_bytes = 0,
                                   .file_system = disk_,
                                   .listener = &events_});
    ASSERT_TRUE(engine.ok()) << engine.status();
    engine_ = *std::move(engine);
  }
  void CheckPacks(uint64_t last) {
    for (uint64_t pack = 1; pack <= last; ++pack) {
      EXPECT_EQ(ReadPack(*engine_.chunks, pack), absl::OkStatus()) << pack;
    }
  }

  RocksFolder folder_;
  Events events_;
  std::optional<FaultFileSystem::Fault> fault_;
  std::shared_ptr<FaultFileSystem> disk_;
  Engine engine_;
};

class ForbiddenLinks : public RocksLimitsTest,
                       public ::testing::WithParamInterface<int> {};

TEST_P(ForbiddenLinks, PacksAreCopiedInsteadWhenPublishedAndWhenRecovered) {
  fault_ = {.ops = testing::kLink, .for_good = true, .error = GetParam()};
  Open();
  ASSERT_EQ(engine_.chunks->Reopen({}), absl::OkStatus());
  for (uint64_t pack = 1; pack <= 4; ++pack) {
    ASSERT_EQ(AddPack(*engine_.chunks, pack), absl::OkStatus());
  }
  EXPECT_THAT(folder_.Files("incoming", ""), IsEmpty());
  EXPECT_GE(disk_->failures(), 4);
  CheckPacks(4);
  EXPECT_EQ(events_.Count("hard links"), 1);

  // The metadata of packs/ is lost: files are moved aside and taken in again.
  engine_ = Engine();
  fs::remove(folder_.path() + "/packs/CURRENT");
  Open();
  ASSERT_EQ(engine_.chunks->Reopen(Numbers(4)), absl::OkStatus());
  CheckPacks(4);
  EXPECT_THAT(folder_.Files("packs", ".sst"), SizeIs(4));
  EXPECT_FALSE(fs::exists(folder_.path() + "/packs.damaged"));
}

INSTANTIATE_TEST_SUITE_P(Errors, ForbiddenLinks,
                         ::testing::Values(EPERM, EMLINK, EOPNOTSUPP, ENOSYS),
                         [](const auto& info) {
                           return absl::StrCat("errno_", info.param);
                         });

// What a copy that was cut short leaves is no pack.
TEST_P(ForbiddenLinks, ACopyIsWholeOrNotThere) {
  fault_ = {.ops = testing::kLink, .for_good = true, .error = GetParam()};
  Open();
  ASSERT_EQ(engine_.chunks->Reopen({}), absl::OkStatus());
  // Enough for the pack of 80,000 bytes and for the MANIFEST, not for the copy.
  disk_->SetQuota(disk_->used_bytes() + 130'000);
  const absl::Status full = AddPack(*engine_.chunks, 1, /*chunks_in_it=*/4);
  EXPECT_TRUE(absl::IsResourceExhausted(full)) << full;
  EXPECT_GT(disk_->failures(), 0);  // it came to the link
  EXPECT_THAT(folder_.Files("packs", ".sst"), IsEmpty());
  EXPECT_THAT(folder_.Files("incoming", ""), IsEmpty());

  bool is_over = false;
  for (int64_t at = 1; !is_over; ++at) {
    Open();
    ASSERT_EQ(engine_.chunks->Reopen({}), absl::OkStatus());
    disk_->CutPowerAt(at);
    is_over = AddPack(*engine_.chunks, 1).ok() && !disk_->power_is_off();
    Open();
    // The journal of its upload may name it.
    const uint64_t expected[] = {1};
    ASSERT_EQ(engine_.chunks->Reopen(expected), absl::OkStatus()) << at;
    EXPECT_THAT(folder_.Files("quarantine", ""), IsEmpty()) << at;
    EXPECT_THAT(folder_.Files("incoming", ""), IsEmpty()) << at;
    EXPECT_LE(folder_.Files("packs", ".sst").size(), 1u) << at;
    if (is_over) break;
    ASSERT_LT(at, 1000);
    ASSERT_EQ(engine_.chunks->DropPacks({1}), absl::OkStatus()) << at;
  }
  CheckPacks(1);
}

// Any other failure is one.
TEST_F(RocksLimitsTest, ALinkThatFailsForAnotherReasonIsAnError) {
  Open();
  ASSERT_EQ(engine_.chunks->Reopen({}), absl::OkStatus());
  disk_->SetFault({.ops = testing::kLink, .error = EIO});
  EXPECT_TRUE(absl::IsUnavailable(AddPack(*engine_.chunks, 1)));
}

TEST_F(RocksLimitsTest, AFolderThatCannotBeSyncedIsNoFailure) {
  fault_ = {.ops = testing::kSync,
            .kind = FileKind::kDirectory,
            .for_good = true,
            .error = EINVAL};
  Open();
  ASSERT_EQ(engine_.chunks->Reopen({}), absl::OkStatus());
  ASSERT_EQ(Put(engine_, "a", "1"), absl::OkStatus());
  ASSERT_EQ(AddPack(*engine_.chunks, 1), absl::OkStatus());
  ASSERT_EQ(AddPack(*engine_.chunks, 2), absl::OkStatus());
  EXPECT_GT(disk_->failures(), 0);
  EXPECT_EQ(events_.Count("cannot be synced"), 1);
  engine_ = Engine();
  fs::remove(folder_.path() + "/packs/CURRENT");
  Open();
  ASSERT_EQ(engine_.chunks->Reopen(Numbers(2)), absl::OkStatus());
  CheckPacks(2);
  EXPECT_EQ(*engine_.catalog->Get(Space::kRecords, "a"), "1");
}

TEST_F(RocksLimitsTest, AFailedSyncOfAFolderStaysOne) {
  Open();
  ASSERT_EQ(engine_.chunks->Reopen({}), absl::OkStatus());
  disk_->SetFault({.ops = testing::kSync, .kind = FileKind::kDirectory, .error = EIO});
  EXPECT_TRUE(absl::IsUnavailable(AddPack(*engine_.chunks, 1)));
}

TEST_F(RocksLimitsTest, TooManyOpenFilesIsReportedByNameAndPasses) {
  Open();
  ASSERT_EQ(engine_.chunks->Reopen({}), absl::OkStatus());
  disk_->SetFault({.ops = testing::kOpen,
                   .kind = FileKind::kPack,
                   .for_good = true,
                   .error = EMFILE});
  const absl::Status refused = AddPack(*engine_.chunks, 1);
  EXPECT_TRUE(absl::IsResourceExhausted(refused)) << refused;
  EXPECT_THAT(std::string(refused.message()), HasSubstr("too many open files"));
  EXPECT_THAT(std::string(refused.message()), HasSubstr("RLIMIT_NOFILE"));
  disk_->ClearFault();
  EXPECT_EQ(AddPack(*engine_.chunks, 1), absl::OkStatus());
  disk_->SetFault({.ops = testing::kOpen, .kind = FileKind::kPack, .error = ENFILE});
  const absl::Status machine = AddPack(*engine_.chunks, 2);
  EXPECT_TRUE(absl::IsResourceExhausted(machine)) << machine;
  EXPECT_THAT(std::string(machine.message()), HasSubstr("fs.file-max"));
}

// RocksDB takes a failed read of the first chunk for a table without keys.
TEST_F(RocksLimitsTest, APackWhoseReadFailedWhileItWasPublishedIsNotAcknowledged) {
  Open();
  ASSERT_EQ(engine_.chunks->Reopen({}), absl::OkStatus());
  int refused = 0;
  for (int64_t at = 1; at <= 24; ++at) {
    const auto pack = static_cast<uint64_t>(at);
    disk_->SetFault({.ops = testing::kRead, .kind = FileKind::kPack, .at = at});
    const absl::Status status = AddPack(*engine_.chunks, pack);
    disk_->ClearFault();
    if (status.ok()) {
      EXPECT_EQ(ReadPack(*engine_.chunks, pack), absl::OkStatus()) << at;
    } else {
      ++refused;
      EXPECT_TRUE(absl::IsUnavailable(status)) << at << ": " << status;
    }
    if (!engine_.chunks->Health().ok()) {
      ASSERT_EQ(engine_.chunks->Reopen(Numbers(pack)), absl::OkStatus());
    }
  }
  EXPECT_GT(refused, 5);
}

// The last chunk has a block of its own here, which RocksDB does not expect to fail.
TEST_F(RocksLimitsTest, APackOfSeveralBlocksIsReadBeforeItIsPublished) {
  Open();
  ASSERT_EQ(engine_.chunks->Reopen({}), absl::OkStatus());
  // Opening the file, its end (twice), its index, its first and its last block.
  constexpr int64_t kReads = 1 + 3 + 3 + 1 + 1 + 1;
  for (int64_t at = 1; at <= kReads; ++at) {
    disk_->SetFault({.ops = testing::kRead, .kind = FileKind::kPack, .at = at});
    const absl::Status status = AddPack(*engine_.chunks, 1, /*chunks_in_it=*/2);
    disk_->ClearFault();
    EXPECT_TRUE(absl::IsUnavailable(status)) << at << ": " << status;
  }
  EXPECT_EQ(AddPack(*engine_.chunks, 1, /*chunks_in_it=*/2), absl::OkStatus());
  CheckPacks(1);
}

// RocksDB itself leaves the link of which the sync failed.
TEST_F(RocksLimitsTest, APackWhoseLinkCannotBeSyncedLeavesNoFile) {
  Open();
  ASSERT_EQ(engine_.chunks->Reopen({}), absl::OkStatus());
  auto writer = engine_.chunks->NewPack(1);
  ASSERT_TRUE(writer.ok()) << writer.status();
  ASSERT_TRUE((*writer)->Append(PackChunk(1)).ok());
  ASSERT_EQ((*writer)->Finish(), absl::OkStatus());
  disk_->SetFault({.ops = testing::kSync, .kind = FileKind::kPack});
  const absl::Status refused = engine_.chunks->Publish(*std::move(writer));
  disk_->ClearFault();
  EXPECT_TRUE(absl::IsUnavailable(refused)) << refused;
  EXPECT_THAT(folder_.Files("packs", ".sst"), IsEmpty());
  EXPECT_THAT(folder_.Files("incoming", ""), IsEmpty());
  ASSERT_EQ(engine_.chunks->Reopen({}), absl::OkStatus());
  EXPECT_EQ(AddPack(*engine_.chunks, 1), absl::OkStatus());
  EXPECT_THAT(folder_.Files("packs", ".sst"), ::testing::SizeIs(1));
  CheckPacks(1);
}

TEST_F(RocksLimitsTest, ARecoveryOfWhichOneReadFailsLosesNoPack) {
  Open();
  ASSERT_EQ(engine_.chunks->Reopen({}), absl::OkStatus());
  ASSERT_EQ(AddPack(*engine_.chunks, 1), absl::OkStatus());
  ASSERT_EQ(AddPack(*engine_.chunks, 2), absl::OkStatus());
  for (int64_t at = 1; at <= 45; ++at) {
    engine_ = Engine();
    fs::remove(folder_.path() + "/packs/CURRENT");
    Open();
    disk_->SetFault({.ops = testing::kRead, .kind = FileKind::kPack, .at = at});
    const absl::Status status = engine_.chunks->Reopen(Numbers(2));
    disk_->ClearFault();
    if (!status.ok()) {
      EXPECT_TRUE(absl::IsUnavailable(status)) << at << ": " << status;
      ASSERT_EQ(engine_.chunks->Reopen(Numbers(2)), absl::OkStatus()) << at;
    }
    EXPECT_THAT(folder_.Files("quarantine", ""), IsEmpty()) << at;
    EXPECT_THAT(folder_.Files("packs", ".sst"), ::testing::SizeIs(2)) << at;
    CheckPacks(2);
  }
}

TEST_F(RocksLimitsTest, ARecoveryWhoseReadsFailLosesNoPack) {
  Open();
  ASSERT_EQ(engine_.chunks->Reopen({}), absl::OkStatus());
  for (uint64_t pack = 1; pack <= 3; ++pack) {
    ASSERT_EQ(AddPack(*engine_.chunks, pack), absl::OkStatus());
  }
  engine_ = Engine();
  fs::remove(folder_.path() + "/packs/CURRENT");
  Open();
  disk_->SetFault({.ops = testing::kRead, .kind = FileKind::kPack, .for_good = true});
  const absl::Status refused = engine_.chunks->Reopen(Numbers(3));
  EXPECT_TRUE(absl::IsUnavailable(refused)) << refused;
  EXPECT_THAT(folder_.Files("quarantine", ""), IsEmpty());
  // Once is passed over.
  const int64_t failures = disk_->failures();
  disk_->SetFault({.ops = testing::kRead, .kind = FileKind::kPack});
  ASSERT_EQ(engine_.chunks->Reopen(Numbers(3)), absl::OkStatus());
  EXPECT_EQ(disk_->failures(), failures + 1);
  EXPECT_THAT(folder_.Files("quarantine", ""), IsEmpty());
  CheckPacks(3);
}

// A pack whose file cannot be opened now is neither garbage nor damaged.
TEST_F(RocksLimitsTest, ARecoveryThatRunsOutOfDescriptorsLosesNoPack) {
  Open();
  ASSERT_EQ(engine_.chunks->Reopen({}), absl::OkStatus());
  for (uint64_t pack = 1; pack <= 3; ++pack) {
    ASSERT_EQ(AddPack(*engine_.chunks, pack), absl::OkStatus());
  }
  engine_ = Engine();
  fs::remove(folder_.path() + "/packs/CURRENT");
  int refused = 0;
  for (int64_t at = 1; at <= 60; ++at) {
    RocksFolder copy;
    CopyFolder(folder_.path(), copy.path());
    auto disk = std::make_shared<FaultFileSystem>(copy.path());
    auto engine =
        OpenRocksEngine({.path = copy.path(), .ballast_bytes = 0, .file_system = disk});
    ASSERT_TRUE(engine.ok()) << engine.status();
    disk->SetFault({.ops = testing::kRead | testing::kOpen, .at = at, .error = EMFILE});
    absl::Status status = engine->chunks->Reopen(Numbers(3));
    if (!status.ok()) {
      ++refused;
      EXPECT_TRUE(absl::IsResourceExhausted(status)) << at << ": " << status;
      status = engine->chunks->Reopen(Numbers(3));
    }
    ASSERT_EQ(status, absl::OkStatus()) << at;
    for (uint64_t pack = 1; pack <= 3; ++pack) {
      EXPECT_EQ(ReadPack(*engine->chunks, pack), absl::OkStatus()) << at;
    }
    EXPECT_FALSE(fs::exists(copy.path() + "/quarantine")) << at;
  }
  EXPECT_GT(refused, 5);
}

TEST_F(RocksLimitsTest, ACatalogThatCannotBeReopenedForWantOfDescriptorsSaysSo) {
  Open();
  ASSERT_EQ(Put(engine_, "a", "1"), absl::OkStatus());
  int refused = 0;
  for (int64_t at = 1; at <= 40; ++at) {
    disk_->SetFault({.ops = testing::kRead | testing::kOpen, .at = at, .error = EMFILE});
    const absl::Status status = engine_.catalog->Reopen();
    disk_->ClearFault();
    if (!status.ok()) {
      ++refused;
      EXPECT_TRUE(absl::IsResourceExhausted(status)) << at << ": " << status;
      const absl::Status read = engine_.catalog->Get(Space::kRecords, "a").status();
      EXPECT_TRUE(absl::IsResourceExhausted(read)) << at << ": " << read;
      ASSERT_EQ(engine_.catalog->Reopen(), absl::OkStatus()) << at;
    }
    EXPECT_EQ(*engine_.catalog->Get(Space::kRecords, "a"), "1");
  }
  EXPECT_GT(refused, 10);
}

size_t OpenDescriptors() {
  size_t count = 0;
  for ([[maybe_unused]] const auto& entry : fs::directory_iterator("/proc/self/fd"))
    ++count;
  return count;
}

// What a process with few descriptors does with more packs than that. Says what went
// wrong; OK if nothing.
absl::Status UseMorePacksThanDescriptors(const std::string& path) {
  constexpr rlim_t kLimit = 300;
  constexpr uint64_t kPacks = 400;
  const rlimit limit{kLimit, kLimit};
  if (setrlimit(RLIMIT_NOFILE, &limit) != 0) return absl::InternalError("setrlimit");
  for (int round = 0; round < 2; ++round) {
    auto engine = OpenRocksEngine({.path = path, .ballast_bytes = 0});
    if (!engine.ok()) return engine.status();
    absl::Status status = engine->chunks->Reopen(Numbers(round == 0 ? 0 : kPacks));
    for (uint64_t pack = 1; round == 0 && status.ok() && pack <= kPacks; ++pack) {
      status = AddPack(*engine->chunks, pack);
    }
    for (uint64_t pack = 1; status.ok() && pack <= kPacks; ++pack) {
      status = ReadPack(*engine->chunks, pack);
    }
    if (!status.ok()) return status;
    if (OpenDescriptors() > kLimit / 2) {
      return absl::InternalError(
          absl::StrCat(OpenDescriptors(), " descriptors are open"));
    }
    if (round == 0) continue;
    // Something else takes what is left.
    std::vector<int> taken;
    for (int fd = open("/dev/null", O_RDONLY); fd >= 0;
         fd = open("/dev/null", O_RDONLY)) {
      taken.push_back(fd);
    }
    // The first packs were read long ago.
    for (const absl::Status& refused :
         {ReadPack(*engine->chunks, 1), AddPack(*engine->chunks, kPacks + 1)}) {
      if (!absl::IsResourceExhausted(refused)) {
        return absl::InternalError(
            absl::StrCat("without descriptors: ", refused.ToString()));
      }
    }
    for (const int fd : taken) close(fd);
    status = ReadPack(*engine->chunks, 1);
    if (status.ok()) status = AddPack(*engine->chunks, kPacks + 1);
    if (!status.ok()) return status;
  }
  return absl::OkStatus();
}

TEST(RocksDescriptorsTest, MorePacksThanDescriptorsAreWrittenOpenedAndRead) {
  GTEST_FLAG_SET(death_test_style, "threadsafe");
  EXPECT_EXIT(
      {
        absl::Status status;
        {
          RocksFolder folder;
          status = UseMorePacksThanDescriptors(folder.path());
        }
        std::fprintf(stderr, "%s\n", status.ToString().c_str());
        _exit(status.ok() ? 0 : 1);
      },
      ::testing::ExitedWithCode(0), "OK");
}

absl::Status WriteTheCatalogWithoutDescriptors(const std::string& path) {
  const rlimit limit{100, 100};
  if (setrlimit(RLIMIT_NOFILE, &limit) != 0) return absl::InternalError("setrlimit");
  auto engine = OpenRocksEngine({.path = path, .ballast_bytes = 0});
  if (!engine.ok()) return engine.status();
  // UBSan checks a class that it has not seen by way of a pipe: it must see the classes
  // of a write while there are descriptors.
  if (absl::Status s = Put(*engine, "before", "it"); !s.ok()) return s;
  std::vector<int> taken;
  for (int fd = open("/dev/null", O_RDONLY); fd >= 0; fd = open("/dev/null", O_RDONLY)) {
    taken.push_back(fd);
  }
  // Until RocksDB wants its next WAL. Its own descriptors are free again once it is
  // closed.
  int acknowledged = 0;
  absl::Status status;
  while (acknowledged < 100) {
    status =
        Put(*engine, absl::StrCat("k", acknowledged), TestBytes(1 << 20, acknowledged));
    if (!status.ok()) break;
    ++acknowledged;
  }
  if (acknowledged == 100) return absl::InternalError("no write needed a descriptor");
  if (!absl::StrContains(status.message(), "Too many open files")) return status;
  for (const int fd : taken) close(fd);
  status = engine->catalog->Reopen();
  if (status.ok()) status = Put(*engine, "after", "it");
  for (int i = 0; status.ok() && i < acknowledged; ++i) {
    const auto value = engine->catalog->Get(Space::kRecords, absl::StrCat("k", i));
    if (!value.ok()) return value.status();
    if (*value != TestBytes(1 << 20, i)) return absl::InternalError("a lost write");
  }
  return status;
}

TEST(RocksDescriptorsTest, ACatalogThatRanOutOfDescriptorsIsReopenedWithAllItHeld) {
  GTEST_FLAG_SET(death_test_style, "threadsafe");
  EXPECT_EXIT(
      {
        absl::Status status;
        {
          RocksFolder folder;
          status = WriteTheCatalogWithoutDescriptors(folder.path());
        }
        std::fprintf(stderr, "%s\n", status.ToString().c_str());
        _exit(status.ok() ? 0 : 1);
      },
      ::testing::ExitedWithCode(0), "OK");
}

}  // namespace
}  // namespace modelstore::storage
