// Saves of both kinds: what they store, share, refuse and make of repetition.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "proto/contract/limits.h"
#include "tests/storage/store_fixture.h"
#include "tests/support/random_bytes.h"

namespace modelstore::storage {
namespace {

using support::RandomBytes;
using ::testing::HasSubstr;

// Both kinds of save, for what must not differ between them.
struct SaveKind {
  const char* name;
  absl::StatusOr<records::CheckpointRecord> (*save)(CheckpointStore&, const TestContent&,
                                                    const SaveOptions&);
};

class BothSavesTest : public ::testing::TestWithParam<SaveKind> {
 protected:
  absl::StatusOr<records::CheckpointRecord> Save(const TestContent& content,
                                                 const SaveOptions& options = {}) {
    return GetParam().save(fixture_.store(), content, options);
  }
  StoreFixture fixture_;
};

INSTANTIATE_TEST_SUITE_P(Saves, BothSavesTest,
                         ::testing::Values(SaveKind{"OneShot", SaveOneShot},
                                           SaveKind{"Upload", SaveByUpload}),
                         [](const auto& info) { return std::string(info.param.name); });

TEST_P(BothSavesTest, ReadsBackBitForBitAlsoAfterPowerLoss) {
  // Below, at and above the size of small saves and of packs.
  std::vector<TestContent> contents;
  for (const size_t bytes : {1, 100, 64 << 10, 300 << 10, 1 << 20, 3 << 20}) {
    contents.push_back(RandomContent(bytes, 3, bytes));
    const auto saved = Save(contents.back(), {.no_base = true});
    ASSERT_OK(saved.status());
    EXPECT_EQ(saved->version(), static_cast<int64_t>(contents.size()));
    EXPECT_EQ(saved->logical_bytes(), static_cast<int64_t>(3 * bytes));
    EXPECT_EQ(saved->stored_bytes(), static_cast<int64_t>(3 * bytes));
  }
  fixture_.Close();
  fixture_.disk().LosePower();
  ASSERT_OK(fixture_.Reopen());
  for (size_t i = 0; i < contents.size(); ++i) {
    const auto loaded = LoadAll(fixture_.store(), static_cast<int64_t>(i + 1));
    ASSERT_OK(loaded.status());
    EXPECT_EQ(*loaded, Expected(contents[i]));
  }
}

TEST_P(BothSavesTest, StoresOnlyWhatTheBaseDoesNotHold) {
  TestContent content = RandomContent(1, 20, 256 << 10);
  ASSERT_OK(Save(content).status());
  const int64_t before = fixture_.disk().used_bytes();
  content[7].bytes = RandomBytes(99, 256 << 10);
  const auto saved = Save(content);
  ASSERT_OK(saved.status());
  EXPECT_EQ(saved->stored_bytes(), 256 << 10);
  EXPECT_EQ(saved->base_version(), 1);
  EXPECT_LT(fixture_.disk().used_bytes() - before, (256 << 10) + (32 << 10));
  EXPECT_EQ(*LoadAll(fixture_.store(), 2), Expected(content));
}

TEST_P(BothSavesTest, StoresEqualChunksOnce) {
  const std::string bytes = RandomBytes(5, kTestChunk * 30);
  const auto saved = Save({Vector("a", bytes), Vector("b", bytes)});
  ASSERT_OK(saved.status());
  EXPECT_EQ(saved->logical_bytes(), 2 * kTestChunk * 30);
  EXPECT_EQ(saved->stored_bytes(), kTestChunk * 30);
}

TEST_P(BothSavesTest, TheSameRequestMakesOneVersion) {
  const TestContent content = RandomContent(1, 2, 100'000);
  const auto first = Save(content, {.request_id = "r1"});
  ASSERT_OK(first.status());
  const int64_t used = fixture_.UsedAfterCollection();
  const auto again = Save(content, {.request_id = "r1"});
  ASSERT_OK(again.status());
  EXPECT_EQ(again->version(), first->version());
  EXPECT_EQ(fixture_.store().models().Get("m")->checkpoint_count(), 1);
  EXPECT_EQ(fixture_.UsedAfterCollection(), used);
}

TEST_P(BothSavesTest, ARepetitionLeadsToItsVersionThoughTheBaseWasDeleted) {
  ASSERT_OK(Save(RandomContent(1, 1, 1000)).status());
  const TestContent content = RandomContent(2, 1, 1000);
  SaveOptions options{.request_id = "r1"};
  options.base_version = 1;
  const auto first = Save(content, options);
  ASSERT_OK(first.status());
  ASSERT_OK(fixture_.store().checkpoints().Delete("m", 1, {}).status());
  const auto again = Save(content, options);
  ASSERT_OK(again.status());
  EXPECT_EQ(again->version(), first->version());
  // Of a request that has made none, the base must be there.
  options.request_id = "r2";
  EXPECT_TRUE(absl::IsNotFound(Save(content, options).status()));
}

TEST_P(BothSavesTest, TheSameRequestWithAnotherHeaderIsRefused) {
  const TestContent content = RandomContent(1, 2, 100'000);
  ASSERT_OK(Save(content, {.request_id = "r1"}).status());
  EXPECT_TRUE(absl::IsInvalidArgument(
      Save(content, {.request_id = "r1", .request_digest = "other"}).status()));
  EXPECT_EQ(fixture_.store().models().Get("m")->checkpoint_count(), 1);
}

TEST_P(BothSavesTest, AnUnexpectedLatestVersionIsAborted) {
  ASSERT_OK(Save(RandomContent(1, 1, 100), {.expected_latest = 0}).status());
  ASSERT_OK(Save(RandomContent(2, 1, 100), {.expected_latest = 1}).status());
  const auto stale = Save(RandomContent(3, 1, 100), {.expected_latest = 1});
  EXPECT_TRUE(absl::IsAborted(stale.status())) << stale.status();
  EXPECT_EQ(fixture_.store().models().Get("m")->latest_version(), 2);
}

TEST_P(BothSavesTest, ADeletedVersionsNumberIsNotUsedAgain) {
  ASSERT_OK(Save(RandomContent(1, 1, 100)).status());
  ASSERT_OK(Save(RandomContent(2, 1, 100)).status());
  ASSERT_OK(fixture_.store().checkpoints().Delete("m", 2, {}).status());
  EXPECT_EQ(fixture_.store().models().Get("m")->latest_version(), 1);
  const auto next = Save(RandomContent(3, 1, 100));
  ASSERT_OK(next.status());
  EXPECT_EQ(next->version(), 3);
  EXPECT_EQ(next->base_version(), 1);
}

TEST_P(BothSavesTest, AModelRecreatedSharesNothingWithTheOldOne) {
  const TestContent old_content = RandomContent(1, 2, 700 << 10);
  ASSERT_OK(Save(old_content, {.request_id = "r"}).status());
  const std::string old_uid = fixture_.store().models().Get("m")->uid();
  ASSERT_OK(fixture_.store().models().Delete("m", true, {}).status());
  EXPECT_TRUE(absl::IsNotFound(LoadAll(fixture_.store(), 1).status()));
  const TestContent content = RandomContent(2, 2, 700 << 10);
  const auto saved = Save(content, {.request_id = "r"});
  ASSERT_OK(saved.status());
  EXPECT_EQ(saved->version(), 1);
  EXPECT_NE(fixture_.store().models().Get("m")->uid(), old_uid);
  EXPECT_EQ(*LoadAll(fixture_.store(), 1), Expected(content));
}

TEST(ManifestTest, SectionsAndAttachmentsComeBackWithTheirSummaries) {
  StoreFixture fixture;
  ManifestPart part = PartOf({Vector("w", "12345678")});
  auto& tensor = *part.add_tensors();
  tensor = part.tensors(0);
  tensor.set_section("optimizer");
  tensor.set_key("state/0/momentum_buffer");
  part.add_sections()->set_name("optimizer");
  part.mutable_sections(0)->set_value("opaque");
  auto& attachment = *part.add_attachments();
  attachment.set_name("card.md");
  attachment.set_media_type("text/markdown");
  attachment.set_data("# hello");
  auto save = fixture.store().saves().StartOneShot(RequestOf({}));
  ASSERT_OK(save.status());
  ASSERT_OK((*save)->AddManifest(part));
  ASSERT_OK((*save)->Put(DigestOf("12345678"), {"12345678"}));
  const auto saved = (*save)->Commit({});
  ASSERT_OK(saved.status());
  ASSERT_EQ(saved->sections_size(), 2);
  EXPECT_EQ(saved->sections(0).name(), "optimizer");
  EXPECT_EQ(saved->sections(0).tensor_count(), 1);
  EXPECT_EQ(saved->sections(0).value(), "");
  EXPECT_EQ(saved->sections(1).name(), "model");
  ASSERT_EQ(saved->attachments_size(), 1);
  EXPECT_EQ(saved->attachments(0).size_bytes(), 7);
  const auto read = fixture.store().reads().Open("m", {});
  ASSERT_OK(read.status());
  EXPECT_EQ((*read)->manifest().sections(0).value(), "opaque");
  EXPECT_EQ((*read)->manifest().attachments(0).data(), "# hello");
}

class OneShotTest : public ::testing::Test {
 protected:
  std::unique_ptr<OneShotSave> Start(const SaveOptions& options = {}) {
    auto save = fixture_.store().saves().StartOneShot(RequestOf(options));
    EXPECT_OK(save.status());
    return *std::move(save);
  }
  StoreFixture fixture_;
};

TEST_F(OneShotTest, ASmallSaveIsOneWrite) {
  ASSERT_OK(SaveOneShot(fixture_.store(), RandomContent(1, 2, 40)).status());
  const int64_t before = fixture_.disk().calls();
  ASSERT_OK(SaveOneShot(fixture_.store(), RandomContent(2, 2, 40), {.request_id = "r"})
                .status());
  EXPECT_EQ(fixture_.disk().calls() - before, 1);
  EXPECT_TRUE(fixture_.Packs().empty());
  // And one that makes its model as well.
  ASSERT_OK(
      SaveOneShot(fixture_.store(), RandomContent(3, 2, 40), {.model = "new"}).status());
  EXPECT_EQ(fixture_.disk().calls() - before, 2);
}

TEST_F(OneShotTest, DigestsAreFilledInInManifestOrder) {
  const TestContent content = RandomContent(1, 3, 2 * kTestChunk + 17);
  auto save = Start();
  ASSERT_OK(save->AddManifest(PartOf(content, /*digests=*/false)));
  for (const std::string& chunk : ChunksOf(content)) {
    // In fragments, as a network delivers them.
    const absl::string_view view = chunk;
    ASSERT_OK(save->Put(std::nullopt, {view.substr(0, 5), "", view.substr(5)}));
  }
  const auto saved = save->Commit({});
  ASSERT_OK(saved.status());
  EXPECT_EQ(*LoadAll(fixture_.store(), 1), Expected(content));
  // The digest of the content is that of a save that knew its digests.
  const auto known = SaveOneShot(fixture_.store(), content);
  EXPECT_EQ(known->manifest_digest(), saved->manifest_digest());
}

TEST_F(OneShotTest, BytesThatAreNotWhatTheyAreSaidToBeAreRefused) {
  auto save = Start();
  ASSERT_OK(save->AddManifest(PartOf({Vector("w", "12345678")})));
  EXPECT_TRUE(absl::IsInvalidArgument(save->Put(DigestOf("12345678"), {"12345679"})));
  EXPECT_TRUE(absl::IsInvalidArgument(save->Put(DigestOf(""), {})));
  const std::string large(kMaxChunkBytes + 1, 'x');
  EXPECT_TRUE(absl::IsInvalidArgument(save->Put(DigestOf(large), {large})));
  const auto saved = save->Commit({});
  EXPECT_TRUE(absl::IsFailedPrecondition(saved.status())) << saved.status();
  EXPECT_THAT(std::string(saved.status().message()), HasSubstr("model:w (1 chunk)"));
}

TEST_F(OneShotTest, ChunksWithoutAPlaceOrOfTheWrongSizeAreRefused) {
  auto save = Start();
  ASSERT_OK(save->AddManifest(PartOf({Vector("w", "12345678")}, /*digests=*/false)));
  EXPECT_TRUE(absl::IsInvalidArgument(save->Put(std::nullopt, {"1234567"})));
  EXPECT_OK(save->Put(std::nullopt, {"12345678"}));
  EXPECT_TRUE(absl::IsInvalidArgument(save->Put(std::nullopt, {"12345678"})));
  EXPECT_TRUE(absl::IsFailedPrecondition(save->AddManifest(PartOf({Vector("v", "1")}))));
  EXPECT_OK(save->Commit({}).status());
}

TEST_F(OneShotTest, TheSameRequestWithOtherBytesIsRefused) {
  ASSERT_OK(SaveOneShot(fixture_.store(), RandomContent(1, 1, 50), {.request_id = "r"})
                .status());
  const auto other =
      SaveOneShot(fixture_.store(), RandomContent(2, 1, 50), {.request_id = "r"});
  EXPECT_TRUE(absl::IsInvalidArgument(other.status())) << other.status();
}

TEST_P(BothSavesTest, OfNothingItIsRefusedUnlessThatIsAllowed) {
  ASSERT_OK(Save(RandomContent(1, 1, 100)).status());
  EXPECT_TRUE(absl::IsInvalidArgument(Save({}).status()));
  EXPECT_EQ(fixture_.store().models().Get("m")->latest_version(), 1);
  SaveRequest request = RequestOf({});
  EXPECT_TRUE(absl::IsInvalidArgument(
      (*fixture_.store().saves().StartOneShot(request))->Commit({}).status()));
  EXPECT_OK((*fixture_.store().saves().StartOneShot(request))->Commit({}, true).status());
  const auto upload = fixture_.store().uploads().Create(request, 1, {});
  const std::string id = upload->upload_id();
  ASSERT_OK(
      NamedUpload(fixture_.store().uploads(), "m", id).AddManifest(0, {}, true, true));
  EXPECT_TRUE(absl::IsInvalidArgument(
      NamedUpload(fixture_.store().uploads(), "m", id).Commit({}).status()));
  EXPECT_OK(NamedUpload(fixture_.store().uploads(), "m", id).Commit({}, true).status());
  EXPECT_EQ(NamedUpload(fixture_.store().uploads(), "m", id).Commit({})->version(), 3);
  request.metadata.set_architecture("of a module without tensors");
  EXPECT_OK((*fixture_.store().saves().StartOneShot(request))->Commit({}).status());
}

TEST_F(OneShotTest, GivenUpItLeavesNothing) {
  ASSERT_OK(SaveOneShot(fixture_.store(), RandomContent(1, 1, 50)).status());
  const int64_t used = fixture_.UsedAfterCollection();
  {
    const TestContent content = RandomContent(2, 3, 2 << 20);
    auto save = Start();
    ASSERT_OK(save->AddManifest(PartOf(content)));
    for (const std::string& chunk : ChunksOf(content)) {
      ASSERT_OK(save->Put(DigestOf(chunk), {chunk}));
    }
    EXPECT_GT(fixture_.disk().used_bytes(), used + (5 << 20));
  }
  EXPECT_EQ(fixture_.disk().used_bytes(), used);
  EXPECT_TRUE(fixture_.Packs().empty());
}

TEST_F(OneShotTest, ANameMadeOfNothingIsRefused) {
  EXPECT_TRUE(absl::IsInvalidArgument(
      fixture_.store().saves().StartOneShot(RequestOf({.model = "../x"})).status()));
  SaveRequest request = RequestOf({.model = "absent"});
  request.create_model = false;
  EXPECT_TRUE(absl::IsNotFound(fixture_.store().saves().StartOneShot(request).status()));
  request.create_model = true;
  request.base_version = 7;
  EXPECT_TRUE(absl::IsNotFound(fixture_.store().saves().StartOneShot(request).status()));
}

TEST_F(OneShotTest, AManifestOfManyPagesComesBackWhole) {
  TestContent content;
  for (int t = 0; t < 20'000; ++t) {
    content.push_back(
        Vector("a.long.name.of.a.tensor.that.fills.pages." + std::to_string(t),
               std::to_string(t)));
  }
  const auto saved = SaveOneShot(fixture_.store(), content);
  ASSERT_OK(saved.status());
  EXPECT_GE(saved->manifest_pages(), 2u);
  EXPECT_EQ(saved->tensor_count(), 20'000);
  fixture_.Close();
  fixture_.disk().LosePower();
  ASSERT_OK(fixture_.Reopen());
  EXPECT_EQ(*LoadAll(fixture_.store(), 1), Expected(content));
  int tensors = 0;
  for (uint32_t page = 0; page < saved->manifest_pages(); ++page) {
    tensors +=
        fixture_.store().checkpoints().ReadManifestPage(*saved, page)->tensors_size();
  }
  EXPECT_EQ(tensors, 20'000);
  EXPECT_TRUE(absl::IsNotFound(fixture_.store()
                                   .checkpoints()
                                   .ReadManifestPage(*saved, saved->manifest_pages())
                                   .status()));
}

}  // namespace
}  // namespace modelstore::storage
