// Uploads whose creation, contribution, commit or deletion may have happened or not.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/storage/uploads_fixture.h"
#include "tests/support/random_bytes.h"

namespace modelstore::storage {
namespace {

using support::RandomBytes;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

class UndecidedUploadsTest : public UploadsTest {};

TEST_F(UndecidedUploadsTest, AContributionWhoseWriteIsUndecidedMustBeSentAgain) {
  const TestContent a = RandomContent(1, 2, 1000), b = RandomContent(2, 2, 1000);
  for (const bool happened : {true, false}) {
    const std::string id = Create({.no_base = true});
    ASSERT_OK(Send(id, ChunksOf(a)));
    ASSERT_OK(Send(id, ChunksOf(b)));
    ASSERT_OK(Describe(id, 0, a));
    fixture_.disk().SetFault({.at_call = 1, .after_effect = happened});
    fixture_.disk().SetReopenFails(true);
    EXPECT_TRUE(absl::IsUnavailable(
        NamedUpload(uploads(), "m", id).AddManifest(0, PartOf({b[0]}), true, false)));
    fixture_.disk().SetReopenFails(false);
    ASSERT_OK(fixture_.store().maintenance().ReopenIfClosed());
    const absl::Status refused = NamedUpload(uploads(), "m", id).Commit({}).status();
    EXPECT_TRUE(absl::IsFailedPrecondition(refused)) << refused;
    EXPECT_THAT(std::string(refused.message()),
                HasSubstr("contributions are missing: 0"));
    ASSERT_OK(Describe(id, 0, b));
    const auto saved = NamedUpload(uploads(), "m", id).Commit({});
    ASSERT_OK(saved.status());
    EXPECT_EQ(*LoadAll(fixture_.store(), saved->version()), Expected(b));
  }
}

TEST_F(UndecidedUploadsTest, PartsOfTwoManifestsAreNeverMixed) {
  const TestContent a = RandomContent(1, 2, 1000), b = RandomContent(2, 2, 1000);
  const std::string id = Create();
  ASSERT_OK(Send(id, ChunksOf(a)));
  ASSERT_OK(Send(id, ChunksOf(b)));
  auto add = [&](const TestTensor& tensor, bool begin, bool complete) {
    return NamedUpload(uploads(), "m", id)
        .AddManifest(0, PartOf({tensor}), begin, complete);
  };
  ASSERT_OK(add(a[0], true, false));
  ASSERT_OK(add(a[1], false, true));
  ASSERT_OK(add(b[0], true, false));
  // As another call's fault and the reopening after it: the parts of `a` are back.
  fixture_.disk().LosePower();
  const absl::Status lost = add(b[1], false, true);
  EXPECT_TRUE(absl::IsUnavailable(lost)) << lost;
  EXPECT_TRUE(
      absl::IsFailedPrecondition(NamedUpload(uploads(), "m", id).Commit({}).status()));
  ASSERT_OK(add(b[0], true, false));
  ASSERT_OK(add(b[1], false, true));
  ASSERT_OK(NamedUpload(uploads(), "m", id).Commit({}).status());
  EXPECT_EQ(*LoadAll(fixture_.store(), 1), Expected(b));
}

TEST_F(UndecidedUploadsTest, ItsDeletionForgetsNoVersionOfTheSameRequest) {
  const TestContent content = RandomContent(1, 1, 1000);
  const SaveOptions request{.request_id = "r"};
  auto delete_it = [&](const std::string& how, const std::string& id) {
    if (how == "deleted") {
      ASSERT_OK(NamedUpload(uploads(), "m", id).Delete());
      return;
    }
    fixture_.Advance(absl::Hours(25));
    EXPECT_OK(fixture_.store().maintenance().CollectGarbage(false, nullptr).status());
    EXPECT_TRUE(absl::IsNotFound(NamedUpload(uploads(), "m", id).State().status()));
  };
  for (const std::string how : {"deleted", "expired"}) {
    const std::string id = Create(request);
    const auto saved = SaveOneShot(fixture_.store(), content, request);
    ASSERT_OK(saved.status());
    delete_it(how, id);
    const auto again = SaveOneShot(fixture_.store(), content, request);
    ASSERT_OK(again.status());
    EXPECT_EQ(again->version(), saved->version()) << how;
    // Nor a later upload, which the deletion of the version has made room for.
    const std::string first = Create({.request_id = "other"});
    const SaveOptions other{.request_id = "other"};
    const auto made = SaveOneShot(fixture_.store(), content, other);
    ASSERT_OK(made.status());
    ASSERT_OK(fixture_.store().checkpoints().Delete("m", made->version(), {}).status());
    const std::string second = Create(other);
    EXPECT_NE(second, first);
    ASSERT_OK(NamedUpload(uploads(), "m", first).Delete());
    EXPECT_EQ(Create(other), second) << how;
    ASSERT_OK(NamedUpload(uploads(), "m", second).Delete());
    ASSERT_OK(fixture_.store().checkpoints().Delete("m", saved->version(), {}).status());
  }
}

TEST_F(UndecidedUploadsTest, OneWhoseCreationWasUndecidedIsFoundAgainOrGone) {
  const TestContent content = RandomContent(1, 1, 1000);
  ASSERT_OK(SaveOneShot(fixture_.store(), content).status());
  Maintenance& maintenance = fixture_.store().maintenance();
  auto create_undecided = [&](bool happened, const SaveOptions& options) {
    fixture_.disk().SetFault({.at_call = 1, .after_effect = happened});
    fixture_.disk().SetReopenFails(true);
    const absl::Status status = uploads().Create(RequestOf(options), 1, {}).status();
    EXPECT_TRUE(absl::IsUnavailable(status)) << status;
    fixture_.disk().SetReopenFails(false);
    ASSERT_OK(maintenance.ReopenIfClosed());
  };
  for (const bool happened : {true, false}) {
    SCOPED_TRACE(happened);
    const SaveOptions request{.request_id = happened ? "happened" : "not"};
    // A repeated request goes on with it.
    create_undecided(happened, request);
    if (happened) {
      const auto listed = uploads().List("m", "", 10);
      ASSERT_EQ(listed->items.size(), 1u);
      EXPECT_EQ(Create(request), listed->items[0].record.upload_id());
    }
    const auto saved = SaveByUpload(fixture_.store(), content, request);
    ASSERT_OK(saved.status());
    EXPECT_TRUE(uploads().List("m", "", 10)->items.empty());
    // One that nobody asks for again is listed, if it is there, and expires.
    create_undecided(happened, {});
    EXPECT_EQ(uploads().List("", "", 10)->items.size(), happened ? 1u : 0u);
    ASSERT_OK(maintenance.CollectGarbage(false, nullptr).status());
    EXPECT_EQ(maintenance.Stats()->open_upload_count, happened ? 1 : 0);
    fixture_.Advance(absl::Hours(25));
    ASSERT_OK(maintenance.CollectGarbage(false, nullptr).status());
    EXPECT_EQ(maintenance.Stats()->open_upload_count, 0);
  }
}

TEST_F(UndecidedUploadsTest, AnUndecidedCreationMakesNoSecondVersionAfterARestart) {
  const TestContent content = RandomContent(1, 1, 1000);
  ASSERT_OK(SaveOneShot(fixture_.store(), content).status());
  fixture_.disk().SetFault({.at_call = 1, .after_effect = true});
  fixture_.disk().SetReopenFails(true);
  EXPECT_FALSE(uploads().Create(RequestOf({.request_id = "r"}), 1, {}).ok());
  fixture_.disk().SetReopenFails(false);
  ASSERT_OK(fixture_.store().maintenance().ReopenIfClosed());
  const auto saved = SaveByUpload(fixture_.store(), content, {.request_id = "r"});
  ASSERT_OK(saved.status());
  EXPECT_EQ(saved->version(), 2);
  ASSERT_OK(fixture_.Reopen());
  EXPECT_EQ(fixture_.store().maintenance().Stats()->open_upload_count, 0);
  fixture_.Advance(absl::Hours(25));
  ASSERT_OK(fixture_.store().maintenance().CollectGarbage(false, nullptr).status());
  const auto again = uploads().Create(RequestOf({.request_id = "r"}), 1, {});
  ASSERT_OK(again.status());
  EXPECT_EQ(again->committed_version(), 2);
}

TEST_F(UndecidedUploadsTest, WhetherItIsDeletedIsFoundOutBeforeAnythingElse) {
  const TestContent content = RandomContent(1, 2, 1000);
  for (const bool happened : {true, false}) {
    const std::string id = Create({.no_base = true});
    ASSERT_OK(Send(id, ChunksOf(content)));
    ASSERT_OK(Describe(id, 0, content));
    fixture_.disk().SetFault({.at_call = 1, .after_effect = happened});
    fixture_.disk().SetReopenFails(true);
    EXPECT_TRUE(absl::IsUnavailable(NamedUpload(uploads(), "m", id).Delete()));
    EXPECT_TRUE(absl::IsUnavailable(NamedUpload(uploads(), "m", id).Commit({}).status()));
    fixture_.disk().SetReopenFails(false);
    ASSERT_OK(fixture_.store().maintenance().ReopenIfClosed());
    const auto committed = NamedUpload(uploads(), "m", id).Commit({});
    if (happened) {
      EXPECT_TRUE(absl::IsNotFound(committed.status())) << committed.status();
      EXPECT_TRUE(absl::IsNotFound(NamedUpload(uploads(), "m", id).State().status()));
    } else {
      ASSERT_OK(committed.status());
      EXPECT_EQ(*LoadAll(fixture_.store(), committed->version()), Expected(content));
    }
    EXPECT_EQ(fixture_.store().maintenance().Stats()->open_upload_count, 0);
  }
}

TEST_F(UndecidedUploadsTest, AnUndecidedCommitLeavesItsRowAsItWroteIt) {
  const TestContent content = RandomContent(1, 2, 1000);
  const auto upload =
      uploads().Create(RequestOf({.no_base = true}), 1, absl::Minutes(10));
  ASSERT_OK(upload.status());
  const std::string& id = upload->upload_id();
  ASSERT_OK(Send(id, ChunksOf(content)));
  ASSERT_OK(Describe(id, 0, content));
  fixture_.disk().SetFault({.at_call = 1, .after_effect = true});
  fixture_.disk().SetReopenFails(true);
  EXPECT_TRUE(absl::IsUnavailable(NamedUpload(uploads(), "m", id).Commit({}).status()));
  fixture_.disk().SetReopenFails(false);
  ASSERT_OK(fixture_.store().maintenance().ReopenIfClosed());
  fixture_.Advance(absl::Minutes(5));
  const auto state = NamedUpload(uploads(), "m", id).State();
  ASSERT_OK(state.status());
  EXPECT_EQ(state->record.committed_version(), 1);
  EXPECT_GT(state->sealed_bytes, 0);
  ASSERT_EQ(state->contributions.size(), 1u);
  EXPECT_EQ(state->contributions[0].tensor_count, 2);
}

TEST_F(UndecidedUploadsTest, ChunksOfASmallPackWhoseRecordSeemedToFailGoWithTheUpload) {
  const TestContent content = RandomContent(1, 1, 1000);
  const std::vector<std::string> chunks = ChunksOf(content);
  const std::string id = Create();
  auto sink = NamedUpload(uploads(), "m", id).OpenSink();
  ASSERT_OK(sink.status());
  ASSERT_OK((*sink)->Put(DigestOf(chunks[0]), {chunks[0]}).status());
  // The record is written, and nobody can tell.
  fixture_.disk().SetFault({.at_call = 1, .after_effect = true});
  fixture_.disk().SetReopenFails(true);
  EXPECT_FALSE((*sink)->Close().ok());
  fixture_.disk().SetReopenFails(false);
  ASSERT_OK(fixture_.store().maintenance().ReopenIfClosed());
  ASSERT_OK((*sink)->Put(DigestOf(chunks[0]), {chunks[0]}).status());
  ASSERT_OK((*sink)->Close());
  ASSERT_OK(Describe(id, 0, content));
  ASSERT_OK(NamedUpload(uploads(), "m", id).Commit({}).status());
  EXPECT_EQ(*LoadAll(fixture_.store(), 1), Expected(content));
  ASSERT_OK(fixture_.store().models().Delete("m", true, {}).status());
  fixture_.Advance(absl::Hours(48));  // the record of the committed upload
  EXPECT_LT(fixture_.UsedAfterCollection(), 100);
}

}  // namespace
}  // namespace modelstore::storage
