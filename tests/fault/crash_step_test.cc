// One save, seal, commit, delete and sweep each, cut off at every single operation
// on the file system: by SIGKILL (what was written is there), by power loss (what
// was not synced is gone, or there by chance), by errors that pass and errors that
// stay, by a full disk. Then every promise is checked on what is left.
//
// In process: from the cut on the file system does nothing more, which is what a
// killed process does to it.
#include <gtest/gtest.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <filesystem>
#include <map>
#include <random>

#include "absl/strings/str_cat.h"
#include "tests/fault/store_scenario.h"
#include "tests/storage/rocks_folder.h"
#include "tests/support/fault_file_system.h"
#include "tests/support/seed.h"
#include "tests/support/temp_folder.h"

namespace modelstore::storage {
namespace {

using testing::FaultFileSystem;
using testing::FileKind;

struct Outcome {
  bool opened = false;
  absl::Status status;
  bool cut = false;
};

class CrashStepTest : public ::testing::Test {
 protected:
  static void SetUpTestSuite() {
    folder_ = new support::TempFolder("crash-step", support::TempFolder::kInMemory);
    scenario_ = new Scenario(folder_->path() + "/scenario");
  }
  static void TearDownTestSuite() {
    delete scenario_;
    delete folder_;
  }

  std::string Fresh(const std::string& name) {
    const std::string path = folder_->path() + "/" + name;
    std::filesystem::remove_all(path);
    return path;
  }
  std::string CopyOfScenario() {
    const std::string path = Fresh("store");
    CopyFolder(scenario_->folder(), path);
    return path;
  }

  // How many writes the operation takes where nothing fails; counted once.
  int64_t WritesOf(const Operation& operation, std::map<std::string, int64_t>* known) {
    int64_t& writes = (*known)[operation.name];
    if (writes > 0) return writes;
    const std::string folder = Fresh("counted");
    CopyFolder(scenario_->folder(), folder);
    const auto fs = std::make_shared<FaultFileSystem>(folder);
    const Outcome run = RunOperation(folder, fs, operation, [&](FaultFileSystem& f) {
      f.SetHook([&](const FaultFileSystem::Operation& op) {
        writes += op.op == testing::kWrite ? 1 : 0;
      });
    });
    EXPECT_EQ(run.status, absl::OkStatus()) << operation.name;
    EXPECT_GT(writes, 0) << operation.name;
    return std::max<int64_t>(writes, 1);
  }

  // Opens a copy over `fs`, arms it, runs the operation and closes.
  Outcome RunOperation(const std::string& folder,
                       const std::shared_ptr<FaultFileSystem>& fs,
                       const Operation& operation,
                       const std::function<void(FaultFileSystem&)>& arm) {
    Outcome run;
    auto store = OpenStore(folder, fs);
    run.opened = store.ok();
    run.status = store.status();
    if (!store.ok()) return run;
    arm(*fs);
    run.status = operation.run(**store, scenario_->known());
    run.cut = fs->power_is_off();
    return run;
  }

  static inline support::TempFolder* folder_ = nullptr;
  static inline Scenario* scenario_ = nullptr;
};

class EveryStepTest : public CrashStepTest,
                      public ::testing::WithParamInterface<std::string> {
 protected:
  // Calls `check(n)` for n = 1, 2, ... until it says that the operation was over
  // before its n-th step.
  int ForEveryStep(const std::function<bool(int64_t n)>& check) {
    int64_t n = 1;
    while (!HasFailure() && check(n)) ++n;
    return static_cast<int>(n - 1);
  }
};

TEST_P(EveryStepTest, KilledAtAnyStepAcknowledgedDataSurvivesAndNothingElse) {
  const Operation operation = OperationNamed(GetParam());
  int acknowledged = 0;
  const int steps = ForEveryStep([&](int64_t n) {
    const std::string folder = CopyOfScenario();
    const auto fs = std::make_shared<FaultFileSystem>(folder);
    const Outcome run =
        RunOperation(folder, fs, operation, [n](FaultFileSystem& f) { f.CutPowerAt(n); });
    EXPECT_TRUE(run.opened) << run.status;
    acknowledged += run.cut && run.status.ok() ? 1 : 0;
    EXPECT_EQ(scenario_->Check(folder, operation, run.status.ok()), absl::OkStatus())
        << operation.name << " killed at step " << n << ", answered " << run.status;
    return run.cut;
  });
  std::printf("%s: killed at each of %d steps (at %d of them already acknowledged)\n",
              operation.name.c_str(), steps, acknowledged);
  EXPECT_GE(steps, 3);
}

TEST_P(EveryStepTest, PowerLostAtAnyStepAcknowledgedDataSurvivesAndNothingElse) {
  const Operation operation = OperationNamed(GetParam());
  std::mt19937_64 random(TestSeed());
  const int steps = ForEveryStep([&](int64_t n) {
    const std::string folder = CopyOfScenario();
    const auto fs = std::make_shared<FaultFileSystem>(folder);
    const Outcome run =
        RunOperation(folder, fs, operation, [n](FaultFileSystem& f) { f.CutPowerAt(n); });
    EXPECT_TRUE(run.opened) << run.status;
    // All that was not synced is gone; or some of it survived.
    for (const bool by_chance : {false, true}) {
      const std::string left = Fresh("left");
      const std::optional<uint64_t> seed =
          by_chance ? std::optional<uint64_t>(random()) : std::nullopt;
      EXPECT_EQ(fs->Materialize(left, seed), absl::OkStatus());
      EXPECT_EQ(scenario_->Check(left, operation, run.status.ok()), absl::OkStatus())
          << operation.name << ", power lost at step " << n
          << (by_chance ? ", some unsynced bytes kept" : "") << ", answered "
          << run.status;
    }
    return run.cut;
  });
  std::printf("%s: power lost at each of %d steps, twice\n", operation.name.c_str(),
              steps);
  EXPECT_GE(steps, 3);
}

// One step fails. Whatever the caller was told, it is true, then and after a
// restart; and once the fault is gone, the same request goes through.
class FailingStepTest : public EveryStepTest {
 protected:
  int EveryStepFails(bool for_good, bool no_space) {
    const Operation operation = OperationNamed(GetParam());
    return ForEveryStep([&](int64_t n) {
      const std::string folder = CopyOfScenario();
      const auto fs = std::make_shared<FaultFileSystem>(folder);
      auto store = OpenStore(folder, fs);
      EXPECT_TRUE(store.ok()) << store.status();
      if (!store.ok()) return false;
      FaultFileSystem::Fault fault;
      fault.at = n;
      fault.for_good = for_good;
      fault.no_space = no_space;
      fs->SetFault(fault);
      const absl::Status answer = operation.run(**store, scenario_->known());
      const bool failed = fs->failures() > 0;
      const std::string label =
          absl::StrCat(operation.name, " failing at step ", n, ", answered ",
                       std::string(answer.ToString()));
      if (no_space && !answer.ok()) {
        EXPECT_TRUE(absl::IsResourceExhausted(answer) || absl::IsUnavailable(answer))
            << label;
      }
      fs->ClearFault();
      EXPECT_EQ(Recover(**store, operation, answer.ok()), absl::OkStatus()) << label;
      store->reset();
      EXPECT_EQ(scenario_->Check(folder, operation, true), absl::OkStatus())
          << label << ", after a restart";
      return failed;
    });
  }

  // Without a restart: what was told is true, and the request now succeeds.
  absl::Status Recover(CheckpointStore& store, const Operation& operation,
                       bool acknowledged) {
    absl::Status reopened = store.maintenance().ReopenIfClosed();
    if (!reopened.ok()) return reopened;
    absl::Status s = scenario_->CheckContent(store, operation, acknowledged);
    if (!s.ok()) return s;
    s = operation.run(store, scenario_->known());
    if (!s.ok() && !(absl::IsNotFound(s) && !operation.repeatable)) return s;
    return scenario_->CheckContent(store, operation, true);
  }
};

TEST_P(FailingStepTest, AnErrorThatPassesIsReportedAndForgotten) {
  std::printf("%s: EIO once at each of %d steps\n", GetParam().c_str(),
              EveryStepFails(false, false));
}

TEST_P(FailingStepTest, APersistentErrorIsReportedAndRecoversOnceItEnds) {
  std::printf("%s: EIO for good from each of %d steps\n", GetParam().c_str(),
              EveryStepFails(true, false));
}

TEST_P(FailingStepTest, ADiskFullForAMomentIsReportedAndForgotten) {
  std::printf("%s: ENOSPC once at each of %d steps\n", GetParam().c_str(),
              EveryStepFails(false, true));
}

TEST_P(FailingStepTest, AFullDiskIsReportedAndRecoversOnceThereIsSpace) {
  std::printf("%s: ENOSPC for good from each of %d steps\n", GetParam().c_str(),
              EveryStepFails(true, true));
}

std::vector<std::string> NamesOfOperations() {
  std::vector<std::string> names;
  for (const Operation& operation : Operations()) names.push_back(operation.name);
  return names;
}
constexpr auto kName = [](const auto& info) { return info.param; };
INSTANTIATE_TEST_SUITE_P(Operations, EveryStepTest,
                         ::testing::ValuesIn(NamesOfOperations()), kName);
INSTANTIATE_TEST_SUITE_P(Operations, FailingStepTest,
                         ::testing::ValuesIn(NamesOfOperations()), kName);

// The open that follows a crash is itself cut off, at every step of it.
TEST_F(CrashStepTest, ARecoveryThatIsCutOffIsRecoveredFrom) {
  std::mt19937_64 random(TestSeed());
  const Operation operation = OperationNamed("Save");
  int cuts = 0;
  // Three crashes of a save, early, in its middle and late.
  for (const int64_t first : {int64_t{5}, int64_t{15}, int64_t{30}}) {
    for (int64_t n = 1; !HasFailure(); ++n) {
      const std::string folder = CopyOfScenario();
      const auto fs = std::make_shared<FaultFileSystem>(folder);
      const Outcome run = RunOperation(folder, fs, operation,
                                       [&](FaultFileSystem& f) { f.CutPowerAt(first); });
      const auto second = std::make_shared<FaultFileSystem>(folder);
      second->CutPowerAt(n);
      (void)OpenStore(folder, second).status();
      const bool cut = second->power_is_off();
      const std::string left = Fresh("left");
      EXPECT_EQ(second->Materialize(left, random()), absl::OkStatus());
      for (const std::string& path : {folder, left}) {
        EXPECT_EQ(scenario_->Check(path, operation, run.status.ok()), absl::OkStatus())
            << "save killed at step " << first << ", recovery at step " << n
            << (path == left ? " by power loss" : "");
      }
      if (!cut) break;
      ++cuts;
    }
  }
  std::printf("recovery cut off at each step: %d cuts, each by kill and by power loss\n",
              cuts);
}

// Operations one after the other, power lost somewhere, again and again.
TEST_F(CrashStepTest, PowerLostAtRandomMoments) {
  std::mt19937_64 random(TestSeed());
  const std::vector<Operation> operations = Operations();
  const int cuts = TestRounds(200);
  for (int i = 0; i < cuts && !HasFailure(); ++i) {
    const Operation& operation = operations[random() % operations.size()];
    const std::string folder = CopyOfScenario();
    const auto fs = std::make_shared<FaultFileSystem>(folder);
    const int64_t at = 1 + static_cast<int64_t>(random() % 60);
    const Outcome run = RunOperation(folder, fs, operation,
                                     [&](FaultFileSystem& f) { f.CutPowerAt(at); });
    const std::string left = Fresh("left");
    ASSERT_EQ(fs->Materialize(left, random()), absl::OkStatus());
    EXPECT_EQ(scenario_->Check(left, operation, run.status.ok()), absl::OkStatus())
        << operation.name << ", power lost at step " << at;
  }
  std::printf("power lost at %d random moments\n", cuts);
}

// The test above would notice: with any one kind of sync left out, it fails. That of
// CURRENT is the exception below.
class IgnoredSyncTest : public CrashStepTest,
                        public ::testing::WithParamInterface<FileKind> {};

TEST_P(IgnoredSyncTest, PowerLossIsNoticed) {
  int looked = 0;
  for (const Operation& operation : Operations()) {
    for (int64_t n = 1;; ++n) {
      const std::string folder = CopyOfScenario();
      const auto fs = std::make_shared<FaultFileSystem>(folder);
      fs->IgnoreSync(GetParam());
      const Outcome run = RunOperation(folder, fs, operation,
                                       [n](FaultFileSystem& f) { f.CutPowerAt(n); });
      const std::string left = Fresh("left");
      ASSERT_EQ(fs->Materialize(left, std::nullopt), absl::OkStatus());
      ++looked;
      const absl::Status s = scenario_->Check(left, operation, run.status.ok());
      if (!s.ok()) {
        std::printf("without syncs of %s: noticed after %d cuts: %s\n",
                    testing::KindName(GetParam()), looked,
                    std::string(s.ToString()).substr(0, 200).c_str());
        return;
      }
      if (!run.cut) break;
    }
  }
  FAIL() << "no cut of " << looked << " noticed that " << testing::KindName(GetParam())
         << " was never synced";
}

INSTANTIATE_TEST_SUITE_P(Kinds, IgnoredSyncTest,
                         ::testing::Values(FileKind::kWal, FileKind::kPack,
                                           FileKind::kDirectory),
                         [](const auto& info) {
                           return std::string(testing::KindName(info.param));
                         });

// HIGH_WATER names the MANIFEST that a lost CURRENT named.
TEST_F(CrashStepTest, ACurrentThatWasNeverSyncedIsRewritten) {
  const Operation operation = OperationNamed("SmallSave");
  for (int64_t n = 1;; ++n) {
    const std::string folder = CopyOfScenario();
    const auto fs = std::make_shared<FaultFileSystem>(folder);
    fs->IgnoreSync(FileKind::kCurrent);
    const Outcome run =
        RunOperation(folder, fs, operation, [n](FaultFileSystem& f) { f.CutPowerAt(n); });
    const std::string left = Fresh("left");
    ASSERT_EQ(fs->Materialize(left, std::nullopt), absl::OkStatus());
    EXPECT_EQ(scenario_->Check(left, operation, run.status.ok()), absl::OkStatus()) << n;
    if (!run.cut) break;
  }
}

// A quota at 200 points of a save: what fits is kept, what does not is refused,
// nothing else suffers, deleting makes room, and then the save goes through. Every
// second time the disk is full before the save begins; else somebody else fills it
// in the middle of one that was admitted.
TEST_F(CrashStepTest, ADiskFullAtTwoHundredPointsOfASave) {
  std::mt19937_64 random(TestSeed());
  const int points = TestRounds(200);
  int refused = 0, filled = 0, refused_in_the_middle = 0;
  std::map<std::string, int64_t> writes_of;
  for (int i = 0; i < points && !HasFailure(); ++i) {
    const Operation operation = OperationNamed(i % 4 == 0   ? "SmallSave"
                                               : i % 4 == 1 ? "LargeOneStreamSave"
                                                            : "Save");
    const int64_t needed = i % 4 == 0 ? 40'000 : 1'500'000;
    const std::string folder = CopyOfScenario();
    const auto fs = std::make_shared<FaultFileSystem>(folder);
    // Enough to open storage again, with what RocksDB allocates to journals beforehand.
    auto store = OpenStore(folder, fs, int64_t{24} << 20);
    ASSERT_TRUE(store.ok()) << store.status();
    const bool in_the_middle = i / 4 % 2 == 1;
    const int64_t room =
        in_the_middle ? static_cast<int64_t>(random() % 3'000)
                      : needed * i / points + static_cast<int64_t>(random() % 1'000);
    std::string label = absl::StrCat(operation.name, " with room for ", room, " bytes");
    std::atomic<bool> hit = false;
    std::atomic<int64_t> write = 0;
    if (in_the_middle) {
      const int64_t at = static_cast<int64_t>(
          random() % static_cast<uint64_t>(WritesOf(operation, &writes_of)));
      absl::StrAppend(&label, " from write ", at);
      fs->SetHook([&, at](const FaultFileSystem::Operation& op) {
        if (op.op != testing::kWrite || write++ != at) return;
        hit = true;
        fs->SetQuota(fs->used_bytes() + room);
      });
    } else {
      fs->SetQuota(fs->used_bytes() + room);
    }
    const absl::Status answer = operation.run(**store, scenario_->known());
    fs->SetHook(nullptr);
    refused += answer.ok() ? 0 : 1;
    filled += hit ? 1 : 0;
    refused_in_the_middle += hit && !answer.ok() ? 1 : 0;
    // A commit whose own write failed is undecided until storage is opened again.
    EXPECT_TRUE(answer.ok() || absl::IsResourceExhausted(answer) ||
                (hit && absl::IsUnavailable(answer)))
        << label << ": " << answer;
    // To the last byte, unless the ballast went to open storage again: what is stored
    // reads, and deleting works.
    if (std::filesystem::exists(folder + "/BALLAST")) fs->SetQuota(fs->used_bytes());
    EXPECT_EQ((*store)->maintenance().ReopenIfClosed(), absl::OkStatus()) << label;
    EXPECT_EQ(scenario_->CheckContent(**store, operation, answer.ok()), absl::OkStatus())
        << label;
    EXPECT_EQ(OperationNamed("Delete").run(**store, scenario_->known()), absl::OkStatus())
        << label;
    fs->SetQuota(-1);
    EXPECT_EQ((*store)->maintenance().ReopenIfClosed(), absl::OkStatus()) << label;
    EXPECT_EQ(operation.run(**store, scenario_->known()), absl::OkStatus()) << label;
    store->reset();
    Operation both = operation;
    both.deletes = {1};
    EXPECT_EQ(scenario_->Check(folder, both, true), absl::OkStatus()) << label;
  }
  std::printf(
      "disk full at %d points, %d of them in the middle of a save: %d saves refused, %d "
      "of them in their middle\n",
      points, filled, refused, refused_in_the_middle);
  EXPECT_GT(refused, points / 2);
  EXPECT_GT(refused_in_the_middle, points / 20);
}

}  // namespace
}  // namespace modelstore::storage
