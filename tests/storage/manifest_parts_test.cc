// Parts of an upload's manifest whose write failed, or that storage has lost: what is
// committed is the manifest that was acknowledged, and no part of another.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/storage/store_fixture.h"

namespace modelstore::storage {
namespace {

using ::testing::HasSubstr;

class ManifestPartsTest : public ::testing::Test {
 protected:
  Uploads& uploads() { return fixture_.store().uploads(); }

  // An upload that has the chunks of all contents of these tests.
  void SetUp() override {
    const auto upload = uploads().Create(RequestOf({}), 1, {});
    ASSERT_OK(upload.status());
    id_ = upload->upload_id();
    auto sink = NamedUpload(uploads(), "m", id_).OpenSink();
    ASSERT_OK(sink.status());
    for (const TestContent& content : {old_, new_}) {
      for (const std::string& chunk : ChunksOf(content)) {
        ASSERT_OK((*sink)->Put(DigestOf(chunk), {chunk}).status());
      }
    }
    ASSERT_OK((*sink)->Close());
  }
  absl::Status Add(const TestContent& content, bool begin, bool complete) {
    return NamedUpload(uploads(), "m", id_)
        .AddManifest(0, PartOf(content), begin, complete);
  }
  // Whether the last part was written is known to nobody: storage cannot be reopened.
  void FailWithoutAnAnswer(const TestContent& content, bool after_effect) {
    fixture_.disk().SetFault({.at_call = 1, .after_effect = after_effect});
    fixture_.disk().SetReopenFails(true);
    EXPECT_TRUE(absl::IsUnavailable(Add(content, false, true)));
    fixture_.disk().SetReopenFails(false);
  }
  void ExpectCommitted(const TestContent& content) {
    const auto committed = NamedUpload(uploads(), "m", id_).Commit({});
    ASSERT_OK(committed.status());
    EXPECT_EQ(*LoadAll(fixture_.store(), committed->version()), Expected(content));
  }

  // Equal names, shapes and sizes, so that only the bytes tell the two apart.
  const TestContent old_ = RandomContent(1, 3, 1000);
  const TestContent new_ = RandomContent(2, 3, 1000);
  StoreFixture fixture_;
  std::string id_;
};

TEST_F(ManifestPartsTest, ARepetitionThatFailedIsNotTakenForTheManifestBefore) {
  for (const bool after_effect : {false, true}) {
    ASSERT_OK(Add(old_, true, true));
    fixture_.disk().SetFault({.at_call = 1, .after_effect = after_effect});
    ASSERT_OK(Add(new_, true, true));
    EXPECT_EQ(fixture_.store().maintenance().Stats()->reopen_count, after_effect ? 2 : 1);
  }
  ExpectCommitted(new_);
}

TEST_F(ManifestPartsTest, APartOfUnknownFateIsNotMergedIntoTheManifestSentAgain) {
  for (const bool after_effect : {false, true}) {
    ASSERT_OK(Add({old_[0]}, true, false));
    FailWithoutAnAnswer({old_[1], old_[2]}, after_effect);
    ASSERT_OK(fixture_.store().maintenance().ReopenIfClosed());
    const auto early = NamedUpload(uploads(), "m", id_).Commit({});
    EXPECT_TRUE(absl::IsFailedPrecondition(early.status())) << early.status();
  }
  // Sent again it has a part less, and another tensor.
  ASSERT_OK(Add({new_[0]}, true, true));
  ExpectCommitted({new_[0]});
}

TEST_F(ManifestPartsTest, AfterARestartAsWell) {
  ASSERT_OK(Add({old_[0]}, true, false));
  FailWithoutAnAnswer({old_[1], old_[2]}, /*after_effect=*/true);
  ASSERT_OK(fixture_.Reopen());
  ASSERT_OK(Add({new_[0]}, true, true));
  ExpectCommitted({new_[0]});
}

TEST_F(ManifestPartsTest, AManifestThatLostAPartIsNotCommittedWithoutIt) {
  ASSERT_OK(Add({old_[0]}, true, false));
  // The part was buffered, and a reopening after a fault found it gone.
  fixture_.disk().LosePower();
  const absl::Status lost = Add({old_[1], old_[2]}, false, true);
  EXPECT_TRUE(absl::IsUnavailable(lost)) << lost;
  EXPECT_THAT(std::string(lost.message()),
              HasSubstr("parts of contribution 0 were lost; send it again"));
  const auto refused = NamedUpload(uploads(), "m", id_).Commit({});
  EXPECT_TRUE(absl::IsFailedPrecondition(refused.status())) << refused.status();
  EXPECT_THAT(std::string(refused.status().message()),
              HasSubstr("1 of 1 contributions are missing: 0"));
  EXPECT_FALSE(NamedUpload(uploads(), "m", id_).State()->contributions.at(0).complete);
  ASSERT_OK(Add(new_, true, true));
  ExpectCommitted(new_);
}

TEST_F(ManifestPartsTest, ASaveThatWasRefusedIsNotCommittedAgainWithoutItsTensors) {
  auto save = fixture_.store().saves().StartOneShot(RequestOf({}));
  ASSERT_OK(save.status());
  ASSERT_OK((*save)->AddManifest(PartOf(old_)));
  for (const std::string& chunk : ChunksOf(old_)) {
    ASSERT_OK((*save)->Put(DigestOf(chunk), {chunk}));
  }
  EXPECT_TRUE(absl::IsAborted((*save)->Commit(7).status()));
  EXPECT_TRUE(absl::IsFailedPrecondition((*save)->Commit({}).status()));
  EXPECT_TRUE(absl::IsNotFound(LoadAll(fixture_.store(), {}).status()));
}

}  // namespace
}  // namespace modelstore::storage
