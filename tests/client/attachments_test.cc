// Attachments: named bytes that a save brings beside its tensors, and that are read one
// by one.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "modelstore/v1/model_store.pb.h"
#include "tests/client/hooked_connection.h"
#include "tests/client/test_store.h"
#include "tests/support/checkpoints.h"

namespace modelstore::support {
namespace {

using ::testing::HasSubstr;

constexpr int64_t kMiB = int64_t{1} << 20;

class AttachmentsTest : public ::testing::Test {
 protected:
  absl::StatusOr<CheckpointInfo> Save(std::vector<Attachment> attachments,
                                      int64_t tensor_bytes = 1000) {
    SaveContent content;
    if (tensor_bytes > 0) {
      content = TensorSet({.seed = 1, .bytes = tensor_bytes}).Content();
    }
    content.attachments = std::move(attachments);
    return client_.SaveAsync("models/m", std::move(content)).Durable(TestDeadline());
  }

  TestStore store_;
  Client client_ = store_.NewClient();
};

TEST_F(AttachmentsTest, ComeBackAsTheyWereSavedOnEveryWay) {
  const std::string large = RandomBytes(7, 4 * kMiB);
  for (const int64_t tensor_bytes : {int64_t{1000}, 3 * kMiB}) {
    const auto saved = Save(
        {{"card.md", "text/markdown", "# Iris"}, {"program", "", large}, {"e", "", ""}},
        tensor_bytes);
    ASSERT_TRUE(saved.ok()) << saved.status();
    const auto info = client_.GetCheckpoint(saved->name);
    ASSERT_TRUE(info.ok()) << info.status();
    ASSERT_EQ(info->attachments.size(), 3u);
    for (const AttachmentInfo& listed : info->attachments) {
      const auto read = client_.GetAttachment(saved->name, listed.name);
      ASSERT_TRUE(read.ok()) << read.status();
      EXPECT_EQ(read->name, listed.name);
      EXPECT_EQ(read->media_type, listed.name == "card.md" ? "text/markdown" : "");
      EXPECT_TRUE(read->data == (listed.name == "card.md"   ? "# Iris"
                                 : listed.name == "program" ? large
                                                            : ""))
          << listed.name;
      EXPECT_EQ(listed.size_bytes, static_cast<int64_t>(read->data.size()));
      EXPECT_EQ(listed.digest.size(), 32u);
    }
  }
}

TEST_F(AttachmentsTest, AllPartsAreOfOneVersionThoughAnAliasMovesConcurrently) {
  const std::string first = RandomBytes(1, 4 * kMiB), second = RandomBytes(2, 4 * kMiB);
  ASSERT_TRUE(Save({{"p", "", first}}).ok());
  int parts = 0;
  Client client(std::make_shared<HookedConnection>(
      store_.connection(),
      [&](std::string_view method,
          const std::string&) -> std::optional<absl::StatusOr<std::string>> {
        if (method == "GetAttachment" && ++parts == 2) {
          EXPECT_TRUE(Save({{"p", "", second}}).ok());
        }
        return std::nullopt;
      }));
  const auto read = client.GetAttachment("models/m/checkpoints/latest", "p");
  ASSERT_TRUE(read.ok()) << read.status();
  EXPECT_TRUE(read->data == first);
  EXPECT_EQ(parts, 2);
}

TEST_F(AttachmentsTest, BytesThatDoNotMatchTheirDigestAreRefused) {
  ASSERT_TRUE(Save({{"p", "", "0123456789"}}).ok());
  Client client(std::make_shared<HookedConnection>(
      store_.connection(),
      [&](std::string_view method,
          const std::string& request) -> std::optional<absl::StatusOr<std::string>> {
        if (method != "GetAttachment") return std::nullopt;
        auto bytes = store_.connection().Call("/modelstore.v1.ModelStore/GetAttachment",
                                              request, TestDeadline());
        v1::GetAttachmentResponse answer;
        if (!bytes.ok() || !answer.ParseFromString(*bytes)) return bytes;
        answer.set_data("0123456780");
        return answer.SerializeAsString();
      }));
  EXPECT_TRUE(
      absl::IsDataLoss(client.GetAttachment("models/m/checkpoints/1", "p").status()));
}

TEST_F(AttachmentsTest, ASaveOfAttachmentsOnlyIsValid) {
  const auto saved = Save({{"notes", "text/plain", "x"}}, 0);
  ASSERT_TRUE(saved.ok()) << saved.status();
  EXPECT_EQ(client_.GetAttachment("models/m/checkpoints/latest", "notes")->data, "x");
}

TEST_F(AttachmentsTest, WhatDoesNotExistIsReportedByName) {
  const auto saved = Save({});
  ASSERT_TRUE(saved.ok()) << saved.status();
  const absl::Status none = client_.GetAttachment(saved->name, "card.md").status();
  EXPECT_TRUE(absl::IsNotFound(none)) << none;
  EXPECT_THAT(std::string(none.message()), HasSubstr("card.md"));
}

TEST_F(AttachmentsTest, AsLargeAsAMessageASectionTravelsAloneAndALargerOneIsRefused) {
  SaveContent content;
  content.sections.push_back(
      {.name = "blob", .value = Value(std::string(4'900'000, 'b')), .metadata = {}});
  // The metadata of the first message.
  content.metadata.description = std::string(4000, 'd');
  const auto saved = client_.SaveAsync("models/m", content).Durable(TestDeadline());
  ASSERT_TRUE(saved.ok()) << saved.status();
  content.sections[0].value = Value(std::string(6'000'000, 'b'));
  const absl::Status refused =
      client_.SaveAsync("models/m", content).Durable(TestDeadline()).status();
  EXPECT_TRUE(absl::IsInvalidArgument(refused)) << refused;
  EXPECT_THAT(std::string(refused.message()), HasSubstr("section blob"));
}

TEST_F(AttachmentsTest, WhatCannotBeSentIsRefusedByName) {
  const absl::Status large = Save({{"big", "", std::string(4 * kMiB + 1, 'x')}}).status();
  EXPECT_TRUE(absl::IsInvalidArgument(large)) << large;
  EXPECT_THAT(std::string(large.message()), HasSubstr("attachment big.data"));
  const absl::Status text = Save({{"a", "\xff", "x"}}).status();
  EXPECT_TRUE(absl::IsInvalidArgument(text)) << text;
  EXPECT_THAT(std::string(text.message()), HasSubstr("attachment a.media_type"));
  EXPECT_TRUE(absl::IsInvalidArgument(Save({{"a/b", "", "x"}}).status()));
  EXPECT_TRUE(absl::IsNotFound(client_.GetModel("models/m").status()));
}

}  // namespace
}  // namespace modelstore::support
