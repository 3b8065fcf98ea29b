// Uploads: many streams, many workers, restarts, and the end of their life.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <thread>

#include "absl/strings/str_cat.h"
#include "proto/contract/errors.h"
#include "tests/storage/uploads_fixture.h"
#include "tests/support/random_bytes.h"

namespace modelstore::storage {
namespace {

using support::RandomBytes;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

TEST_F(UploadsTest, WhatAClosedStreamSentOutlivesPowerLoss) {
  for (const size_t bytes : {size_t{1000}, size_t{500} << 10, size_t{3} << 20}) {
    const TestContent content = RandomContent(bytes, 2, bytes);
    const std::string id = Create({.no_base = true});
    const std::vector<std::string> chunks = ChunksOf(content);
    ASSERT_OK(Send(id, chunks));
    ASSERT_OK(Describe(id, 0, content));
    fixture_.Close();
    fixture_.disk().LosePower();
    ASSERT_OK(fixture_.Reopen());
    EXPECT_THAT(Missing(id, chunks), IsEmpty()) << bytes;
    const auto state = NamedUpload(uploads(), "m", id).State();
    ASSERT_OK(state.status());
    EXPECT_EQ(state->sealed_bytes, static_cast<int64_t>(2 * bytes));
    EXPECT_EQ(state->received_bytes, state->sealed_bytes);
    ASSERT_EQ(state->contributions.size(), 1u);
    EXPECT_TRUE(state->contributions[0].complete);
    const auto saved = NamedUpload(uploads(), "m", id).Commit({});
    ASSERT_OK(saved.status());
    EXPECT_EQ(*LoadAll(fixture_.store(), saved->version()), Expected(content));
  }
}

TEST_F(UploadsTest, WhatAnOpenStreamSentIsMissingAfterAPowerLoss) {
  const std::vector<std::string> chunks =
      ChunksOf(RandomContent(1, 1, (5 << 20) + 2 * kTestChunk));
  const std::string id = Create();
  auto sink = NamedUpload(uploads(), "m", id).OpenSink();
  for (const std::string& chunk : chunks) {
    ASSERT_OK((*sink)->Put(DigestOf(chunk), {chunk}).status());
  }
  EXPECT_THAT(Missing(id, chunks), IsEmpty());
  const auto state = NamedUpload(uploads(), "m", id).State();
  EXPECT_LT(state->sealed_bytes, state->received_bytes);
  // What is on the disk now is what a cut would leave; the stream ends after it.
  fixture_.disk().SetFault({.at_call = 1, .for_good = true});
  EXPECT_FALSE((*sink)->Close().ok());
  sink->reset();
  fixture_.Close();
  fixture_.disk().SetFault({});
  ASSERT_OK(fixture_.Reopen());
  const std::vector<uint32_t> missing = Missing(id, chunks);
  EXPECT_FALSE(missing.empty());
  EXPECT_EQ(static_cast<int64_t>((chunks.size() - missing.size()) * kTestChunk),
            NamedUpload(uploads(), "m", id).State()->sealed_bytes);
}

TEST_F(UploadsTest, ACommittedUploadAnswersAgainAlsoAfterARestart) {
  const TestContent content = RandomContent(1, 2, 400 << 10);
  const std::string id = Create({.request_id = "job"});
  ASSERT_OK(Send(id, ChunksOf(content)));
  ASSERT_OK(Describe(id, 0, content));
  ASSERT_OK(NamedUpload(uploads(), "m", id).Commit({}).status());
  EXPECT_EQ(NamedUpload(uploads(), "m", id).Commit({})->version(), 1);
  ASSERT_OK(fixture_.Reopen());
  EXPECT_EQ(NamedUpload(uploads(), "m", id).Commit({})->version(), 1);
  const auto again = uploads().Create(RequestOf({.request_id = "job"}), 1, {});
  ASSERT_OK(again.status());
  EXPECT_EQ(again->upload_id(), id);
  EXPECT_EQ(again->committed_version(), 1);
  EXPECT_TRUE(
      absl::IsFailedPrecondition(NamedUpload(uploads(), "m", id).OpenSink().status()));
  EXPECT_TRUE(absl::IsFailedPrecondition(Describe(id, 0, content)));
  EXPECT_TRUE(uploads().List("m", "", 10)->items.empty());
}

TEST_F(UploadsTest, ACommittedUploadIsDescribedAsBefore) {
  const TestContent content = RandomContent(1, 2, 400 << 10);
  ASSERT_OK(SaveOneShot(fixture_.store(), RandomContent(2, 1, 100)).status());
  const std::string id = Create({.request_id = "job", .epoch = 3}, 2);
  ASSERT_OK(Send(id, ChunksOf(content)));
  ASSERT_OK(Describe(id, 0, {content[0]}));
  ASSERT_OK(Describe(id, 1, content));
  const auto before = NamedUpload(uploads(), "m", id).State();
  ASSERT_OK(before.status());
  ASSERT_OK(NamedUpload(uploads(), "m", id).Commit({}).status());
  for (const bool restarted : {false, true}) {
    if (restarted) {
      ASSERT_OK(fixture_.Reopen());
    }
    const auto after = NamedUpload(uploads(), "m", id).State();
    ASSERT_OK(after.status());
    EXPECT_EQ(after->record.committed_version(), 2);
    EXPECT_EQ(after->record.metadata().epoch(), 3);
    EXPECT_EQ(after->record.request_id(), "job");
    EXPECT_EQ(after->record.base_version(), 1);
    EXPECT_EQ(after->sealed_bytes, 800 << 10);
    EXPECT_EQ(after->received_bytes, before->received_bytes);
    ASSERT_EQ(after->contributions.size(), 2u);
    EXPECT_TRUE(after->contributions[1].complete);
    EXPECT_EQ(after->contributions[0].tensor_count, 1);
    EXPECT_EQ(after->contributions[1].tensor_count, 2);
    EXPECT_TRUE(absl::IsFailedPrecondition(NamedUpload(uploads(), "m", id)
                                               .FindMissing(DigestsOf(ChunksOf(content)))
                                               .status()));
  }
  EXPECT_TRUE(absl::IsNotFound(NamedUpload(uploads(), "other", id).State().status()));
  ASSERT_OK(NamedUpload(uploads(), "m", id).Delete());
  EXPECT_TRUE(absl::IsNotFound(NamedUpload(uploads(), "m", id).State().status()));
  EXPECT_TRUE(absl::IsNotFound(NamedUpload(uploads(), "m", id).Delete()));
  EXPECT_EQ(*LoadAll(fixture_.store(), 2), Expected(content));
}

TEST_F(UploadsTest, ACommittedUploadIsForgottenAfterItsTimeToLive) {
  const TestContent content = RandomContent(1, 1, 100);
  std::string ids[2];
  for (std::string& id : ids) {
    id = uploads().Create(RequestOf({}), 1, absl::Hours(1))->upload_id();
    ASSERT_OK(Send(id, ChunksOf(content)));
    ASSERT_OK(Describe(id, 0, content));
    ASSERT_OK(NamedUpload(uploads(), "m", id).Commit({}).status());
    fixture_.Advance(absl::Minutes(20));
  }
  auto collect = [&] {
    EXPECT_OK(fixture_.store().maintenance().CollectGarbage(false, nullptr).status());
  };
  collect();
  EXPECT_EQ(NamedUpload(uploads(), "m", ids[0]).Commit({})->version(), 1);  // prolongs
  fixture_.Advance(absl::Minutes(50));
  collect();
  EXPECT_EQ(NamedUpload(uploads(), "m", ids[0]).State()->record.committed_version(), 1);
  EXPECT_TRUE(absl::IsNotFound(NamedUpload(uploads(), "m", ids[1]).State().status()));
  fixture_.Advance(absl::Minutes(61));
  ASSERT_OK(fixture_.Reopen());
  collect();
  EXPECT_TRUE(absl::IsNotFound(NamedUpload(uploads(), "m", ids[0]).State().status()));
  EXPECT_EQ(fixture_.store().checkpoints().List("m", false, "", 10)->items.size(), 2u);
}

TEST_F(UploadsTest, ADiskWithLittleRoomTakesUploadAfterUpload) {
  // Room for what is saved and one step of admission, with nothing to spare.
  constexpr int kUploads = 40;
  constexpr int64_t kBytes = 1'150'000;
  fixture_.disk().SetCapacity(kUploads * kBytes + (20 << 20));
  Maintenance& maintenance = fixture_.store().maintenance();
  for (int u = 0; u < kUploads; ++u) {
    ASSERT_OK(SaveByUpload(fixture_.store(), RandomContent(u, 1, kBytes)).status()) << u;
    ASSERT_EQ(maintenance.Stats()->reserved_bytes, 0) << u;
  }
  EXPECT_EQ(maintenance.Stats()->open_upload_count, 0);
  EXPECT_EQ(*LoadAll(fixture_.store(), 7), Expected(RandomContent(6, 1, kBytes)));
}

TEST_F(UploadsTest, AReservationEndsWithTheStreamsThatUseIt) {
  Maintenance& maintenance = fixture_.store().maintenance();
  auto reserved = [&] { return maintenance.Stats()->reserved_bytes; };
  fixture_.disk().SetCapacity(256 << 20);
  const std::vector<std::string> chunks = ChunksOf(RandomContent(1, 1, 2 << 20));
  const std::string id = Create();
  ASSERT_OK(Send(id, chunks));
  EXPECT_EQ(reserved(), 0) << "an open upload without a stream";
  auto send_more = [&](uint64_t seed) {
    auto sink = *NamedUpload(uploads(), "m", id).OpenSink();
    const std::string more = RandomBytes(seed, 100'000);
    EXPECT_OK(sink->Put(DigestOf(more), {more}).status());
    EXPECT_GT(reserved(), 0);
    return sink;
  };
  // A stream that fails.
  auto failing = send_more(2);
  fixture_.disk().SetFault({.at_call = 1, .for_good = true});
  EXPECT_FALSE(failing->Close().ok());
  failing.reset();
  fixture_.disk().SetFault({});
  EXPECT_EQ(reserved(), 0);
  // An upload that is deleted beside a stream.
  auto open = send_more(3);
  ASSERT_OK(NamedUpload(uploads(), "m", id).Delete());
  EXPECT_EQ(reserved(), 0);
  open.reset();
  EXPECT_EQ(reserved(), 0);
  // One that expires, and one-shot saves that end or are given up.
  const std::string expiring =
      uploads().Create(RequestOf({}), 1, absl::Minutes(1))->upload_id();
  ASSERT_OK(Send(expiring, chunks));
  fixture_.Advance(absl::Minutes(2));
  EXPECT_EQ(maintenance.CollectGarbage(false, nullptr)->expired_uploads, 1);
  EXPECT_EQ(reserved(), 0);
  ASSERT_OK(SaveOneShot(fixture_.store(), RandomContent(4, 1, 2 << 20)).status());
  EXPECT_EQ(reserved(), 0);
  auto given_up = *fixture_.store().saves().StartOneShot(RequestOf({}));
  ASSERT_OK(given_up->AddManifest(PartOf(RandomContent(5, 1, 2 << 20))));
  ASSERT_OK(given_up->Put(DigestOf("x"), {"x"}));
  EXPECT_GT(reserved(), 0);
  given_up.reset();
  EXPECT_EQ(reserved(), 0);
}

TEST_F(UploadsTest, EveryWorkerOfAJobGetsTheSameUpload) {
  std::vector<std::thread> workers;
  std::vector<std::string> ids(8);
  for (size_t w = 0; w < ids.size(); ++w) {
    workers.emplace_back([&, w] { ids[w] = Create({.request_id = "job"}, 8); });
  }
  for (std::thread& worker : workers) worker.join();
  for (const std::string& id : ids) EXPECT_EQ(id, ids[0]);
  EXPECT_EQ(uploads().List("", "", 100)->items.size(), 1u);
  EXPECT_TRUE(absl::IsInvalidArgument(
      uploads()
          .Create(RequestOf({.request_id = "job", .request_digest = "other"}), 8, {})
          .status()));
}

TEST_F(UploadsTest, TwoWorkersEachSaveHalfOfACheckpointAndOfATensor) {
  const std::string a = RandomBytes(1, 1 << 20), b = RandomBytes(2, 1 << 20);
  const std::string shared = RandomBytes(3, 8 * 100'000);
  const TestTensor top{"shared", {8, 100'000}, shared.substr(0, 300'000), 0, 3};
  const TestTensor bottom{"shared", {8, 100'000}, shared.substr(300'000), 3, 5};
  const std::string id = Create({}, 2);
  // Each in its own stream, at the same time.
  std::thread other([&] {
    EXPECT_OK(Send(id, ChunksOf({Vector("b", b), bottom})));
    EXPECT_OK(Describe(id, 1, {Vector("b", b), bottom}));
  });
  EXPECT_OK(Send(id, ChunksOf({Vector("a", a), top})));
  EXPECT_OK(Describe(id, 0, {Vector("a", a), top}));
  other.join();
  const auto saved = NamedUpload(uploads(), "m", id).Commit({});
  ASSERT_OK(saved.status());
  EXPECT_EQ(saved->tensor_count(), 3);
  const auto loaded = LoadAll(fixture_.store(), 1);
  ASSERT_OK(loaded.status());
  EXPECT_EQ(loaded->at("model:a"), a);
  EXPECT_EQ(loaded->at("model:b"), b);
  EXPECT_EQ(loaded->at("model:shared"), shared);
}

TEST_F(UploadsTest, TheSameReplicaOfEveryWorkerIsStoredOnce) {
  const TestContent content = RandomContent(1, 4, 1 << 20);
  const std::string id = Create({}, 3);
  std::vector<std::thread> workers;
  for (uint32_t w = 0; w < 3; ++w) {
    workers.emplace_back([&, w] {
      EXPECT_OK(Send(id, ChunksOf(content)));
      EXPECT_OK(Describe(id, w, content));
    });
  }
  for (std::thread& worker : workers) worker.join();
  const auto saved = NamedUpload(uploads(), "m", id).Commit({});
  ASSERT_OK(saved.status());
  EXPECT_EQ(saved->stored_bytes(), 4 << 20);
  EXPECT_LT(fixture_.disk().used_bytes(), (4 << 20) + (64 << 10));
  EXPECT_EQ(*LoadAll(fixture_.store(), 1), Expected(content));
}

TEST_F(UploadsTest, AnAbsentContributionIsNamed) {
  const TestContent content = RandomContent(1, 1, 100);
  const std::string id = Create({}, 3);
  ASSERT_OK(Send(id, ChunksOf(content)));
  ASSERT_OK(Describe(id, 1, content));
  const auto refused = NamedUpload(uploads(), "m", id).Commit({});
  EXPECT_TRUE(absl::IsFailedPrecondition(refused.status()));
  EXPECT_THAT(std::string(refused.status().message()),
              HasSubstr("2 of 3 contributions are missing: 0, 2"));
  EXPECT_TRUE(absl::IsInvalidArgument(Describe(id, 3, content)));
  // A part without `complete` is not enough.
  ASSERT_OK(NamedUpload(uploads(), "m", id).AddManifest(0, PartOf(content), true, false));
  EXPECT_TRUE(
      absl::IsFailedPrecondition(NamedUpload(uploads(), "m", id).Commit({}).status()));
  ASSERT_OK(NamedUpload(uploads(), "m", id).AddManifest(0, {}, false, true));
  ASSERT_OK(Describe(id, 2, content));
  EXPECT_OK(NamedUpload(uploads(), "m", id).Commit({}).status());
}

TEST_F(UploadsTest, AMissingChunkIsNamedAndCanBeSentStill) {
  const TestContent content = RandomContent(1, 2, 200 << 10);
  std::vector<std::string> chunks = ChunksOf(content);
  const std::string lost = chunks.back();
  chunks.pop_back();
  const std::string id = Create();
  ASSERT_OK(Send(id, chunks));
  ASSERT_OK(Describe(id, 0, content));
  const auto refused = NamedUpload(uploads(), "m", id).Commit({});
  EXPECT_TRUE(absl::IsFailedPrecondition(refused.status()));
  EXPECT_THAT(std::string(refused.status().message()), HasSubstr("model:t1 (1 chunk)"));
  EXPECT_THAT(Missing(id, {chunks[0], lost}), ElementsAre(1));
  ASSERT_OK(Send(id, {lost}));
  ASSERT_OK(NamedUpload(uploads(), "m", id).Commit({}).status());
  EXPECT_EQ(*LoadAll(fixture_.store(), 1), Expected(content));
}

TEST_F(UploadsTest, GapsAndOverlapsOfRowsAreRefused) {
  const std::string bytes = RandomBytes(1, 100);
  auto half = [&](int64_t first, int64_t rows) {
    return TestTensor{"w", {10, 10}, bytes.substr(first * 10, rows * 10), first, rows};
  };
  const std::string gap = Create({.no_base = true}, 2);
  ASSERT_OK(Send(gap, ChunksOf({half(0, 4), half(6, 4)})));
  ASSERT_OK(Describe(gap, 0, {half(0, 4)}));
  ASSERT_OK(Describe(gap, 1, {half(6, 4)}));
  const auto with_gap = NamedUpload(uploads(), "m", gap).Commit({});
  EXPECT_TRUE(absl::IsFailedPrecondition(with_gap.status()));
  EXPECT_THAT(std::string(with_gap.status().message()), HasSubstr("model:w rows [4, 6)"));
  // Sent again, the contribution is replaced.
  ASSERT_OK(Send(gap, ChunksOf({half(0, 7)})));
  ASSERT_OK(Describe(gap, 0, {half(0, 7)}));
  EXPECT_TRUE(
      absl::IsInvalidArgument(NamedUpload(uploads(), "m", gap).Commit({}).status()));
  ASSERT_OK(Send(gap, ChunksOf({half(0, 6)})));
  ASSERT_OK(Describe(gap, 0, {half(0, 6)}));
  ASSERT_OK(NamedUpload(uploads(), "m", gap).Commit({}).status());
  EXPECT_EQ(LoadAll(fixture_.store(), 1)->at("model:w"), bytes);
}

TEST_F(UploadsTest, OneTensorOfTwoShapesIsRefused) {
  const std::string id = Create({}, 2);
  ASSERT_OK(Send(id, {"1234"}));
  ASSERT_OK(Describe(id, 0, {{"w", {4}, "1234"}}));
  ASSERT_OK(Describe(id, 1, {{"w", {2, 2}, "1234"}}));
  EXPECT_TRUE(
      absl::IsInvalidArgument(NamedUpload(uploads(), "m", id).Commit({}).status()));
}

TEST_F(UploadsTest, ManyStreamsFeedFewPacks) {
  StoreOptions options = StoreFixture::SmallOptions();
  options.pack_bytes = 64 << 20;
  options.second_pack_bytes = 2 << 20;
  fixture_.options().pack_bytes = options.pack_bytes;
  fixture_.options().second_pack_bytes = options.second_pack_bytes;
  ASSERT_OK(fixture_.Reopen());
  const TestContent content = RandomContent(1, 8, 2 << 20);
  const std::string id = Create();
  // All open at the same time, so that the last to close finds a pack to itself.
  std::vector<std::unique_ptr<ChunkSink>> sinks;
  for (size_t s = 0; s < content.size(); ++s) {
    sinks.push_back(*NamedUpload(uploads(), "m", id).OpenSink());
  }
  std::vector<std::thread> streams;
  for (size_t s = 0; s < content.size(); ++s) {
    streams.emplace_back([&, s] {
      for (const std::string& chunk : ChunksOf({content[s]})) {
        EXPECT_OK(sinks[s]->Put(DigestOf(chunk), {chunk}).status());
      }
    });
  }
  for (std::thread& stream : streams) stream.join();
  for (auto& sink : sinks) EXPECT_OK(sink->Close());
  ASSERT_OK(Describe(id, 0, content));
  ASSERT_OK(NamedUpload(uploads(), "m", id).Commit({}).status());
  EXPECT_EQ(fixture_.Packs().size(), 2u);
  EXPECT_EQ(*LoadAll(fixture_.store(), 1), Expected(content));
}

TEST_F(UploadsTest, DeletedItLeavesNothing) {
  ASSERT_OK(SaveOneShot(fixture_.store(), RandomContent(1, 1, 50)).status());
  const int64_t used = fixture_.UsedAfterCollection();
  for (const size_t bytes : {size_t{100}, size_t{3} << 20}) {
    const TestContent content = RandomContent(2, 2, bytes);
    const std::string id = Create({.request_id = "r"});
    ASSERT_OK(Send(id, ChunksOf(content)));
    ASSERT_OK(Describe(id, 0, content));
    auto sink = NamedUpload(uploads(), "m", id).OpenSink();
    ASSERT_OK((*sink)->Put(DigestOf("more"), {"more"}).status());
    ASSERT_OK(NamedUpload(uploads(), "m", id).Delete());
    EXPECT_TRUE(absl::IsNotFound((*sink)->Put(DigestOf("x"), {"x"}).status()));
    EXPECT_TRUE(absl::IsNotFound((*sink)->Close()));
    sink->reset();
    EXPECT_TRUE(absl::IsNotFound(NamedUpload(uploads(), "m", id).Delete()));
    EXPECT_EQ(fixture_.UsedAfterCollection(), used);
  }
}

TEST_F(UploadsTest, UnnamedForItsTimeToLiveItExpires) {
  const int64_t used = fixture_.UsedAfterCollection();
  const auto upload = uploads().Create(RequestOf({.model = "m"}), 1, absl::Minutes(10));
  const std::string id = upload->upload_id();
  ASSERT_OK(Send(id, ChunksOf(RandomContent(1, 1, 3 << 20))));
  fixture_.Advance(absl::Minutes(9));
  ASSERT_OK(NamedUpload(uploads(), "m", id).State().status());  // prolongs
  fixture_.Advance(absl::Minutes(9));
  EXPECT_EQ(
      fixture_.store().maintenance().CollectGarbage(false, nullptr)->expired_uploads, 0);
  fixture_.Advance(absl::Minutes(11));
  EXPECT_EQ(
      fixture_.store().maintenance().CollectGarbage(false, nullptr)->expired_uploads, 1);
  EXPECT_TRUE(absl::IsNotFound(NamedUpload(uploads(), "m", id).State().status()));
  EXPECT_TRUE(fixture_.Packs().empty());
  EXPECT_LT(fixture_.disk().used_bytes(), used + 1000);  // the model that it made
}

TEST_F(UploadsTest, AnOpenedUploadIsProlongedByEachCallAndIsMissingOnceItExpires) {
  const std::string id =
      uploads().Create(RequestOf({}), 1, absl::Minutes(10))->upload_id();
  const auto upload = uploads().Open("m", id);
  ASSERT_OK(upload.status());
  auto expired = [&] {
    fixture_.Advance(absl::Minutes(9));
    return fixture_.store().maintenance().CollectGarbage(false, nullptr)->expired_uploads;
  };
  EXPECT_EQ(expired(), 0);
  ASSERT_OK((*upload)->State().status());
  EXPECT_EQ(expired(), 0);
  ASSERT_OK((*upload)->FindMissing("").status());
  EXPECT_EQ(expired(), 0);
  ASSERT_OK((*upload)->AddManifest(0, {}, true, false));
  EXPECT_EQ(expired(), 0);
  EXPECT_EQ(expired(), 1);
  EXPECT_TRUE(absl::IsNotFound((*upload)->State().status()));
  EXPECT_TRUE(absl::IsNotFound((*upload)->FindMissing("").status()));
  EXPECT_TRUE(absl::IsNotFound((*upload)->AddManifest(0, {}, true, true)));
  EXPECT_TRUE(absl::IsNotFound((*upload)->OpenSink().status()));
  EXPECT_TRUE(absl::IsNotFound((*upload)->Commit({}).status()));
  EXPECT_TRUE(absl::IsNotFound((*upload)->Delete()));
}

TEST_F(UploadsTest, AnOpenedUploadThatAnotherCommitsAnswersFromItsRow) {
  const TestContent content = RandomContent(1, 1, 1000);
  const std::string id = Create();
  const auto upload = uploads().Open("m", id);
  ASSERT_OK(upload.status());
  ASSERT_OK(Send(id, ChunksOf(content)));
  ASSERT_OK(Describe(id, 0, content));
  ASSERT_OK(NamedUpload(uploads(), "m", id).Commit({}).status());
  const auto committed = uploads().Open("m", id);
  ASSERT_OK(committed.status());
  for (const auto& opened : {*upload, *committed}) {
    EXPECT_EQ(opened->State()->record.committed_version(), 1);
    EXPECT_EQ(opened->State()->sealed_bytes, 1000);
    EXPECT_EQ(opened->Commit({})->version(), 1);
    EXPECT_TRUE(absl::IsFailedPrecondition(opened->FindMissing("").status()));
    EXPECT_TRUE(absl::IsFailedPrecondition(opened->AddManifest(0, {}, true, true)));
    EXPECT_TRUE(absl::IsFailedPrecondition(opened->OpenSink().status()));
  }
  ASSERT_OK((*committed)->Delete());
  for (const auto& opened : {*upload, *committed}) {
    EXPECT_TRUE(absl::IsNotFound(opened->State().status()));
    EXPECT_TRUE(absl::IsNotFound(opened->OpenSink().status()));
    EXPECT_TRUE(absl::IsNotFound(opened->Commit({}).status()));
  }
  EXPECT_EQ(*LoadAll(fixture_.store(), 1), Expected(content));
}

TEST_F(UploadsTest, AnUploadThatIsDeletedThroughOneObjectIsMissingForTheOther) {
  const std::string id = Create();
  const auto first = uploads().Open("m", id), second = uploads().Open("m", id);
  ASSERT_OK(first.status());
  ASSERT_OK(second.status());
  ASSERT_OK((*first)->Delete());
  EXPECT_TRUE(absl::IsNotFound((*second)->State().status()));
  EXPECT_TRUE(absl::IsNotFound((*second)->Delete()));
  EXPECT_TRUE(absl::IsNotFound(uploads().Open("m", id).status()));
}

TEST_F(UploadsTest, NothingExpiresSoonAfterAStart) {
  fixture_.options().start_grace = absl::Minutes(10);
  const auto upload = uploads().Create(RequestOf({}), 1, absl::Minutes(1));
  fixture_.Advance(absl::Hours(5));
  ASSERT_OK(fixture_.Reopen());
  EXPECT_EQ(
      fixture_.store().maintenance().CollectGarbage(false, nullptr)->expired_uploads, 0);
  fixture_.Advance(absl::Minutes(11));
  EXPECT_EQ(
      fixture_.store().maintenance().CollectGarbage(false, nullptr)->expired_uploads, 1);
}

TEST_F(UploadsTest, ABaseThatIsDeletedStaysForTheUploadThatNamesIt) {
  TestContent content = RandomContent(1, 4, 1 << 20);
  ASSERT_OK(SaveByUpload(fixture_.store(), content).status());
  const std::string id = Create();
  ASSERT_THAT(Missing(id, ChunksOf(content)), IsEmpty());
  const auto freed = fixture_.store().checkpoints().Delete("m", 1, {});
  ASSERT_OK(freed.status());
  EXPECT_EQ(freed->freed_bytes, 0);
  EXPECT_EQ(freed->waiting_bytes, 4 << 20);
  fixture_.UsedAfterCollection();
  content.push_back(Vector("new", "new"));
  ASSERT_OK(Send(id, {"new"}));
  ASSERT_OK(Describe(id, 0, content));
  ASSERT_OK(NamedUpload(uploads(), "m", id).Commit({}).status());
  fixture_.UsedAfterCollection();
  EXPECT_EQ(*LoadAll(fixture_.store(), 2), Expected(content));
}

TEST_F(UploadsTest, AnIdleOneKeepsNothingOfADeletedBase) {
  Checkpoints& checkpoints = fixture_.store().checkpoints();
  for (const std::string how : {"version", "model", "some of many"}) {
    for (int v = 1; v <= 2; ++v) {
      ASSERT_OK(SaveOneShot(fixture_.store(), RandomContent(v, 1, 2 << 20),
                            {.model = "base", .no_base = true})
                    .status());
    }
    const auto model = fixture_.store().models().Get("base");
    SaveRequest request = RequestOf({});
    request.base_model_id = "base";
    request.base_version = VersionName(1);
    const auto upload = uploads().Create(request, 1, {});
    ASSERT_OK(upload.status());
    fixture_.Advance(fixture_.options().upload_min_idle);
    if (how == "version") {
      EXPECT_EQ(checkpoints.Delete("base", 1, {})->freed_bytes, 2 << 20);
    } else if (how == "model") {
      EXPECT_EQ(fixture_.store().models().Delete("base", true, {})->freed_bytes, 4 << 20);
    } else {
      int asked = 0;
      const absl::Status stopped =
          checkpoints
              .DeleteEach(*model, {{1, 1}, {2, 1}}, false, [&] { return ++asked < 2; })
              .status();
      EXPECT_TRUE(absl::IsCancelled(stopped)) << stopped;
      EXPECT_THAT(std::string(stopped.message()),
                  HasSubstr("1 version is already deleted: 1"));
    }
    EXPECT_TRUE(absl::IsNotFound(
        NamedUpload(uploads(), "m", upload->upload_id()).State().status()))
        << how;
    if (how != "model") {
      EXPECT_OK(checkpoints.Get("base", 2).status());
      ASSERT_OK(fixture_.store().models().Delete("base", true, {}).status());
    }
  }
}

TEST_F(UploadsTest, ListedInPages) {
  std::vector<std::string> ids;
  for (int i = 0; i < 5; ++i) ids.push_back(Create());
  std::sort(ids.begin(), ids.end());
  std::vector<std::string> listed;
  std::string after;
  do {
    const auto page = uploads().List(listed.size() < 2 ? "m" : "", after, 2);
    ASSERT_OK(page.status());
    EXPECT_LE(page->items.size(), 2u);
    for (const auto& state : page->items) listed.push_back(state.record.upload_id());
    after = page->next;
  } while (!after.empty());
  EXPECT_EQ(listed, ids);
}

TEST_F(UploadsTest, AtALimitAnUploadIsRefusedForNowUnlessAnIdleOneGivesWay) {
  fixture_.options().max_open_uploads = 2;
  fixture_.options().upload_min_idle = absl::Minutes(10);
  ASSERT_OK(fixture_.Reopen());
  const std::string idle = Create();
  const std::string used = Create({.request_id = "used"});
  const absl::Status refused = uploads().Create(RequestOf({}), 1, {}).status();
  EXPECT_TRUE(IsOverloaded(refused)) << refused;
  EXPECT_TRUE(RetryDelay(refused).has_value());
  EXPECT_NE(refused.message().find("2 uploads are open"), std::string::npos) << refused;
  fixture_.Advance(absl::Minutes(11));
  EXPECT_EQ(Create({.request_id = "used"}), used);
  const std::string fresh = Create();
  EXPECT_FALSE(fresh.empty());
  EXPECT_TRUE(absl::IsNotFound(NamedUpload(uploads(), "m", idle).State().status()));
  EXPECT_OK(NamedUpload(uploads(), "m", used).State().status());
  // One with a stream open is in use for as long as it is.
  auto sink = NamedUpload(uploads(), "m", used).OpenSink();
  ASSERT_OK(sink.status());
  fixture_.Advance(absl::Minutes(9));
  EXPECT_OK(NamedUpload(uploads(), "m", fresh).State().status());
  fixture_.Advance(absl::Minutes(9));
  EXPECT_TRUE(IsOverloaded(uploads().Create(RequestOf({}), 1, {}).status()));
}

TEST_F(UploadsTest, ARequestThatIsRefusedRemovesNoIdleOne) {
  ASSERT_OK(SaveOneShot(fixture_.store(), RandomContent(1, 1, 100), {.request_id = "r"})
                .status());
  fixture_.options().max_open_uploads = 1;
  ASSERT_OK(fixture_.Reopen());
  const std::string idle = Create();
  fixture_.Advance(fixture_.options().upload_min_idle);
  SaveRequest request = RequestOf({});
  request.base_version = VersionName(7);
  EXPECT_TRUE(absl::IsNotFound(uploads().Create(request, 1, {}).status()));
  request = RequestOf({.request_id = "r", .request_digest = "other"});
  EXPECT_TRUE(absl::IsInvalidArgument(uploads().Create(request, 1, {}).status()));
  EXPECT_OK(NamedUpload(uploads(), "m", idle).State().status());
}

TEST_F(UploadsTest, AnIdleOneThatCannotBeRemovedIsNamed) {
  fixture_.options().max_open_uploads = 1;
  ASSERT_OK(fixture_.Reopen());
  const std::string idle = Create();
  fixture_.Advance(fixture_.options().upload_min_idle);
  fixture_.disk().SetFault({.at_call = 1, .for_good = true});
  const absl::Status status = uploads().Create(RequestOf({}), 1, {}).status();
  fixture_.disk().SetFault({});
  EXPECT_TRUE(IsOverloaded(status)) << status;
  EXPECT_THAT(std::string(status.message()),
              AllOf(HasSubstr(idle), HasSubstr("could not be removed")));
}

TEST_F(UploadsTest, AJobThatOpensUploadsForEverKeepsNoOtherModelFromIt) {
  const int limit = fixture_.options().max_open_uploads_per_model;
  int refused = 0;
  const auto flood = [&](const std::string& run) {
    for (int i = 0; i < 1024; ++i) {
      const auto upload =
          uploads().Create(RequestOf({.request_id = absl::StrCat(run, i)}), 1, {});
      if (IsOverloaded(upload.status())) ++refused;
    }
  };
  flood("first");
  EXPECT_EQ(refused, 1024 - limit);
  EXPECT_FALSE(Create({.model = "other"}).empty());
  ASSERT_OK(fixture_.Reopen());
  flood("second");
  EXPECT_FALSE(Create({.model = "other"}).empty());
  // Nor, once they are idle, itself.
  fixture_.Advance(fixture_.options().upload_min_idle);
  refused = 0;
  flood("third");
  EXPECT_EQ(refused, 1024 - limit);
}

TEST_F(UploadsTest, RubbishIsAClearError) {
  const std::string id = Create();
  EXPECT_TRUE(absl::IsInvalidArgument(
      NamedUpload(uploads(), "m", id).FindMissing("not digests").status()));
  EXPECT_TRUE(absl::IsInvalidArgument(NamedUpload(uploads(), "m", id)
                                          .FindMissing(std::string(16 * 65'537, 'x'))
                                          .status()));
  EXPECT_TRUE(absl::IsNotFound(NamedUpload(uploads(), "m", "absent").State().status()));
  EXPECT_TRUE(absl::IsNotFound(NamedUpload(uploads(), "other", id).State().status()));
  EXPECT_TRUE(absl::IsNotFound(NamedUpload(uploads(), "m", "").Commit({}).status()));
  EXPECT_TRUE(
      absl::IsInvalidArgument(uploads().Create(RequestOf({}), 70'000, {}).status()));
}

}  // namespace
}  // namespace modelstore::storage
