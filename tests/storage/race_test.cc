// Many threads at once. Meant for ThreadSanitizer as well.
#include <gtest/gtest.h>

#include <atomic>
#include <random>
#include <thread>

#include "storage/space.h"
#include "tests/storage/store_fixture.h"
#include "tests/support/seed.h"

namespace modelstore::storage {
namespace {

TEST(RaceTest, WritersOfOneModelLoseNoVersionAndGetNoNumberTwice) {
  constexpr int kWriters = 8, kSaves = 25;
  StoreFixture fixture;
  std::vector<std::thread> writers;
  Mutex mutex;
  std::map<int64_t, TestContent> saved;
  for (int w = 0; w < kWriters; ++w) {
    writers.emplace_back([&, w] {
      for (int i = 0; i < kSaves; ++i) {
        const TestContent content = RandomContent(w * 1000 + i, 1, 100);
        const auto record = SaveOneShot(fixture.store(), content);
        ASSERT_OK(record.status());
        MutexLock lock(mutex);
        EXPECT_TRUE(saved.emplace(record->version(), content).second);
      }
    });
  }
  for (std::thread& writer : writers) writer.join();
  ASSERT_EQ(saved.size(), static_cast<size_t>(kWriters * kSaves));
  EXPECT_EQ(saved.rbegin()->first, kWriters * kSaves);
  for (const auto& [version, content] : saved) {
    EXPECT_EQ(*LoadAll(fixture.store(), version), Expected(content));
  }
}

TEST(RaceTest, OfTwoWritersThatExpectTheSameLatestOneWins) {
  StoreFixture fixture;
  ASSERT_OK(SaveOneShot(fixture.store(), RandomContent(0, 1, 10)).status());
  for (int64_t latest = 1; latest <= 20; ++latest) {
    std::atomic<int> won{0}, aborted{0};
    std::vector<std::thread> writers;
    for (int w = 0; w < 2; ++w) {
      writers.emplace_back([&, w] {
        const auto saved =
            SaveByUpload(fixture.store(), RandomContent(latest * 2 + w, 1, 99),
                         {.expected_latest = latest});
        if (saved.ok()) ++won;
        if (absl::IsAborted(saved.status())) ++aborted;
      });
    }
    for (std::thread& writer : writers) writer.join();
    ASSERT_EQ(won, 1);
    ASSERT_EQ(aborted, 1);
  }
}

TEST(RaceTest, OneRequestSentByManyAtOnceMakesOneVersion) {
  StoreFixture fixture;
  const TestContent content = RandomContent(1, 2, 500 << 10);
  std::vector<std::thread> senders;
  for (int s = 0; s < 6; ++s) {
    senders.emplace_back([&] {
      const auto saved = SaveOneShot(fixture.store(), content, {.request_id = "r"});
      ASSERT_OK(saved.status());
      EXPECT_EQ(saved->version(), 1);
    });
  }
  for (std::thread& sender : senders) sender.join();
  EXPECT_EQ(fixture.store().models().Get("m")->checkpoint_count(), 1);
  // Those that were too late have left nothing.
  EXPECT_LT(fixture.UsedAfterCollection(), (1000 << 10) + (16 << 10));
}

TEST(RaceTest, OneUploadCommittedByManyAtOnceMakesOneVersion) {
  StoreFixture fixture;
  const TestContent content = RandomContent(1, 2, 500 << 10);
  Uploads& uploads = fixture.store().uploads();
  const std::string id = uploads.Create(RequestOf({}), 1, {})->upload_id();
  const std::shared_ptr<Upload> upload = *uploads.Open("m", id);
  ASSERT_OK(PutAll(**upload->OpenSink(), ChunksOf(content)));
  ASSERT_OK(upload->AddManifest(0, PartOf(content), true, true));
  std::vector<std::thread> committers;
  for (int c = 0; c < 6; ++c) {
    committers.emplace_back([&, c] {
      const auto version =
          c % 2 == 0 ? upload->Commit({}) : NamedUpload(uploads, "m", id).Commit({});
      EXPECT_EQ(version->version(), 1);
    });
  }
  for (std::thread& committer : committers) committer.join();
  EXPECT_EQ(fixture.store().models().Get("m")->checkpoint_count(), 1);
}

// Saves, loads, deletions, uploads given up and collections, all at once: every
// load gives the right bytes or finds its version deleted, and in the end the
// disk holds what the versions need.
TEST(RaceTest, EverythingAtOnceKeepsItsPromises) {
  StoreFixture fixture;
  CheckpointStore& store = fixture.store();
  std::atomic<bool> stop{false};
  std::atomic<int64_t> saves{0}, loads{0}, deletions{0}, collections{0};
  Mutex mutex;
  std::map<int64_t, TestContent> versions;
  const uint64_t seed = TestSeed();
  auto saver = [&](uint64_t number) {
    std::mt19937_64 random(seed + number);
    TestContent content = RandomContent(random(), 6, 150 << 10);
    for (int i = 0; i < 40; ++i) {
      // Some tensors stay, so that versions share packs.
      content[random() % 6] = RandomContent(random(), 6, 150 << 10)[random() % 6];
      for (int t = 0; t < 6; ++t) content[t].key = "t" + std::to_string(t);
      const auto saved =
          random() % 2 == 0 ? SaveOneShot(store, content) : SaveByUpload(store, content);
      ASSERT_OK(saved.status());
      ++saves;
      MutexLock lock(mutex);
      versions[saved->version()] = content;
    }
  };
  auto pick = [&](std::mt19937_64& random) -> std::pair<int64_t, TestContent> {
    MutexLock lock(mutex);
    if (versions.empty()) return {0, {}};
    return *std::next(versions.begin(), static_cast<int>(random() % versions.size()));
  };
  auto loader = [&](uint64_t number) {
    std::mt19937_64 random(seed + number);
    while (!stop) {
      const auto [version, content] = pick(random);
      if (version == 0) continue;
      const auto loaded = LoadAll(store, version);
      if (absl::IsNotFound(loaded.status())) continue;
      ASSERT_OK(loaded.status());
      ASSERT_EQ(*loaded, Expected(content)) << version;
      ++loads;
    }
  };
  auto deleter = [&] {
    std::mt19937_64 random(seed + 77);
    while (!stop) {
      const int64_t version = pick(random).first;
      absl::SleepFor(absl::Milliseconds(3));
      if (version == 0) continue;
      {
        MutexLock lock(mutex);
        versions.erase(version);
      }
      ASSERT_OK(store.checkpoints().Delete("m", version, {}).status());
      ++deletions;
    }
  };
  auto collector = [&] {
    while (!stop) {
      ASSERT_OK(store.maintenance().CollectGarbage(false, nullptr).status());
      ++collections;
    }
  };
  auto quitter = [&] {
    std::mt19937_64 random(seed + 99);
    while (!stop) {
      const auto upload = store.uploads().Create(RequestOf({}), 1, {});
      ASSERT_OK(upload.status());
      auto sink = NamedUpload(store.uploads(), "m", upload->upload_id()).OpenSink();
      ASSERT_OK(sink.status());
      for (const auto& chunk : ChunksOf(RandomContent(random(), 1, 1 << 20))) {
        ASSERT_OK((*sink)->Put(DigestOf(chunk), {chunk}).status());
      }
      ASSERT_OK(NamedUpload(store.uploads(), "m", upload->upload_id()).Delete());
    }
  };
  std::vector<std::thread> savers, others;
  for (uint64_t s = 0; s < 3; ++s) savers.emplace_back(saver, s);
  others.emplace_back(loader, 10);
  others.emplace_back(loader, 11);
  others.emplace_back(deleter);
  others.emplace_back(collector);
  others.emplace_back(quitter);
  for (std::thread& thread : savers) thread.join();
  stop = true;
  for (std::thread& thread : others) thread.join();
  for (const auto& [version, content] : versions) {
    const auto loaded = LoadAll(store, version);
    ASSERT_OK(loaded.status());
    EXPECT_EQ(*loaded, Expected(content));
  }
  std::printf("%d saves, %d loads, %d deletions, %d collections at once\n",
              static_cast<int>(saves), static_cast<int>(loads),
              static_cast<int>(deletions), static_cast<int>(collections));
  ASSERT_OK(store.models().Delete("m", true, {}).status());
  EXPECT_LT(fixture.UsedAfterCollection(), 100);
}

TEST(SpaceTest, PromisesToRunningSavesCountAsUsed) {
  int64_t free = 40 << 20;
  SpaceAdmission space([&] { return absl::StatusOr<int64_t>(free); }, 4 << 20);
  {
    SpaceGrant one(&space), two(&space), three(&space);
    EXPECT_OK(one.Take(1));
    EXPECT_OK(two.Take(1));
    // 36 MiB beside the reserve, of which each has taken a step of 16.
    EXPECT_EQ(space.reserved_bytes(), (32 << 20) - 2);
    EXPECT_OK(three.Take(1 << 20));
    EXPECT_TRUE(absl::IsResourceExhausted(three.Take(5 << 20)));
    EXPECT_TRUE(absl::IsResourceExhausted(space.CheckSpace(5 << 20)));
    free += 100 << 20;
    EXPECT_OK(three.Take(5 << 20));
  }
  EXPECT_EQ(space.reserved_bytes(), 0);
  free = 3 << 20;
  absl::SleepFor(absl::Milliseconds(150));  // the figure is not asked for each time
  EXPECT_TRUE(absl::IsResourceExhausted(space.CheckSpace(1)));
}

TEST(SpaceTest, AFullDiskReportsHowMuchMustBeFreed) {
  SpaceAdmission space([] { return absl::StatusOr<int64_t>(1000); }, 4000);
  EXPECT_EQ(
      space.CheckSpace(0).message(),
      "the disk is full: at least 3000 bytes must be freed: 1000 are free, of which "
      "4000 are kept in reserve and 0 are promised to running saves; delete "
      "checkpoints or add space");
  EXPECT_EQ(space.CheckSpace(50).message(),
            "the disk is full: 50 bytes do not fit, at least 3050 bytes must be freed: "
            "1000 are free, of which 4000 are kept in reserve and 0 are promised to "
            "running saves; delete checkpoints or add space");
}

TEST(SpaceTest, AGrantIsGivenBackAndTakenAgain) {
  SpaceAdmission space([] { return absl::StatusOr<int64_t>(40 << 20); }, 0);
  SpaceGrant grant(&space);
  EXPECT_OK(grant.Take(1));
  EXPECT_EQ(space.reserved_bytes(), (16 << 20) - 1);
  grant.ReturnUnused();
  EXPECT_EQ(space.reserved_bytes(), 0);
  EXPECT_OK(grant.Take(1));
  EXPECT_EQ(space.reserved_bytes(), (16 << 20) - 1);
}

}  // namespace
}  // namespace modelstore::storage
