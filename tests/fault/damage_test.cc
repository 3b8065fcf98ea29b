// One bit flipped, or the file cut, at a thousand random places of each kind of file
// of a small store: every tensor reads as it was saved or is DATA_LOSS by name;
// storage refuses to open over damage to the catalog alone, and names the file; no
// version goes missing in silence. What the engine does with such files is in
// tests/storage/rocks_damage_test.cc.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <filesystem>
#include <random>
#include <set>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "tests/fault/store_scenario.h"
#include "tests/storage/file_damage.h"
#include "tests/storage/rocks_folder.h"
#include "tests/support/fault_file_system.h"
#include "tests/support/seed.h"

namespace modelstore::storage {
namespace {

using testing::FaultFileSystem;

constexpr int kRounds = 1000;

// Files of one kind: those of a subfolder (empty: the store's own) whose name
// contains `part`.
struct Kind {
  const char* name;
  const char* subfolder;
  const char* part;
};

void PrintTo(const Kind& kind, std::ostream* out) { *out << kind.name; }

// What became of the rounds.
struct Tally {
  int intact = 0;
  int refused = 0;
  int with_losses = 0;
};

class StoreDamageTest : public ::testing::TestWithParam<Kind> {
 protected:
  // The first tensor that is read wrong, or lost without its name; counts those that
  // are lost.
  static absl::Status CheckTensors(CheckpointStore& store, int64_t version,
                                   const Content& content, int* lost) {
    const auto read = store.reads().Open(kScenarioModel, version);
    if (!read.ok()) {
      // The list of its tensors is what is damaged.
      if (!absl::IsDataLoss(read.status())) return read.status();
      if (!absl::StrContains(read.status().message(), "models/m/checkpoints/")) {
        return absl::InternalError(
            absl::StrCat("a loss without a name: ", read.status().ToString()));
      }
      ++*lost;
      return absl::OkStatus();
    }
    const auto& manifest = (*read)->manifest();
    if (manifest.tensors_size() != static_cast<int>(content.tensors.size())) {
      return absl::InternalError(absl::StrCat("version ", version, " has ",
                                              manifest.tensors_size(), " tensors"));
    }
    for (int t = 0; t < manifest.tensors_size(); ++t) {
      const std::string& key = manifest.tensors(t).key();
      const std::vector<std::string>& chunks = content.tensors.at(key);
      for (size_t c = 0; c < chunks.size(); ++c) {
        const auto bytes = (*read)->ReadChunk(t, 0, static_cast<int64_t>(c));
        if (bytes.ok() && bytes->view() == chunks[c]) continue;
        if (bytes.ok()) {
          return absl::InternalError(absl::StrCat("wrong bytes of ", key));
        }
        const std::string name =
            absl::StrCat("tensor model:", key, " of models/m/checkpoints/", version);
        if (!absl::IsDataLoss(bytes.status()) ||
            !absl::StrContains(bytes.status().message(), name)) {
          return absl::InternalError(
              absl::StrCat("a loss of ", name, ", told as ", bytes.status().ToString()));
        }
        ++*lost;
      }
    }
    return absl::OkStatus();
  }
};

TEST_P(StoreDamageTest, IsReportedByNameOrRepaired) {
  const Kind kind = GetParam();
  const bool in_catalog = absl::string_view(kind.subfolder) != "packs";
  std::mt19937_64 random(TestSeed());
  RocksFolder original;
  const Scenario scenario(original.path());
  // Opened once more, so that there are tables beside the journal.
  ASSERT_TRUE(OpenStore(original.path()).ok());
  Tally tally;
  for (int round = 0; round < TestRounds(kRounds) && !HasFailure(); ++round) {
    RocksFolder damaged_copy;
    CopyFolder(original.path(), damaged_copy.path());
    const std::vector<std::string> files = damaged_copy.Files(kind.subfolder, kind.part);
    ASSERT_FALSE(files.empty());
    SCOPED_TRACE(DamageFile(files[random() % files.size()], random));
    // Over this file system nothing waits for a sync.
    auto store = OpenStore(damaged_copy.path(),
                           std::make_shared<FaultFileSystem>(damaged_copy.path()));
    if (!store.ok()) {
      EXPECT_TRUE(in_catalog) << store.status();
      EXPECT_TRUE(absl::IsDataLoss(store.status())) << store.status();
      EXPECT_THAT(std::string(store.status().message()),
                  ::testing::HasSubstr("/catalog/"));
      ++tally.refused;
      continue;
    }
    const auto page = (*store)->checkpoints().List(kScenarioModel, false, "", 1000);
    int lost = 0;
    if (!page.ok()) {
      EXPECT_TRUE(in_catalog && absl::IsDataLoss(page.status())) << page.status();
      ++lost;
    } else {
      EXPECT_EQ(page->items.size(), scenario.known().versions.size());
    }
    for (const auto& [version, content] : scenario.known().versions) {
      EXPECT_EQ(CheckTensors(**store, version, content, &lost), absl::OkStatus())
          << "version " << version;
    }
    ++(lost > 0 ? tally.with_losses : tally.intact);
  }
  std::printf("%s: %d intact, %d refused by name, %d with losses by name\n", kind.name,
              tally.intact, tally.refused, tally.with_losses);
}

INSTANTIATE_TEST_SUITE_P(Files, StoreDamageTest,
                         ::testing::Values(Kind{"Packs", "packs", ".sst"},
                                           Kind{"PacksManifest", "packs", "MANIFEST"},
                                           Kind{"PacksCurrent", "packs", "CURRENT"},
                                           Kind{"CatalogJournal", "catalog", ".log"},
                                           Kind{"CatalogManifest", "catalog", "MANIFEST"},
                                           Kind{"CatalogTables", "catalog", ".sst"},
                                           Kind{"CatalogCurrent", "catalog", "CURRENT"},
                                           Kind{"HighWater", "", "HIGH_WATER"}),
                         [](const auto& info) { return info.param.name; });

std::set<uint64_t> PacksIn(const std::string& folder) {
  std::set<uint64_t> packs;
  for (const auto& file : std::filesystem::directory_iterator(folder + "/packs")) {
    if (file.path().extension() != ".sst") continue;
    if (const auto pack = PackIn(file.path())) packs.insert(*pack);
  }
  return packs;
}

TEST(LostPackMetadataTest, WhatWasCopiedForwardOrMergedReadsBackWhenItIsRecreated) {
  const RocksFolder base;
  const Scenario scenario(base.path());
  for (const char* name : {"DeleteAndSweep", "MergeOfSmallPacks"}) {
    SCOPED_TRACE(name);
    const RocksFolder copy;
    const Operation operation = OperationNamed(name);
    CopyFolder(scenario.folder(), copy.path());
    {
      const auto store = OpenStore(copy.path());
      ASSERT_TRUE(store.ok()) << store.status();
      ASSERT_EQ(operation.run(**store, scenario.known()), absl::OkStatus());
    }
    const std::set<uint64_t> before = PacksIn(scenario.folder());
    const std::set<uint64_t> after = PacksIn(copy.path());
    EXPECT_FALSE(std::includes(after.begin(), after.end(), before.begin(), before.end()))
        << "no pack gave way to another";
    EXPECT_FALSE(std::includes(before.begin(), before.end(), after.begin(), after.end()))
        << "no chunk moved";
    ASSERT_TRUE(std::filesystem::remove(copy.path() + "/packs/CURRENT"));
    EXPECT_EQ(scenario.Check(copy.path(), operation, /*acknowledged=*/true),
              absl::OkStatus());
  }
}

}  // namespace
}  // namespace modelstore::storage
