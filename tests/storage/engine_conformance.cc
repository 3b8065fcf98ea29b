#include "tests/storage/engine_conformance.h"

#include <gmock/gmock.h>

#include <algorithm>
#include <atomic>
#include <thread>
#include <utility>
#include <vector>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"

namespace modelstore::storage {

using ::testing::AnyOf;
using ::testing::ElementsAre;
using ::testing::IsEmpty;
using ::testing::UnorderedElementsAre;

void EngineConformance::SetUp() {
  fixture_ = GetParam().make_fixture();
  Reopen();
}

void EngineConformance::TearDown() { Close(); }

void EngineConformance::Reopen() {
  Close();
  absl::StatusOr<Engine> engine = fixture_->Open();
  ASSERT_TRUE(engine.ok()) << engine.status();
  engine_ = *std::move(engine);
  const absl::Status status = chunks().Reopen({});
  ASSERT_TRUE(status.ok()) << status;
}

std::string EngineConformance::Value(const std::string& key) {
  const auto value = catalog().Get(Space::kRecords, key);
  if (!value.ok()) return std::string(absl::StatusCodeToString(value.status().code()));
  return value->value_or("absent");
}

absl::Status EngineConformance::Put(const std::string& key, const std::string& value,
                                    Durability durability) {
  CatalogBatch batch;
  batch.Put(Space::kRecords, key, value);
  return catalog().Write(batch, durability);
}

std::string EngineConformance::Keys(const KeyRange& range) {
  std::vector<std::string> keys;
  const absl::Status status = catalog().Scan(
      Space::kRecords, range, [&](absl::string_view key, absl::string_view) {
        keys.emplace_back(key);
        return true;
      });
  return status.ok() ? absl::StrJoin(keys, " ") : status.ToString();
}

absl::Status EngineConformance::WritePack(uint64_t pack,
                                          const std::vector<std::string>& contents) {
  auto writer = chunks().NewPack(pack);
  if (!writer.ok()) return writer.status();
  for (const std::string& chunk : contents) {
    const auto id = (*writer)->Append(chunk);
    if (!id.ok()) return id.status();
  }
  const absl::Status status = (*writer)->Finish();
  if (!status.ok()) return status;
  return chunks().Publish(*std::move(writer));
}

std::string EngineConformance::Chunk(uint64_t pack, uint32_t sequence) {
  const auto bytes = chunks().Read({pack, sequence});
  if (!bytes.ok()) return std::string(absl::StatusCodeToString(bytes.status().code()));
  return std::string(bytes->view());
}

std::vector<uint64_t> EngineConformance::Packs() {
  std::vector<uint64_t> ids;
  const auto packs = chunks().ListPacks();
  EXPECT_TRUE(packs.ok()) << packs.status();
  if (!packs.ok()) return ids;
  for (const PackInfo& info : *packs) ids.push_back(info.pack);
  std::sort(ids.begin(), ids.end());
  return ids;
}

namespace {

TEST_P(EngineConformance, AWrittenValueIsRead) {
  ASSERT_TRUE(Put("a", "1").ok());
  ASSERT_TRUE(Put("b", "", Durability::kBuffered).ok());
  EXPECT_EQ(Value("a"), "1");
  EXPECT_EQ(Value("b"), "");
  EXPECT_EQ(Value("c"), "absent");
}

TEST_P(EngineConformance, KeysAndValuesAreBytes) {
  const std::string key("\0\xff\n k", 5);
  const std::string value = TestBytes(100'000, 1);
  ASSERT_TRUE(Put(key, value).ok());
  EXPECT_EQ(Value(key), value);
}

TEST_P(EngineConformance, ALaterChangeOfAKeyWinsWithinABatch) {
  CatalogBatch batch;
  batch.Put(Space::kRecords, "a", "1");
  batch.Delete(Space::kRecords, "a");
  batch.Put(Space::kRecords, "b", "1");
  batch.Put(Space::kRecords, "b", "2");
  ASSERT_TRUE(catalog().Write(batch, Durability::kDurable).ok());
  EXPECT_EQ(Value("a"), "absent");
  EXPECT_EQ(Value("b"), "2");
}

TEST_P(EngineConformance, SpacesAreApart) {
  CatalogBatch batch;
  batch.Put(Space::kManifests, "a", "manifest");
  batch.Put(Space::kChunks, "a", "chunk");
  ASSERT_TRUE(catalog().Write(batch, Durability::kDurable).ok());
  EXPECT_EQ(Value("a"), "absent");
  EXPECT_EQ(*catalog().Get(Space::kManifests, "a"), "manifest");
  EXPECT_EQ(*catalog().Get(Space::kChunks, "a"), "chunk");
}

TEST_P(EngineConformance, AnExpectationThatDiffersAbortsTheWholeBatch) {
  ASSERT_TRUE(Put("a", "1").ok());
  for (const std::optional<std::string>& expected :
       {std::optional<std::string>("2"), std::optional<std::string>()}) {
    CatalogBatch batch;
    batch.Expect(Space::kRecords, "a", expected);
    batch.Put(Space::kRecords, "b", "2");
    const absl::Status status = catalog().Write(batch, Durability::kDurable);
    EXPECT_TRUE(absl::IsAborted(status)) << status;
    EXPECT_FALSE(IsUndecided(status));
    EXPECT_EQ(Value("b"), "absent");
  }
  CatalogBatch batch;
  batch.Expect(Space::kRecords, "a", "1");
  batch.Expect(Space::kRecords, "absent", std::nullopt);
  batch.Put(Space::kRecords, "a", "2");
  EXPECT_TRUE(catalog().Write(batch, Durability::kDurable).ok());
  EXPECT_EQ(Value("a"), "2");
}

TEST_P(EngineConformance, ConcurrentConditionalWritesLoseNone) {
  constexpr int kThreads = 4;
  constexpr int kEach = 25;
  ASSERT_TRUE(Put("n", "0").ok());
  std::vector<std::thread> threads;
  for (int t = 0; t < kThreads; ++t) {
    threads.emplace_back([&] {
      for (int done = 0; done < kEach;) {
        const std::string before = Value("n");
        int n = 0;
        ASSERT_TRUE(absl::SimpleAtoi(before, &n));
        CatalogBatch batch;
        batch.Expect(Space::kRecords, "n", before);
        batch.Put(Space::kRecords, "n", absl::StrCat(n + 1));
        const absl::Status status = catalog().Write(batch, Durability::kDurable);
        ASSERT_TRUE(status.ok() || absl::IsAborted(status)) << status;
        if (status.ok()) ++done;
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(Value("n"), absl::StrCat(kThreads * kEach));
}

TEST_P(EngineConformance, AScanVisitsItsRangeInOrderEitherWay) {
  for (const char* key : {"b", "a", "c", "ab", "b\xff", "d"})
    ASSERT_TRUE(Put(key, "").ok());
  EXPECT_EQ(Keys({}), "a ab b b\xff c d");
  EXPECT_EQ(Keys({"ab", "c", false}), "ab b b\xff");
  EXPECT_EQ(Keys({"ab", "c", true}), "b\xff b ab");
  EXPECT_EQ(Keys({"c", "", true}), "d c");
  EXPECT_EQ(Keys({"x", "", false}), "");
  EXPECT_EQ(Keys({"c", "a", false}), "");
  EXPECT_EQ(Keys(PrefixRange("b")), "b b\xff");
  EXPECT_EQ(Keys(PrefixRange("b\xff")), "b\xff");
}

TEST_P(EngineConformance, AScanEndsWhereItsVisitorSays) {
  for (const char* key : {"a", "b", "c"}) ASSERT_TRUE(Put(key, key).ok());
  std::string seen;
  ASSERT_TRUE(catalog()
                  .Scan(Space::kRecords, {},
                        [&](absl::string_view key, absl::string_view value) {
                          EXPECT_EQ(key, value);
                          seen.append(key.data(), key.size());
                          return seen.size() < 2;
                        })
                  .ok());
  EXPECT_EQ(seen, "ab");
}

TEST_P(EngineConformance, AScanSeesOneState) {
  for (const char* key : {"a", "b"}) ASSERT_TRUE(Put(key, "old").ok());
  std::vector<std::string> seen;
  ASSERT_TRUE(catalog()
                  .Scan(Space::kRecords, {},
                        [&](absl::string_view key, absl::string_view value) {
                          seen.push_back(absl::StrCat(key, "=", value));
                          EXPECT_TRUE(Put("b", "new").ok());
                          EXPECT_TRUE(Put("c", "new").ok());
                          return true;
                        })
                  .ok());
  EXPECT_THAT(seen, ElementsAre("a=old", "b=old"));
}

TEST_P(EngineConformance, ADurableWriteAndAllBeforeItOutliveALossOfPower) {
  ASSERT_TRUE(Put("a", "1", Durability::kBuffered).ok());
  ASSERT_TRUE(Put("b", "2", Durability::kDurable).ok());
  ASSERT_TRUE(Put("c", "3", Durability::kBuffered).ok());
  Close();
  fixture().LosePower();
  Reopen();
  EXPECT_EQ(Value("a"), "1");
  EXPECT_EQ(Value("b"), "2");
  EXPECT_THAT(Value("c"), AnyOf("3", "absent"));
  ASSERT_TRUE(Put("d", "4").ok());
  Close();
  fixture().LosePower();
  Reopen();
  EXPECT_EQ(Value("b"), "2");
  EXPECT_EQ(Value("d"), "4");
}

TEST_P(EngineConformance, EverythingOutlivesAnOrderlyClose) {
  ASSERT_TRUE(Put("a", "1", Durability::kBuffered).ok());
  ASSERT_TRUE(WritePack(7, {"chunk"}).ok());
  Reopen();
  EXPECT_EQ(Value("a"), "1");
  EXPECT_EQ(Chunk(7, 0), "chunk");
}

TEST_P(EngineConformance, AnUndecidedWriteIsSettledByReopening) {
  ASSERT_TRUE(Put("a", "1").ok());
  fixture().Fail(EngineFixture::Call::kCatalogWrite, /*for_good=*/false);
  CatalogBatch batch;
  batch.Put(Space::kRecords, "a", "2");
  batch.Put(Space::kRecords, "b", "2");
  const absl::Status status = catalog().Write(batch, Durability::kDurable);
  ASSERT_TRUE(IsUndecided(status)) << status;
  EXPECT_TRUE(absl::IsUnavailable(status)) << status;

  EXPECT_TRUE(absl::IsUnavailable(catalog().Health()));
  EXPECT_EQ(Value("a"), "UNAVAILABLE");
  EXPECT_TRUE(absl::IsUnavailable(Put("c", "3")));
  EXPECT_TRUE(absl::IsUnavailable(catalog().Scan(
      Space::kRecords, {}, [](absl::string_view, absl::string_view) { return true; })));

  ASSERT_TRUE(catalog().Reopen().ok());
  EXPECT_TRUE(catalog().Health().ok());
  EXPECT_THAT(absl::StrCat(Value("a"), " ", Value("b")), AnyOf("1 absent", "2 2"));
  EXPECT_EQ(Value("c"), "absent");
  EXPECT_TRUE(Put("c", "3").ok());
}

TEST_P(EngineConformance, ACatalogThatCannotBeReopenedStaysUnavailableUntilItCan) {
  ASSERT_TRUE(Put("a", "1").ok());
  fixture().Fail(EngineFixture::Call::kCatalogWrite, /*for_good=*/true);
  ASSERT_FALSE(Put("a", "2").ok());
  catalog().Reopen().IgnoreError();
  ASSERT_FALSE(Put("a", "3").ok());
  fixture().StopFailing();
  ASSERT_TRUE(catalog().Reopen().ok());
  EXPECT_THAT(Value("a"), AnyOf("1", "2", "3"));
  EXPECT_TRUE(Put("a", "4").ok());
  EXPECT_EQ(Value("a"), "4");
}

TEST_P(EngineConformance, AFullDiskRefusesWritesAndServesReads) {
  ASSERT_TRUE(Put("a", "1").ok());
  ASSERT_TRUE(WritePack(1, {"chunk"}).ok());
  fixture().SetFull(true);
  for (int i = 0; i < 3; ++i) {
    const absl::Status status = Put("b", std::string(10'000, 'x'));
    EXPECT_TRUE(absl::IsResourceExhausted(status)) << status;
    EXPECT_FALSE(IsUndecided(status));
  }
  EXPECT_FALSE(WritePack(2, {TestBytes(1 << 20, 1)}).ok());
  EXPECT_EQ(Value("a"), "1");
  EXPECT_EQ(Value("b"), "absent");
  EXPECT_EQ(Chunk(1, 0), "chunk");
  fixture().SetFull(false);
  EXPECT_TRUE(catalog().Health().ok());
  EXPECT_TRUE(Put("b", "2").ok());
  EXPECT_TRUE(WritePack(3, {"more"}).ok());
  EXPECT_EQ(Chunk(3, 0), "more");
}

TEST_P(EngineConformance, ReopeningAHealthyCatalogLosesNothing) {
  ASSERT_TRUE(Put("a", "1", Durability::kBuffered).ok());
  ASSERT_TRUE(catalog().Reopen().ok());
  EXPECT_EQ(Value("a"), "1");
}

TEST_P(EngineConformance, ReopeningUnderLoadFailsOnlyWithUnavailable) {
  for (int i = 0; i < 100; ++i) {
    ASSERT_TRUE(Put(absl::StrCat("k", i), "v", Durability::kBuffered).ok());
  }
  const std::string bytes = TestBytes(200'000, 3);
  ASSERT_TRUE(WritePack(1, {bytes}).ok());
  std::atomic<bool> done{false};
  std::vector<std::thread> threads;
  threads.emplace_back([&] {
    while (!done) EXPECT_THAT(Value("k1"), AnyOf("v", "UNAVAILABLE"));
  });
  threads.emplace_back([&] {
    while (!done) {
      int seen = 0;
      const absl::Status status = catalog().Scan(
          Space::kRecords, {},
          [&](absl::string_view, absl::string_view) { return ++seen > 0; });
      EXPECT_TRUE(status.ok() ? seen == 100 : absl::IsUnavailable(status)) << status;
    }
  });
  threads.emplace_back([&] {
    while (!done) {
      const std::string read = Chunk(1, 0);
      EXPECT_TRUE(read == bytes || read == "UNAVAILABLE");
    }
  });
  for (int i = 0; i < 5; ++i) {
    EXPECT_TRUE(catalog().Reopen().ok());
    const uint64_t expected[] = {1};
    EXPECT_TRUE(chunks().Reopen(expected).ok());
  }
  done = true;
  for (std::thread& thread : threads) thread.join();
}

TEST_P(EngineConformance, AChunkStoreStartsClosed) {
  Close();
  absl::StatusOr<Engine> engine = fixture().Open();
  ASSERT_TRUE(engine.ok()) << engine.status();
  EXPECT_TRUE(absl::IsUnavailable(engine->chunks->Health()));
  EXPECT_TRUE(absl::IsUnavailable(engine->chunks->NewPack(1).status()));
  EXPECT_TRUE(absl::IsUnavailable(engine->chunks->Read({1, 0}).status()));
  EXPECT_TRUE(absl::IsUnavailable(engine->chunks->ListPacks().status()));
}

TEST_P(EngineConformance, ChunksOfAllSizesReadBack) {
  std::vector<std::string> contents;
  for (const size_t size : {0, 1, 1000, 16'000, 65'536, 100'000, 1 << 20, 4 << 20, 3}) {
    contents.push_back(TestBytes(size, size + 1));
  }
  auto writer = chunks().NewPack(5);
  ASSERT_TRUE(writer.ok()) << writer.status();
  EXPECT_EQ((*writer)->pack(), 5u);
  int64_t bytes = 0;
  for (size_t i = 0; i < contents.size(); ++i) {
    const auto id = (*writer)->Append(contents[i]);
    ASSERT_TRUE(id.ok()) << id.status();
    EXPECT_EQ(*id, (ChunkId{5, static_cast<uint32_t>(i)}));
    bytes += static_cast<int64_t>(contents[i].size());
    EXPECT_EQ((*writer)->size_bytes(), bytes);
  }
  ASSERT_TRUE((*writer)->Finish().ok());
  ASSERT_TRUE(chunks().Publish(*std::move(writer)).ok());
  for (size_t i = 0; i < contents.size(); ++i) {
    EXPECT_TRUE(Chunk(5, static_cast<uint32_t>(i)) == contents[i]) << i;
  }
  EXPECT_EQ(Chunk(5, static_cast<uint32_t>(contents.size())), "NOT_FOUND");
  const auto packs = chunks().ListPacks();
  ASSERT_TRUE(packs.ok());
  ASSERT_EQ(packs->size(), 1u);
  EXPECT_GE((*packs)[0].size_bytes, bytes);
  EXPECT_LE((*packs)[0].size_bytes, bytes + 16'384);
}

TEST_P(EngineConformance, NumbersThatWereLeftOutHaveNoChunk) {
  auto writer = chunks().NewPack(8);
  ASSERT_TRUE(writer.ok()) << writer.status();
  ASSERT_EQ((*writer)->Append("zero")->sequence, 0u);
  (*writer)->Skip(3);
  ASSERT_EQ((*writer)->Append("four")->sequence, 4u);
  ASSERT_EQ((*writer)->Append("five")->sequence, 5u);
  ASSERT_TRUE((*writer)->Finish().ok());
  ASSERT_TRUE(chunks().Publish(*std::move(writer)).ok());
  for (const bool after_power_loss : {false, true}) {
    if (after_power_loss) {
      Close();
      fixture().LosePower();
      Reopen();
    }
    EXPECT_EQ(Chunk(8, 0), "zero");
    EXPECT_EQ(Chunk(8, 4), "four");
    EXPECT_EQ(Chunk(8, 5), "five");
    for (uint32_t absent : {1u, 3u, 6u}) EXPECT_EQ(Chunk(8, absent), "NOT_FOUND");
  }
}

TEST_P(EngineConformance, NothingOfAPackIsVisibleBeforeItIsPublished) {
  auto writer = chunks().NewPack(1);
  ASSERT_TRUE(writer.ok());
  ASSERT_TRUE((*writer)->Append("chunk").ok());
  EXPECT_EQ(Chunk(1, 0), "NOT_FOUND");
  ASSERT_TRUE((*writer)->Finish().ok());
  EXPECT_EQ(Chunk(1, 0), "NOT_FOUND");
  EXPECT_THAT(Packs(), IsEmpty());
  ASSERT_TRUE(chunks().Publish(*std::move(writer)).ok());
  EXPECT_EQ(Chunk(1, 0), "chunk");
  EXPECT_THAT(Packs(), ElementsAre(1u));
}

TEST_P(EngineConformance, AnUnfinishedPackIsNotPublished) {
  auto writer = chunks().NewPack(1);
  ASSERT_TRUE(writer.ok());
  ASSERT_TRUE((*writer)->Append("chunk").ok());
  EXPECT_TRUE(absl::IsFailedPrecondition(chunks().Publish(*std::move(writer))));
  EXPECT_THAT(Packs(), IsEmpty());
}

TEST_P(EngineConformance, PacksAreWrittenSideBySide) {
  std::vector<std::thread> threads;
  for (uint64_t pack = 1; pack <= 4; ++pack) {
    threads.emplace_back([this, pack] {
      std::vector<std::string> contents;
      for (uint64_t i = 0; i < 20; ++i)
        contents.push_back(TestBytes(30'000, 100 * pack + i));
      const absl::Status status = WritePack(pack, contents);
      EXPECT_TRUE(status.ok()) << status;
    });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_THAT(Packs(), ElementsAre(1u, 2u, 3u, 4u));
  for (uint64_t pack = 1; pack <= 4; ++pack) {
    for (uint32_t i = 0; i < 20; ++i) {
      EXPECT_TRUE(Chunk(pack, i) == TestBytes(30'000, 100 * pack + i));
    }
  }
}

TEST_P(EngineConformance, APublishedPackOutlivesALossOfPower) {
  const std::string bytes = TestBytes(300'000, 9);
  ASSERT_TRUE(WritePack(1, {bytes, "small"}).ok());
  auto writer = chunks().NewPack(2);
  ASSERT_TRUE(writer.ok());
  ASSERT_TRUE((*writer)->Append(bytes).ok());
  ASSERT_TRUE((*writer)->Finish().ok());
  writer->reset();
  Close();
  fixture().LosePower();
  Reopen();
  EXPECT_THAT(Packs(), ElementsAre(1u));
  EXPECT_TRUE(Chunk(1, 0) == bytes);
  EXPECT_EQ(Chunk(1, 1), "small");
}

TEST_P(EngineConformance, ADroppedPackIsMissingAndItsNeighboursStay) {
  for (uint64_t pack : {1, 2, 3}) ASSERT_TRUE(WritePack(pack, {absl::StrCat(pack)}).ok());
  const uint64_t drop[] = {2, 77};
  ASSERT_TRUE(chunks().DropPacks(drop).ok());
  EXPECT_EQ(Chunk(2, 0), "NOT_FOUND");
  EXPECT_THAT(Packs(), ElementsAre(1u, 3u));
  Reopen();
  EXPECT_THAT(Packs(), ElementsAre(1u, 3u));
  EXPECT_EQ(Chunk(1, 0), "1");
  EXPECT_EQ(Chunk(3, 0), "3");
  ASSERT_TRUE(chunks().DropPacks({}).ok());
}

TEST_P(EngineConformance, PinnedBytesOutliveTheirPackAndTheirEngine) {
  const std::string large = TestBytes(4 << 20, 4);
  ASSERT_TRUE(WritePack(1, {large, "small"}).ok());
  auto first = chunks().Read({1, 0});
  auto second = chunks().Read({1, 1});
  ASSERT_TRUE(first.ok() && second.ok());
  const uint64_t drop[] = {1};
  ASSERT_TRUE(chunks().DropPacks(drop).ok());
  EXPECT_TRUE(first->view() == large);
  ASSERT_TRUE(chunks().Reopen({}).ok());
  EXPECT_TRUE(first->view() == large);
  Close();
  EXPECT_TRUE(first->view() == large);
  EXPECT_EQ(second->view(), "small");
}

TEST_P(EngineConformance, PacksOfOneLayoutAreNotTakenForEachOther) {
  const std::string a = TestBytes(600'000, 1), b = TestBytes(600'000, 2),
                    c = TestBytes(600'000, 3);
  ASSERT_TRUE(WritePack(1, {a, "a"}).ok());
  ASSERT_TRUE(WritePack(2, {b, "b"}).ok());
  auto first = chunks().Read({1, 0});
  auto second = chunks().Read({2, 0});
  ASSERT_TRUE(first.ok() && second.ok());
  // Blocks that are held across a reopening stay in the engine's tables.
  const uint64_t expected[] = {1, 2};
  ASSERT_TRUE(chunks().Reopen(expected).ok());
  ASSERT_TRUE(WritePack(3, {c, "c"}).ok());
  EXPECT_TRUE(Chunk(3, 0) == c);
  EXPECT_TRUE(Chunk(2, 0) == b);
  EXPECT_TRUE(Chunk(1, 0) == a);
  EXPECT_EQ(Chunk(1, 1) + Chunk(2, 1) + Chunk(3, 1), "abc");
  EXPECT_TRUE(first->view() == a);
  EXPECT_TRUE(second->view() == b);
}

TEST_P(EngineConformance, AFailedAppendOrFinishNeverBecomesAPack) {
  for (const auto call :
       {EngineFixture::Call::kPackAppend, EngineFixture::Call::kPackFinish}) {
    auto writer = chunks().NewPack(1 + static_cast<uint64_t>(call));
    ASSERT_TRUE(writer.ok()) << writer.status();
    fixture().Fail(call, /*for_good=*/true);
    // An engine may notice a failed append at the end only.
    (*writer)->Append(TestBytes(200'000, 1)).status().IgnoreError();
    EXPECT_FALSE((*writer)->Finish().ok());
    fixture().StopFailing();
    EXPECT_FALSE((*writer)->Finish().ok());
    EXPECT_FALSE(chunks().Publish(*std::move(writer)).ok());
    EXPECT_THAT(Packs(), IsEmpty());
  }
  EXPECT_TRUE(WritePack(50, {"chunk"}).ok());
  EXPECT_EQ(Chunk(50, 0), "chunk");
}

TEST_P(EngineConformance, AFailedPublishLeavesThePackWholeOrAbsent) {
  ASSERT_TRUE(WritePack(1, {"before"}).ok());
  fixture().Fail(EngineFixture::Call::kPackPublish, /*for_good=*/false);
  EXPECT_FALSE(WritePack(2, {"a", "b"}).ok());
  fixture().StopFailing();
  const uint64_t expected[] = {1, 2};
  ASSERT_TRUE(chunks().Reopen(expected).ok());
  EXPECT_THAT(absl::StrCat(Chunk(2, 0), " ", Chunk(2, 1)),
              AnyOf("a b", "NOT_FOUND NOT_FOUND"));
  EXPECT_EQ(Chunk(1, 0), "before");
  EXPECT_TRUE(WritePack(3, {"after"}).ok());
  EXPECT_EQ(Chunk(3, 0), "after");
}

TEST_P(EngineConformance, AFailedDropIsRepeated) {
  ASSERT_TRUE(WritePack(1, {"one"}).ok());
  ASSERT_TRUE(WritePack(2, {"two"}).ok());
  const uint64_t drop[] = {1};
  fixture().Fail(EngineFixture::Call::kPackDrop, /*for_good=*/false);
  EXPECT_FALSE(chunks().DropPacks(drop).ok());
  fixture().StopFailing();
  const uint64_t expected[] = {1, 2};
  ASSERT_TRUE(chunks().Reopen(expected).ok());
  EXPECT_THAT(Chunk(1, 0), AnyOf("one", "NOT_FOUND"));
  EXPECT_TRUE(chunks().DropPacks(drop).ok());
  EXPECT_THAT(Packs(), ElementsAre(2u));
  EXPECT_EQ(Chunk(2, 0), "two");
}

TEST_P(EngineConformance, AFlippedBitDamagesOnlyItsChunk) {
  const std::string bytes = TestBytes(100'000, 5);
  ASSERT_TRUE(WritePack(1, {bytes, bytes}).ok());
  ASSERT_TRUE(WritePack(2, {bytes}).ok());
  Close();
  fixture().FlipBit({1, 1});
  Reopen();
  EXPECT_TRUE(Chunk(1, 0) == bytes);
  EXPECT_FALSE(Chunk(1, 1) == bytes);
  EXPECT_TRUE(Chunk(2, 0) == bytes);
}

}  // namespace
}  // namespace modelstore::storage
