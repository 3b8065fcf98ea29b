// Versions made of the chunks of others: what they share, what they cost, and what
// becomes of them when their sources are deleted.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <thread>

#include "storage/status_macros.h"
#include "tests/storage/store_fixture.h"
#include "tests/support/random_bytes.h"

namespace modelstore::storage {
namespace {

using support::RandomBytes;
using ::testing::HasSubstr;

constexpr size_t kMiB = size_t{1} << 20;

class DerivedTest : public ::testing::Test {
 protected:
  std::shared_ptr<Read> Open(const std::string& model, int64_t version = 1) {
    auto read = fixture_.store().reads().Open(model, version);
    EXPECT_OK(read.status());
    return *read;
  }
  void Delete(const std::string& model, int64_t version) {
    EXPECT_OK(fixture_.store().checkpoints().Delete(model, version, {}).status());
  }
  // Commits `content`, whose chunks in `fresh` are put and all others shared.
  absl::StatusOr<records::CheckpointRecord> Derive(
      std::vector<std::shared_ptr<Read>> sources, const TestContent& content,
      const TestContent& fresh = {}, const SaveOptions& options = {}) {
    ASSIGN_OR_RETURN(
        std::unique_ptr<DerivedSave> save,
        fixture_.store().saves().StartDerived(RequestOf(options), std::move(sources)));
    for (const std::string& chunk : ChunksOf(fresh)) {
      ASSIGN_OR_RETURN(const Digest digest, save->Put(chunk));
      EXPECT_EQ(digest, DigestOf(chunk));
    }
    return save->Commit(PartOf(content), options.expected_latest);
  }

  StoreFixture fixture_;
};

TEST_F(DerivedTest, SharesTheChunksOfSeveralModelsAndStoresOnlyWhatIsNew) {
  const TestContent a = RandomContent(1, 2, 3 * kMiB), b = RandomContent(2, 2, 3 * kMiB);
  ASSERT_OK(SaveOneShot(fixture_.store(), a, {.model = "a"}).status());
  ASSERT_OK(SaveOneShot(fixture_.store(), b, {.model = "b"}).status());
  const int64_t before = fixture_.UsedAfterCollection();
  TestContent mixed = {a[0], b[1], Vector("new", RandomBytes(9, 100'000))};
  const auto made = Derive({Open("a"), Open("b")}, mixed, {mixed[2]}, {.model = "a"});
  ASSERT_OK(made.status());
  EXPECT_EQ(made->version(), 2);
  EXPECT_EQ(made->base_model_id(), "a");
  EXPECT_EQ(made->base_version(), 1);
  EXPECT_EQ(made->logical_bytes(), static_cast<int64_t>(6 * kMiB + 100'000));
  EXPECT_EQ(made->stored_bytes(), 100'000);
  EXPECT_LT(fixture_.UsedAfterCollection() - before, 100'000 + (16 << 10));
  EXPECT_EQ(*LoadAll(fixture_.store(), 2, "a"), Expected(mixed));
}

TEST_F(DerivedTest, OutlivesTheDeletionOfItsSourcesBeforeAndAfterItsCommit) {
  const TestContent a = RandomContent(1, 2, 3 * kMiB), b = RandomContent(2, 2, 3 * kMiB);
  ASSERT_OK(SaveOneShot(fixture_.store(), a, {.model = "a"}).status());
  ASSERT_OK(SaveOneShot(fixture_.store(), b, {.model = "b"}).status());
  const TestContent mixed = {a[0], b[1]};
  std::vector<std::shared_ptr<Read>> sources = {Open("a"), Open("b")};
  auto save = fixture_.store().saves().StartDerived(RequestOf({.model = "c"}),
                                                    std::move(sources));
  ASSERT_OK(save.status());
  Delete("a", 1);
  fixture_.UsedAfterCollection();
  ASSERT_OK((*save)->Commit(PartOf(mixed), {}).status());
  save->reset();
  Delete("b", 1);
  fixture_.UsedAfterCollection();
  EXPECT_EQ(*LoadAll(fixture_.store(), 1, "c"), Expected(mixed));
  fixture_.Close();
  fixture_.disk().LosePower();
  ASSERT_OK(fixture_.Reopen());
  EXPECT_EQ(*LoadAll(fixture_.store(), 1, "c"), Expected(mixed));
  // Nobody else uses the packs: they go with it.
  Delete("c", 1);
  fixture_.UsedAfterCollection();
  EXPECT_TRUE(fixture_.Packs().empty());
}

TEST_F(DerivedTest, ABaseThatWasDeletedConcurrentlyIsStillNamed) {
  const TestContent content = RandomContent(1, 2, 100'000);
  ASSERT_OK(SaveOneShot(fixture_.store(), content).status());
  const auto source = Open("m");
  Delete("m", 1);
  const auto made = Derive({source}, content);
  ASSERT_OK(made.status());
  EXPECT_EQ(made->version(), 2);
  EXPECT_EQ(made->base_version(), 1);
  EXPECT_EQ(*LoadAll(fixture_.store(), 2), Expected(content));
}

TEST_F(DerivedTest, GivenUpItLeavesNothing) {
  ASSERT_OK(SaveOneShot(fixture_.store(), RandomContent(1, 2, 3 * kMiB)).status());
  const int64_t before = fixture_.UsedAfterCollection();
  const auto packs = fixture_.Packs();
  for (const size_t bytes : {size_t{1000}, 5 * kMiB}) {
    auto save = fixture_.store().saves().StartDerived(RequestOf({}), {Open("m")});
    ASSERT_OK(save.status());
    for (const std::string& chunk : ChunksOf(RandomContent(7, 1, bytes))) {
      ASSERT_OK((*save)->Put(chunk).status());
    }
    save->reset();
    EXPECT_EQ(fixture_.Packs(), packs);
    EXPECT_EQ(fixture_.UsedAfterCollection(), before);
  }
}

TEST_F(DerivedTest, AMissingChunkIsRefusedByTheNameOfItsTensor) {
  const TestContent content = RandomContent(1, 1, 100'000);
  ASSERT_OK(SaveOneShot(fixture_.store(), content).status());
  const auto made =
      Derive({Open("m")}, {content[0], Vector("stranger", RandomBytes(3, 10))});
  EXPECT_TRUE(absl::IsFailedPrecondition(made.status())) << made.status();
  EXPECT_THAT(std::string(made.status().message()), HasSubstr("model:stranger"));
}

TEST_F(DerivedTest, ARepeatedRequestLeadsToTheVersionThatTheFirstMade) {
  const TestContent content = RandomContent(1, 1, 100'000);
  ASSERT_OK(SaveOneShot(fixture_.store(), content).status());
  Saves& saves = fixture_.store().saves();
  EXPECT_EQ(*saves.FindRequested("m", "r", "request"), std::nullopt);
  const TestContent first = {content[0], Vector("drawn", RandomBytes(3, 10))};
  ASSERT_OK(Derive({Open("m")}, first, {first[1]}, {.request_id = "r"}).status());
  // What was drawn by chance differs the second time.
  const TestContent second = {content[0], Vector("drawn", RandomBytes(4, 10))};
  const auto again = Derive({Open("m")}, second, {second[1]}, {.request_id = "r"});
  ASSERT_OK(again.status());
  EXPECT_EQ(again->version(), 2);
  EXPECT_EQ(fixture_.store().models().Get("m")->latest_version(), 2);
  const auto found = saves.FindRequested("m", "r", "request");
  ASSERT_OK(found.status());
  ASSERT_TRUE(found->has_value());
  EXPECT_EQ((*found)->version(), 2);

  EXPECT_TRUE(absl::IsInvalidArgument(saves.FindRequested("m", "r", "x").status()));
  const auto other = Derive({Open("m")}, second, {second[1]},
                            {.request_id = "r", .request_digest = "other"});
  EXPECT_TRUE(absl::IsInvalidArgument(other.status())) << other.status();
  Delete("m", 2);
  EXPECT_EQ(*saves.FindRequested("m", "r", "request"), std::nullopt);
}

TEST_F(DerivedTest, AModelRecreatedUnderTheNameIsAnotherOne) {
  const TestContent content = RandomContent(1, 1, 100'000);
  ASSERT_OK(SaveOneShot(fixture_.store(), content).status());
  const auto read = Open("m");
  ASSERT_OK(fixture_.store().models().Delete("m", true, {}).status());
  ASSERT_OK(SaveOneShot(fixture_.store(), RandomContent(2, 1, 10)).status());
  EXPECT_TRUE(absl::IsNotFound(Derive({read}, content).status()));
}

TEST_F(DerivedTest, AnotherLatestVersionThanExpectedIsRefusedAndLeavesNothing) {
  const TestContent content = RandomContent(1, 1, 100'000);
  ASSERT_OK(SaveOneShot(fixture_.store(), content).status());
  const int64_t before = fixture_.UsedAfterCollection();
  const TestContent next = {content[0], Vector("new", RandomBytes(3, 2 * kMiB))};
  const auto made = Derive({Open("m")}, next, {next[1]}, {.expected_latest = 7});
  EXPECT_TRUE(absl::IsAborted(made.status())) << made.status();
  EXPECT_EQ(fixture_.UsedAfterCollection(), before);
}

TEST_F(DerivedTest, TakesChunksFromSeveralThreadsAtOnce) {
  ASSERT_OK(SaveOneShot(fixture_.store(), RandomContent(1, 1, 1000)).status());
  auto save = fixture_.store().saves().StartDerived(RequestOf({}), {Open("m")});
  ASSERT_OK(save.status());
  const TestContent content = RandomContent(5, 4, 3 * kMiB);
  std::vector<std::thread> threads;
  for (const TestTensor& tensor : content) {
    threads.emplace_back([&save, &tensor] {
      for (const std::string& chunk : ChunksOf({tensor})) {
        EXPECT_OK((*save)->Put(chunk).status());
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  const auto made = (*save)->Commit(PartOf(content), {});
  ASSERT_OK(made.status());
  EXPECT_EQ(made->stored_bytes(), static_cast<int64_t>(12 * kMiB));
  EXPECT_EQ(*LoadAll(fixture_.store(), 2), Expected(content));
}

}  // namespace
}  // namespace modelstore::storage
