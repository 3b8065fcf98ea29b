// The embedded engine under SIGKILL, loss of power, failing operations and a full
// disk, at every operation of one script that uses both seams.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <map>
#include <optional>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "storage/rocksdb/engine.h"
#include "tests/storage/rocks_folder.h"
#include "tests/storage/test_bytes.h"
#include "tests/support/fault_file_system.h"
#include "tests/support/seed.h"

namespace modelstore::storage {
namespace {

using testing::FaultFileSystem;
using testing::FileKind;

using Values = std::map<std::string, std::optional<std::string>>;

std::string PackChunk(uint64_t pack, uint32_t sequence) {
  return TestBytes(sequence == 1 ? 60'000 : 700, 100 * pack + sequence);
}
constexpr uint32_t kChunks = 3;

// A run of the script: what was acknowledged, and what was under way.
class Script {
 public:
  explicit Script(uint64_t first_pack) : pack_(first_pack) {}

  absl::Status Run(Engine& engine) {
    absl::Status status = Write(engine, {{"a", "1"}, {"b", "1"}});
    if (status.ok()) status = AddPack(engine, pack_);
    if (status.ok())
      status = Write(engine, {{"a", "2"}, {"c", "2"}, {"b", std::nullopt}});
    if (status.ok()) status = AddPack(engine, pack_ + 1);
    if (status.ok()) status = DropPack(engine, pack_);
    if (status.ok()) status = engine.catalog->Reopen();
    if (status.ok()) status = engine.chunks->Reopen(Named(engine));
    if (status.ok()) status = Write(engine, {{"a", "3"}});
    if (status.ok()) status = AddPack(engine, pack_ + 2);
    return status;
  }

  // What the catalog names: packs under "pack/N".
  static std::vector<uint64_t> Named(Engine& engine) {
    std::vector<uint64_t> packs;
    const absl::Status status =
        engine.catalog->Scan(Space::kRecords, PrefixRange("pack/"),
                             [&](absl::string_view key, absl::string_view) {
                               uint64_t pack = 0;
                               EXPECT_TRUE(absl::SimpleAtoi(key.substr(5), &pack));
                               packs.push_back(pack);
                               return true;
                             });
    EXPECT_TRUE(status.ok()) << status;
    return packs;
  }

  // Holds the store against what was acknowledged. Empty if all is there.
  std::string Missing(Engine& engine) const {
    bool as_before = true;
    bool as_after = true;
    for (const auto& [key, pending] : pending_) {
      const auto value = engine.catalog->Get(Space::kRecords, key);
      if (!value.ok()) return value.status().ToString();
      const auto it = acknowledged_.find(key);
      as_before &= *value == (it == acknowledged_.end() ? std::nullopt : it->second);
      as_after &= *value == pending;
    }
    if (!as_before && !as_after) return "a batch was applied in part";
    for (const auto& [key, expected] : acknowledged_) {
      if (pending_.count(key) > 0) continue;
      const auto value = engine.catalog->Get(Space::kRecords, key);
      if (!value.ok()) return value.status().ToString();
      if (*value != expected) return absl::StrCat(key, " is ", value->value_or("absent"));
    }
    for (const uint64_t pack : published_) {
      for (uint32_t i = 0; i < kChunks; ++i) {
        const auto bytes = engine.chunks->Read({pack, i});
        if (!bytes.ok()) return bytes.status().ToString();
        if (bytes->view() != PackChunk(pack, i))
          return absl::StrCat("wrong bytes in ", pack);
      }
    }
    return "";
  }

 private:
  absl::Status Write(Engine& engine, const Values& values) {
    CatalogBatch batch;
    for (const auto& [key, value] : values) {
      value.has_value() ? batch.Put(Space::kRecords, key, *value)
                        : batch.Delete(Space::kRecords, key);
    }
    pending_ = values;
    const absl::Status status = engine.catalog->Write(batch, Durability::kDurable);
    // A failure that is not undecided says that nothing was applied.
    if (!status.ok() && IsUndecided(status)) return status;
    pending_.clear();
    if (!status.ok()) return status;
    for (const auto& [key, value] : values) acknowledged_[key] = value;
    return status;
  }

  absl::Status AddPack(Engine& engine, uint64_t pack) {
    absl::Status status = Write(engine, {{absl::StrCat("pack/", pack), "named"}});
    if (!status.ok()) return status;
    auto writer = engine.chunks->NewPack(pack);
    if (!writer.ok()) return writer.status();
    for (uint32_t i = 0; i < kChunks; ++i) {
      const auto id = (*writer)->Append(PackChunk(pack, i));
      if (!id.ok()) return id.status();
    }
    status = (*writer)->Finish();
    if (status.ok()) status = engine.chunks->Publish(*std::move(writer));
    if (status.ok()) published_.insert(pack);
    return status;
  }

  absl::Status DropPack(Engine& engine, uint64_t pack) {
    published_.erase(pack);
    absl::Status status = Write(engine, {{absl::StrCat("pack/", pack), std::nullopt}});
    if (status.ok()) status = engine.chunks->DropPacks({&pack, 1});
    return status;
  }

  const uint64_t pack_;
  Values acknowledged_;
  Values pending_;
  std::set<uint64_t> published_;
};

absl::StatusOr<Engine> Open(const std::string& path, std::shared_ptr<FaultFileSystem> fs,
                            int64_t ballast_bytes = 0) {
  auto engine = OpenRocksEngine(
      {.path = path, .ballast_bytes = ballast_bytes, .file_system = std::move(fs)});
  if (!engine.ok()) return engine.status();
  const absl::Status status = engine->chunks->Reopen(Script::Named(*engine));
  if (!status.ok()) return status;
  return engine;
}

// Opens what is left in a folder and holds it against the script; afterwards the
// store must take a whole script more. Empty if all is well.
std::string Aftermath(const std::string& path, const Script& script) {
  auto engine = Open(path, std::make_shared<FaultFileSystem>(path));
  if (!engine.ok()) return absl::StrCat("open: ", engine.status().ToString());
  std::string missing = script.Missing(*engine);
  if (!missing.empty()) return missing;
  Script more(200);
  const absl::Status status = more.Run(*engine);
  if (!status.ok()) return absl::StrCat("afterwards: ", status.ToString());
  return more.Missing(*engine);
}

// Runs the script on a fresh store, the power cut at the n-th operation. False if
// the script came to its end before.
bool RunUntil(int64_t n, const std::string& path, std::shared_ptr<FaultFileSystem> fs,
              Script* script) {
  fs->CutPowerAt(n);
  auto engine = Open(path, fs);
  if (engine.ok()) script->Run(*engine).IgnoreError();
  return fs->power_is_off();
}

TEST(RocksFaultTest, SigkillAtEveryOperationLosesNothing) {
  int64_t n = 1;
  for (;; ++n) {
    SCOPED_TRACE(absl::StrCat("operation ", n));
    RocksFolder folder;
    Script script(1);
    auto fs = std::make_shared<FaultFileSystem>(folder.path());
    const bool cut = RunUntil(n, folder.path(), fs, &script);
    ASSERT_EQ(Aftermath(folder.path(), script), "");
    if (!cut) break;
  }
  std::printf("%d operations\n", static_cast<int>(n - 1));
  EXPECT_GT(n, 100);
}

TEST(RocksFaultTest, PowerLossAtEveryOperationLosesNothing) {
  const uint64_t seed = TestSeed();
  for (int64_t n = 1;; ++n) {
    RocksFolder folder;
    Script script(1);
    auto fs = std::make_shared<FaultFileSystem>(folder.path());
    const bool cut = RunUntil(n, folder.path(), fs, &script);
    for (const bool by_chance : {false, true, true}) {
      SCOPED_TRACE(absl::StrCat("operation ", n, by_chance ? ", by chance" : ""));
      RocksFolder after;
      const auto chance = by_chance ? std::optional<uint64_t>(seed + n) : std::nullopt;
      ASSERT_TRUE(fs->Materialize(after.path(), chance).ok());
      ASSERT_EQ(Aftermath(after.path(), script), "");
    }
    if (!cut) break;
  }
}

// Metadata of packs/ that is lost is made anew; that, too, may be cut off.
TEST(RocksFaultTest, ARebuildThatIsCutOffAnywhereLosesNoPack) {
  const uint64_t seed = TestSeed();
  int64_t n = 1;
  for (bool cut = true; cut; ++n) {
    SCOPED_TRACE(absl::StrCat("operation ", n));
    RocksFolder folder;
    Script script(1);
    {
      auto engine = Open(folder.path(), std::make_shared<FaultFileSystem>(folder.path()));
      ASSERT_TRUE(engine.ok()) << engine.status();
      ASSERT_TRUE(script.Run(*engine).ok());
    }
    std::filesystem::remove(folder.path() + "/packs/CURRENT");
    auto fs = std::make_shared<FaultFileSystem>(folder.path());
    fs->CutPowerAt(n);
    (void)Open(folder.path(), fs);
    cut = fs->power_is_off();
    for (const bool by_chance : {false, true}) {
      RocksFolder after;
      const auto chance = by_chance ? std::optional<uint64_t>(seed + n) : std::nullopt;
      ASSERT_TRUE(fs->Materialize(after.path(), chance).ok());
      ASSERT_EQ(Aftermath(after.path(), script), "") << "power loss";
    }
    ASSERT_EQ(Aftermath(folder.path(), script), "") << "SIGKILL";
  }
  std::printf("%d operations\n", static_cast<int>(n - 2));
  EXPECT_GT(n, 20);
}

class IgnoredSync : public ::testing::TestWithParam<FileKind> {};

// Shows that the test above would notice each missing sync.
TEST_P(IgnoredSync, IsDetectedByThePowerLossTest) {
  int lost = 0;
  for (int64_t n = 20; lost == 0; n += 7) {
    RocksFolder folder;
    RocksFolder after;
    Script script(1);
    auto fs = std::make_shared<FaultFileSystem>(folder.path());
    fs->IgnoreSync(GetParam());
    const bool cut = RunUntil(n, folder.path(), fs, &script);
    ASSERT_TRUE(fs->Materialize(after.path(), std::nullopt).ok());
    lost += !Aftermath(after.path(), script).empty();
    if (!cut) break;
  }
  EXPECT_GT(lost, 0) << "no sync of " << testing::KindName(GetParam()) << " was needed";
}

INSTANTIATE_TEST_SUITE_P(Kinds, IgnoredSync,
                         ::testing::Values(FileKind::kWal, FileKind::kPack,
                                           FileKind::kDirectory, FileKind::kCurrent,
                                           FileKind::kManifest),
                         [](const auto& info) { return testing::KindName(info.param); });

// Brings an engine back after its fault is gone, as its owner does.
absl::Status ReopenIfClosed(Engine& engine) {
  if (!engine.catalog->Health().ok()) {
    const absl::Status status = engine.catalog->Reopen();
    if (!status.ok()) return status;
  }
  if (engine.chunks->Health().ok()) return absl::OkStatus();
  return engine.chunks->Reopen(Script::Named(engine));
}

struct FaultParam {
  const char* name;
  bool for_good;
  bool no_space;
};

class FailingOperation : public ::testing::TestWithParam<FaultParam> {};

TEST_P(FailingOperation, LosesNothingAndRecovers) {
  int failed_scripts = 0;
  for (int64_t n = 1;; ++n) {
    SCOPED_TRACE(absl::StrCat("operation ", n));
    RocksFolder folder;
    auto fs = std::make_shared<FaultFileSystem>(folder.path());
    auto engine = Open(folder.path(), fs);
    ASSERT_TRUE(engine.ok()) << engine.status();
    fs->SetFault(
        {.at = n, .for_good = GetParam().for_good, .no_space = GetParam().no_space});
    Script script(1);
    const absl::Status status = script.Run(*engine);
    const bool hit = fs->failures() > 0;
    failed_scripts += !status.ok();
    if (!status.ok()) {
      EXPECT_THAT(status.code(), ::testing::AnyOf(absl::StatusCode::kUnavailable,
                                                  absl::StatusCode::kResourceExhausted))
          << status;
    }
    fs->ClearFault();
    // Without a restart.
    const absl::Status reopened = ReopenIfClosed(*engine);
    ASSERT_TRUE(reopened.ok()) << reopened << " after " << status;
    ASSERT_EQ(script.Missing(*engine), "") << status;
    Script more(100);
    const absl::Status again = more.Run(*engine);
    ASSERT_TRUE(again.ok()) << again << " after " << status;
    ASSERT_EQ(more.Missing(*engine), "");
    // And with one.
    *engine = Engine();
    ASSERT_EQ(Aftermath(folder.path(), more), "");
    if (!hit) break;
  }
  EXPECT_GT(failed_scripts, 20);
}

INSTANTIATE_TEST_SUITE_P(Faults, FailingOperation,
                         ::testing::Values(FaultParam{"EioOnce", false, false},
                                           FaultParam{"EioForGood", true, false},
                                           FaultParam{"EnospcOnce", false, true},
                                           FaultParam{"EnospcForGood", true, true}),
                         [](const auto& info) { return info.param.name; });

class FailingPackFile : public ::testing::TestWithParam<testing::FileOp> {};

// The kernel may tell only there that it could not write.
TEST_P(FailingPackFile, FailsThePackAndNoneAfterIt) {
  RocksFolder folder;
  auto fs = std::make_shared<FaultFileSystem>(folder.path());
  auto engine = Open(folder.path(), fs);
  ASSERT_TRUE(engine.ok()) << engine.status();
  const auto add = [&](uint64_t pack) {
    auto writer = engine->chunks->NewPack(pack);
    absl::Status status = writer.status();
    for (uint32_t i = 0; i < 5 && status.ok(); ++i) {
      status = (*writer)->Append(TestBytes(4 << 20, pack + i)).status();
    }
    if (status.ok()) status = (*writer)->Finish();
    if (status.ok()) status = engine->chunks->Publish(*std::move(writer));
    return status;
  };
  fs->SetFault({.ops = GetParam(), .kind = FileKind::kPack});
  const absl::Status failed = add(1);
  EXPECT_TRUE(absl::IsUnavailable(failed)) << failed;
  EXPECT_EQ(fs->failures(), 1);
  EXPECT_FALSE(engine->chunks->Read({1, 0}).ok());

  const absl::Status reopened = ReopenIfClosed(*engine);
  ASSERT_TRUE(reopened.ok()) << reopened;
  const absl::Status after = add(2);
  ASSERT_TRUE(after.ok()) << after;
  const auto bytes = engine->chunks->Read({2, 4});
  ASSERT_TRUE(bytes.ok()) << bytes.status();
  EXPECT_EQ(bytes->view(), TestBytes(4 << 20, 6));
}

INSTANTIATE_TEST_SUITE_P(Operations, FailingPackFile,
                         ::testing::Values(testing::kWriteBack, testing::kClose),
                         [](const auto& info) {
                           return info.param == testing::kClose ? "Close" : "WriteBack";
                         });

TEST(RocksFaultTest, AFullDiskAtAnyPointIsExhaustionAndLosesNothing) {
  constexpr int64_t kBallast = 20 << 20;
  int exhausted = 0;
  int deletes = 0;
  for (int64_t room = 0; room < 200'000; room += 1'000) {
    SCOPED_TRACE(absl::StrCat(room, " bytes of room"));
    RocksFolder folder;
    auto fs = std::make_shared<FaultFileSystem>(folder.path());
    auto engine = Open(folder.path(), fs, kBallast);
    ASSERT_TRUE(engine.ok()) << engine.status();
    fs->SetQuota(fs->used_bytes() + room);
    Script script(1);
    const absl::Status status = script.Run(*engine);
    if (!status.ok()) {
      ASSERT_TRUE(absl::IsResourceExhausted(status)) << status;
      ++exhausted;
    }
    // Full as it is, everything is readable, and a delete finds room.
    fs->SetQuota(fs->used_bytes());
    ASSERT_EQ(script.Missing(*engine), "");
    // Gone already if the script's own reopening needed it.
    const bool has_ballast = !folder.Files("", "BALLAST").empty();
    engine->release_ballast();
    const absl::Status reopened = ReopenIfClosed(*engine);
    ASSERT_TRUE(reopened.ok()) << reopened << " after " << status;
    const std::vector<uint64_t> named = Script::Named(*engine);
    ASSERT_EQ(script.Missing(*engine), "");
    const absl::Status dropped = engine->chunks->DropPacks(named);
    ASSERT_TRUE(dropped.ok() || (!has_ballast && absl::IsResourceExhausted(dropped)))
        << dropped;
    deletes += has_ballast;
    fs->SetQuota(-1);
    engine->restore_ballast();
    Script more(100);
    const absl::Status again = more.Run(*engine);
    ASSERT_TRUE(again.ok()) << again << " after " << status;
    ASSERT_EQ(more.Missing(*engine), "");
  }
  std::printf("200 scripts: %d met a full disk, %d deleted at 0 bytes free\n", exhausted,
              deletes);
  EXPECT_GT(exhausted, 20);
  EXPECT_GT(deletes, 20);
}

}  // namespace
}  // namespace modelstore::storage
