// What deletion frees and when, what readers keep, what is told about it.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <thread>

#include "absl/strings/str_cat.h"
#include "storage/core.h"
#include "storage/keys.h"
#include "storage/resolve.h"
#include "tests/storage/store_fixture.h"
#include "tests/support/random_bytes.h"

namespace modelstore::storage {
namespace {

using support::RandomBytes;

constexpr size_t kMiB = size_t{1} << 20;

class DeletionTest : public ::testing::Test {
 protected:
  Freed Delete(int64_t version, const std::string& model = "m") {
    const auto freed = fixture_.store().checkpoints().Delete(model, version, {});
    EXPECT_OK(freed.status());
    return freed.ok() ? *freed : Freed();
  }
  GarbageResult Collect(bool validate_only = false) {
    const auto result =
        fixture_.store().maintenance().CollectGarbage(validate_only, nullptr);
    EXPECT_OK(result.status());
    return result.ok() ? *result : GarbageResult();
  }
  void SetGrace(absl::Duration grace) {
    fixture_.options().grace = grace;
    ASSERT_OK(fixture_.Reopen());
  }

  StoreFixture fixture_;
};

TEST_F(DeletionTest, TheBytesOfTheOnlyVersionGoAtOnce) {
  for (const size_t bytes : {size_t{100}, 3 * kMiB}) {
    const auto saved =
        SaveOneShot(fixture_.store(), RandomContent(1, 2, bytes), {.model = "x"});
    ASSERT_OK(saved.status());
    const Freed freed = Delete(saved->version(), "x");
    EXPECT_EQ(freed.freed_bytes, static_cast<int64_t>(2 * bytes));
    EXPECT_EQ(freed.waiting_bytes, 0);
    EXPECT_TRUE(fixture_.Packs().empty());
    // The model's own record, and the store's.
    EXPECT_LT(fixture_.disk().used_bytes(), 300);
  }
}

TEST_F(DeletionTest, TheVersionIsMissingAtOnceWhateverItsBytesWaitFor) {
  SetGrace(absl::Seconds(60));
  ASSERT_OK(SaveOneShot(fixture_.store(), RandomContent(1, 1, 2 * kMiB)).status());
  const Freed freed = Delete(1);
  EXPECT_EQ(freed.freed_bytes, 0);
  EXPECT_EQ(freed.waiting_bytes, static_cast<int64_t>(2 * kMiB));
  EXPECT_TRUE(absl::IsNotFound(fixture_.store().reads().Open("m", 1).status()));
  EXPECT_TRUE(absl::IsNotFound(fixture_.store().checkpoints().Get("m", {}).status()));
  EXPECT_TRUE(
      absl::IsNotFound(fixture_.store().checkpoints().Delete("m", 1, {}).status()));
  EXPECT_EQ(Collect().waiting_bytes, static_cast<int64_t>(2 * kMiB));
  EXPECT_EQ(fixture_.store().maintenance().Stats()->waiting_bytes,
            static_cast<int64_t>(2 * kMiB));
  fixture_.Advance(absl::Seconds(61));
  const GarbageResult result = Collect();
  EXPECT_EQ(result.freed_bytes, static_cast<int64_t>(2 * kMiB));
  EXPECT_EQ(result.waiting_bytes, 0);
  EXPECT_TRUE(fixture_.Packs().empty());
}

TEST_F(DeletionTest, ARunningReadKeepsItsBytes) {
  const TestContent content = RandomContent(1, 3, 2 * kMiB);
  ASSERT_OK(SaveOneShot(fixture_.store(), content).status());
  auto read = fixture_.store().reads().Open("m", 1);
  ASSERT_OK(read.status());
  const Freed freed = Delete(1);
  EXPECT_EQ(freed.freed_bytes, 0);
  EXPECT_EQ(freed.waiting_bytes, static_cast<int64_t>(6 * kMiB));
  Collect();
  EXPECT_EQ(*LoadAll(**read), Expected(content));
  read->reset();
  EXPECT_EQ(Collect().freed_bytes, static_cast<int64_t>(6 * kMiB));
}

TEST_F(DeletionTest, ATokenReopensADeletedCheckpointWithinTheGraceTime) {
  SetGrace(absl::Seconds(60));
  const TestContent content = RandomContent(1, 1, 3 * kMiB);
  ASSERT_OK(SaveOneShot(fixture_.store(), content).status());
  auto read = fixture_.store().reads().Open("m", 1);
  ASSERT_OK(read.status());
  const std::string token = fixture_.store().reads().Token(**read);
  Delete(1);
  fixture_.Advance(absl::Seconds(100));
  read->reset();  // the grace time begins when the last read has gone
  Collect();
  fixture_.Advance(absl::Seconds(59));
  Collect();
  auto again = fixture_.store().reads().Reopen(token);
  ASSERT_OK(again.status());
  EXPECT_EQ((*again)->checkpoint().version(), 1);
  EXPECT_EQ(*LoadAll(**again), Expected(content));
  again->reset();
  fixture_.Advance(absl::Seconds(61));
  EXPECT_GT(Collect().freed_bytes, 0);
  EXPECT_TRUE(
      absl::IsFailedPrecondition(fixture_.store().reads().Reopen(token).status()));
  EXPECT_TRUE(
      absl::IsFailedPrecondition(fixture_.store().reads().Reopen("rubbish").status()));
}

TEST_F(DeletionTest, WithoutAGraceTimeATokenLeadsBackUntilTheCheckpointIsDeleted) {
  SetGrace(absl::ZeroDuration());
  const TestContent content = RandomContent(1, 1, 3 * kMiB);
  ASSERT_OK(SaveOneShot(fixture_.store(), content).status());
  auto read = fixture_.store().reads().Open("m", 1);
  ASSERT_OK(read.status());
  const std::string token = fixture_.store().reads().Token(**read);
  read->reset();
  fixture_.Advance(absl::Seconds(5));
  EXPECT_OK(fixture_.store().reads().Reopen(token).status());
  Delete(1);
  Collect();
  EXPECT_TRUE(
      absl::IsFailedPrecondition(fixture_.store().reads().Reopen(token).status()));
}

TEST_F(DeletionTest, SharedChunksStayAndTheRestOfTheirPackIsReportedTruthfully) {
  TestContent content = RandomContent(1, 4, kMiB);
  fixture_.options().pack_bytes = 16 << 20;
  ASSERT_OK(fixture_.Reopen());
  ASSERT_OK(SaveOneShot(fixture_.store(), content).status());
  const TestContent kept = {content[0], Vector("new", RandomBytes(9, 2 * kMiB))};
  ASSERT_OK(SaveOneShot(fixture_.store(), kept).status());
  const Freed freed = Delete(1);
  EXPECT_EQ(freed.freed_bytes, 0);
  EXPECT_EQ(freed.waiting_bytes, static_cast<int64_t>(3 * kMiB));
  const GarbageResult collected = Collect();
  EXPECT_EQ(collected.freed_bytes, static_cast<int64_t>(3 * kMiB));
  EXPECT_EQ(collected.reclaimable_bytes, 0);
  EXPECT_EQ(fixture_.store().maintenance().Stats()->reclaimable_bytes, 0);
  EXPECT_EQ(*LoadAll(fixture_.store(), 2), Expected(kept));
  // Another version uses the same part and one more of the new pack.
  ASSERT_OK(SaveOneShot(fixture_.store(), {content[0], kept[1]}).status());
  EXPECT_EQ(Collect().reclaimable_bytes, 0);
  Delete(2);
  Delete(3);
  EXPECT_EQ(Collect().reclaimable_bytes, 0);
  EXPECT_TRUE(fixture_.Packs().empty());
}

TEST_F(DeletionTest, TwoVersionsThatEachUseAPartOfAPackAreCountedChunkByChunk) {
  fixture_.options().pack_bytes = 16 << 20;
  ASSERT_OK(fixture_.Reopen());
  const TestContent content = RandomContent(1, 4, kMiB);
  ASSERT_OK(SaveOneShot(fixture_.store(), content).status());
  ASSERT_OK(SaveOneShot(fixture_.store(), {content[0], content[1]}).status());
  SaveRequest third = RequestOf({});
  third.base_version = 1;
  auto save = fixture_.store().saves().StartOneShot(third);
  ASSERT_OK(save.status());
  ASSERT_OK((*save)->AddManifest(PartOf({content[1], content[2]})));
  ASSERT_OK((*save)->Commit({}).status());
  EXPECT_EQ(Delete(1).waiting_bytes, static_cast<int64_t>(kMiB));
  EXPECT_EQ(Collect().reclaimable_bytes, static_cast<int64_t>(kMiB));
  EXPECT_EQ(Delete(2).waiting_bytes, static_cast<int64_t>(kMiB));
  // Half of it: the living half is copied forward.
  EXPECT_EQ(Collect().freed_bytes, static_cast<int64_t>(2 * kMiB));
  EXPECT_EQ(Delete(3).freed_bytes, static_cast<int64_t>(2 * kMiB));
}

TEST_F(DeletionTest, DeletingANonEmptyModelNeedsForce) {
  ASSERT_OK(SaveOneShot(fixture_.store(), RandomContent(1, 1, 100)).status());
  ASSERT_OK(SaveOneShot(fixture_.store(), RandomContent(2, 2, 2 * kMiB)).status());
  Models& models = fixture_.store().models();
  EXPECT_TRUE(absl::IsFailedPrecondition(models.Delete("m", false, {}).status()));
  EXPECT_TRUE(absl::IsAborted(models.Delete("m", true, {.generation = 1}).status()));
  const std::string upload =
      fixture_.store().uploads().Create(RequestOf({}), 1, {})->upload_id();
  const auto freed =
      models.Delete("m", true, {.generation = models.Get("m")->generation()});
  ASSERT_OK(freed.status());
  EXPECT_EQ(freed->freed_bytes, static_cast<int64_t>(4 * kMiB) + 100);
  EXPECT_TRUE(absl::IsNotFound(models.Get("m").status()));
  EXPECT_TRUE(absl::IsNotFound(
      NamedUpload(fixture_.store().uploads(), "m", upload).State().status()));
  EXPECT_TRUE(absl::IsNotFound(models.Delete("m", true, {}).status()));
  EXPECT_LT(fixture_.UsedAfterCollection(), 100);
}

TEST_F(DeletionTest, AModelOfThousandsOfVersionsGoesWhole) {
  for (int i = 0; i < 1'300; ++i) {
    ASSERT_OK(SaveOneShot(fixture_.store(), RandomContent(i, 1, 20),
                          {.request_id = std::to_string(i)})
                  .status());
  }
  ASSERT_OK(fixture_.store().models().Delete("m", true, {}).status());
  EXPECT_LT(fixture_.UsedAfterCollection(), 100);
}

TEST_F(DeletionTest, ACollectionToTryOutChangesNothing) {
  SetGrace(absl::Seconds(60));
  ASSERT_OK(SaveOneShot(fixture_.store(), RandomContent(1, 1, 2 * kMiB)).status());
  Delete(1);
  fixture_.Advance(absl::Seconds(61));
  const int64_t calls = fixture_.disk().calls();
  EXPECT_EQ(Collect(/*validate_only=*/true).waiting_bytes,
            static_cast<int64_t>(2 * kMiB));
  EXPECT_EQ(fixture_.disk().calls(), calls);
  EXPECT_EQ(Collect().freed_bytes, static_cast<int64_t>(2 * kMiB));
}

TEST_F(DeletionTest, AStaleEtagIsAborted) {
  ASSERT_OK(SaveOneShot(fixture_.store(), RandomContent(1, 1, 10)).status());
  EXPECT_TRUE(absl::IsAborted(
      fixture_.store().checkpoints().Delete("m", 1, {.generation = 77}).status()));
  EXPECT_OK(fixture_.store().checkpoints().Delete("m", 1, {.generation = 1}).status());
}

// At zero bytes free the ballast makes room for the delete's own records.
TEST_F(DeletionTest, WorksOnAFullDisk) {
  for (int i = 0; i < 4; ++i) {
    ASSERT_OK(SaveOneShot(fixture_.store(), RandomContent(i, 1, kMiB), {.no_base = true})
                  .status());
  }
  auto fill = [this] {
    fixture_.disk().SetCapacity(fixture_.disk().used_bytes() + MemoryDisk::kBallastBytes);
  };
  fill();
  EXPECT_TRUE(absl::IsResourceExhausted(
      SaveOneShot(fixture_.store(), RandomContent(9, 1, 100)).status()));
  EXPECT_EQ(*LoadAll(fixture_.store(), 2), Expected(RandomContent(1, 1, kMiB)));
  EXPECT_EQ(Delete(1).freed_bytes, static_cast<int64_t>(kMiB));
  Collect();  // the ballast is taken again
  ASSERT_OK(SaveOneShot(fixture_.store(), RandomContent(9, 1, kMiB / 2)).status());
  fill();
  EXPECT_GT(Delete(2).freed_bytes, 0);
}

TEST_F(DeletionTest, ListedInPagesEitherWay) {
  for (int i = 0; i < 7; ++i) {
    ASSERT_OK(SaveOneShot(fixture_.store(), RandomContent(i, 1, 10)).status());
  }
  Delete(3);
  for (const bool newest_first : {false, true}) {
    std::vector<int64_t> versions;
    std::string after;
    do {
      const auto page = fixture_.store().checkpoints().List("m", newest_first, after, 2);
      ASSERT_OK(page.status());
      for (const auto& item : page->items) versions.push_back(item.version());
      after = page->next;
    } while (!after.empty());
    std::vector<int64_t> expected = {1, 2, 4, 5, 6, 7};
    if (newest_first) std::reverse(expected.begin(), expected.end());
    EXPECT_EQ(versions, expected);
  }
  EXPECT_TRUE(absl::IsInvalidArgument(
      fixture_.store().checkpoints().List("m", false, "rubbish", 2).status()));
}

// Of a thousand versions they would fill the memory.
TEST_F(DeletionTest, AListLeavesOutWhatMayBeLarge) {
  SaveRequest request;
  request.model_id = "m";
  request.create_model = true;
  request.metadata.set_architecture("a tree of modules");
  request.metadata.set_description("kept");
  auto save = fixture_.store().saves().StartOneShot(request);
  ASSERT_OK(save.status());
  ASSERT_OK((*save)->Commit(std::nullopt, /*allow_empty=*/true).status());
  const auto page = fixture_.store().checkpoints().List("m", false, "", 10);
  ASSERT_OK(page.status());
  ASSERT_EQ(page->items.size(), 1u);
  EXPECT_EQ(page->items[0].metadata().architecture(), "");
  EXPECT_EQ(page->items[0].metadata().description(), "kept");
  const auto one = fixture_.store().checkpoints().Get("m", 1);
  ASSERT_OK(one.status());
  EXPECT_EQ(one->metadata().architecture(), "a tree of modules");
}

TEST_F(DeletionTest, ModelsAreListedByPrefixInPages) {
  for (const char* id : {"a", "ab", "abc", "b", "abd"}) {
    records::ModelRecord model;
    model.set_model_id(id);
    ASSERT_OK(fixture_.store().models().Create(model).status());
    EXPECT_TRUE(absl::IsAlreadyExists(fixture_.store().models().Create(model).status()));
  }
  std::vector<std::string> ids;
  std::string after;
  do {
    const auto page = fixture_.store().models().List("ab", after, 1);
    ASSERT_OK(page.status());
    for (const auto& item : page->items) ids.push_back(item.model_id());
    after = page->next;
  } while (!after.empty());
  EXPECT_EQ(ids, (std::vector<std::string>{"ab", "abc", "abd"}));
}

TEST_F(DeletionTest, AnAlgorithmThatDoesNotExistYetIsUnimplemented) {
  records::ModelRecord model;
  model.set_model_id("sha");
  model.set_digest_algorithm(2);
  EXPECT_TRUE(absl::IsUnimplemented(fixture_.store().models().Create(model).status()));
  model.set_digest_algorithm(3);
  EXPECT_TRUE(absl::IsInvalidArgument(fixture_.store().models().Create(model).status()));
}

// Bits that rot.
TEST_F(DeletionTest, ADamagedChunkIsDataLossOfItsTensorOnly) {
  const TestContent content = RandomContent(1, 3, kMiB);
  fixture_.options().pack_bytes = 16 << 20;
  ASSERT_OK(fixture_.Reopen());
  ASSERT_OK(SaveOneShot(fixture_.store(), content).status());
  const auto read = fixture_.store().reads().Open("m", 1);
  const auto& piece = (*read)->manifest().tensors(1).pieces(0);
  ASSERT_TRUE(fixture_.disk().FlipBit(piece.packs(5), piece.sequences(5), 4711));
  EXPECT_OK((*read)->ReadChunk(0, 0, 5).status());
  const absl::Status loss = (*read)->ReadChunk(1, 0, 5).status();
  EXPECT_TRUE(absl::IsDataLoss(loss)) << loss;
  EXPECT_THAT(std::string(loss.message()),
              ::testing::AllOf(::testing::HasSubstr("model:t1"),
                               ::testing::HasSubstr("models/m/checkpoints/1")));
  EXPECT_TRUE(absl::IsOutOfRange((*read)->ReadChunk(1, 0, 16).status()));
  EXPECT_TRUE(absl::IsOutOfRange((*read)->ReadChunk(3, 0, 0).status()));
  EXPECT_TRUE(absl::IsOutOfRange((*read)->ReadChunk(0, -1, 0).status()));
}

// Without it nothing tells where the chunks are: to guess would leave them for good.
TEST_F(DeletionTest, APackWhoseRecordIsDamagedIsKeptAndNamed) {
  const auto saved = SaveOneShot(fixture_.store(), RandomContent(1, 1, 1000));
  ASSERT_OK(saved.status());
  const std::string key = keys::Pack(saved->packs(0));
  const Engine engine = OpenMemoryEngine(std::make_shared<MemoryDisk>(fixture_.disk()));
  const auto record = engine.catalog->Get(Space::kRecords, key);
  ASSERT_OK(record.status());
  const auto put = [&](const std::string& value) {
    CatalogBatch batch;
    batch.Put(Space::kRecords, key, value);
    return engine.catalog->Write(batch, Durability::kDurable);
  };
  ASSERT_OK(put("\xff"));
  EXPECT_EQ(Delete(1).freed_bytes, 0);
  const absl::Status refused =
      fixture_.store().maintenance().CollectGarbage(false, nullptr).status();
  EXPECT_TRUE(absl::IsDataLoss(refused)) << refused;
  EXPECT_THAT(std::string(refused.message()),
              ::testing::HasSubstr(absl::StrCat("pack ", saved->packs(0))));
  EXPECT_GT(fixture_.disk().used_bytes(), 1000);
  ASSERT_OK(put(**record));
  EXPECT_EQ(Collect().freed_bytes, 1000);
  EXPECT_LT(fixture_.disk().used_bytes(), 300);
}

TEST_F(DeletionTest, AskingForADeletedVersionDoesNotKeepItsBytes) {
  SetGrace(absl::Seconds(60));
  ASSERT_OK(SaveByUpload(fixture_.store(), RandomContent(1, 1, 2 * kMiB)).status());
  Delete(1);
  for (int i = 0; i < 20; ++i) {
    fixture_.Advance(absl::Seconds(30));
    EXPECT_TRUE(absl::IsNotFound(fixture_.store().reads().Open("m", 1).status()));
    Collect();
  }
  EXPECT_TRUE(fixture_.Packs().empty());
}

TEST_F(DeletionTest, AskingForADeletedVersionDoesNotShortenTheGraceTimeOfItsReader) {
  SetGrace(absl::Seconds(60));
  const TestContent content = RandomContent(1, 1, 2 * kMiB);
  ASSERT_OK(SaveByUpload(fixture_.store(), content).status());
  auto read = fixture_.store().reads().Open("m", 1);
  ASSERT_OK(read.status());
  const std::string token = fixture_.store().reads().Token(**read);
  Delete(1);
  EXPECT_TRUE(absl::IsNotFound(fixture_.store().reads().Open("m", 1).status()));
  fixture_.Advance(absl::Seconds(300));
  read->reset();
  EXPECT_TRUE(absl::IsNotFound(fixture_.store().reads().Open("m", 1).status()));
  fixture_.Advance(absl::Seconds(30));
  Collect();
  read = fixture_.store().reads().Reopen(token);
  ASSERT_OK(read.status());
  EXPECT_EQ(*LoadAll(**read), Expected(content));
}

TEST_F(DeletionTest, AskingForVersionsThatDoNotExistLeavesNothingInMemory) {
  ASSERT_OK(SaveOneShot(fixture_.store(), RandomContent(1, 1, 100)).status());
  fixture_.Close();
  StoreCore core(fixture_.options(),
                 OpenMemoryEngine(std::make_shared<MemoryDisk>(fixture_.disk())));
  ASSERT_OK(core.catalog().Reopen());
  ASSERT_OK(HoldVersion(core, "m", 1).status());
  for (int64_t version = 2; version < 1000; ++version) {
    EXPECT_TRUE(absl::IsNotFound(HoldVersion(core, "m", version).status()));
  }
  EXPECT_EQ(core.holds.size(), 1u);
}

}  // namespace
}  // namespace modelstore::storage
