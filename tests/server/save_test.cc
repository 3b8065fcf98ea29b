// SaveCheckpoint: what a stream must be, and what is refused.
#include <gmock/gmock.h>

#include "absl/strings/str_cat.h"
#include "tests/server/harness.h"

namespace modelstore::server {
namespace {

using ::testing::HasSubstr;

class SaveTest : public testing::Test {
 protected:
  SaveTest()
      : tensor_(MakeTensor("w", v1::DTYPE_FLOAT32, {4, 8}, MakeBytes(128, 1), 64)) {}

  // Header and manifest in the first message, chunks in the second, then finish.
  std::vector<v1::SaveCheckpointRequest> Requests(const std::string& request_id = "") {
    std::vector<v1::SaveCheckpointRequest> requests(3);
    requests[0].set_parent("models/m");
    requests[0].set_create_model(true);
    requests[0].set_request_id(request_id);
    requests[0].mutable_checkpoint()->set_epoch(4);
    requests[0].mutable_checkpoint()->set_loss(0.25);
    *requests[0].mutable_manifest()->add_tensors() = tensor_.tensor;
    for (const auto& chunk : tensor_.chunks) AddChunk(&requests[1], chunk);
    requests[2].set_finish(true);
    return requests;
  }

  bool ModelHasVersion(int64_t version) {
    return harness_.store().checkpoints().Get("m", version).ok();
  }

  Harness harness_;
  TestTensor tensor_;
};

TEST_F(SaveTest, ASavedCheckpointReportsItsMetadata) {
  auto saved = harness_.Save(Requests("run-1"));
  ASSERT_TRUE(saved.ok()) << saved.status();
  EXPECT_EQ(saved->name(), "models/m/checkpoints/1");
  EXPECT_EQ(saved->epoch(), 4);
  EXPECT_EQ(saved->loss(), 0.25);
  EXPECT_FALSE(saved->has_step());
  EXPECT_EQ(saved->request_id(), "run-1");
  EXPECT_EQ(saved->origin(), v1::ORIGIN_SAVED);
  EXPECT_EQ(saved->logical_bytes(), 128);
  EXPECT_EQ(saved->model_uid().empty(), false);
  EXPECT_EQ(saved->base_checkpoint(), "");
  auto second = harness_.Save(Requests("run-2"));
  ASSERT_TRUE(second.ok()) << second.status();
  EXPECT_EQ(second->base_checkpoint(), "models/m/checkpoints/1");
  EXPECT_EQ(second->stored_bytes(), 0) << "every chunk is the base's";
}

TEST_F(SaveTest, AValueThatNamesNoTensorOfItsSectionIsRefusedByItsPlace) {
  auto requests = Requests();
  v1::Section* section = requests[0].mutable_manifest()->add_sections();
  section->set_name("extra");
  auto* entry = section->mutable_value()->mutable_dict_value()->add_entries();
  entry->mutable_key()->set_string_value("a");
  entry->mutable_value()->mutable_list_value()->add_values()->set_tensor_value("w");
  const absl::Status refused = harness_.Save(requests).status();
  EXPECT_EQ(refused.code(), absl::StatusCode::kInvalidArgument) << refused;
  EXPECT_THAT(std::string(refused.message()),
              HasSubstr("section \"extra\", value a/0: no tensor of the section has the "
                        "key \"w\""));
  EXPECT_FALSE(ModelHasVersion(1));

  // The tensor may follow its section.
  v1::ManifestPart more;
  *more.add_tensors() = MakeTensor("w", v1::DTYPE_FLOAT32, {0}, "").tensor;
  more.mutable_tensors(0)->set_section("extra");
  requests.insert(requests.begin() + 1, v1::SaveCheckpointRequest());
  *requests[1].mutable_manifest() = more;
  auto saved = harness_.Save(requests);
  ASSERT_TRUE(saved.ok()) << saved.status();
  // What was checked leaves no trace in the version.
  auto read = harness_.store().checkpoints().Get("m", 1);
  ASSERT_TRUE(read.ok()) << read.status();
  for (const auto& stored : read->sections()) {
    EXPECT_EQ(stored.named_tensors_size(), 0);
  }
}

TEST_F(SaveTest, ATensorOfBoolsHoldsNoOtherBytesThan0And1) {
  const auto save = [&](v1::DType dtype, const std::string& bytes) {
    return harness_.SaveTensors("models/m", {MakeTensor("mask", dtype, {3}, bytes)});
  };
  const std::string seven("\0\1\7", 3);
  const absl::Status refused = save(v1::DTYPE_BOOL, seven).status();
  EXPECT_EQ(refused.code(), absl::StatusCode::kInvalidArgument) << refused;
  EXPECT_THAT(
      std::string(refused.message()),
      HasSubstr("tensor model:mask: is of bools, and chunk 0 holds a byte that is "
                "neither 0 nor 1"));
  EXPECT_TRUE(save(v1::DTYPE_BOOL, std::string("\0\1\1", 3)).ok());
  // Also if the base holds the bytes already, as another type.
  EXPECT_TRUE(save(v1::DTYPE_UINT8, seven).ok());
  EXPECT_EQ(save(v1::DTYPE_BOOL, seven).status().code(),
            absl::StatusCode::kInvalidArgument);
  EXPECT_TRUE(save(v1::DTYPE_UINT8, std::string("\1\0\1", 3)).ok());
  EXPECT_TRUE(save(v1::DTYPE_BOOL, std::string("\1\0\1", 3)).ok());
}

TEST_F(SaveTest, ChunksWithoutDigestsFillTheManifestInOrder) {
  auto requests = Requests();
  requests[0]
      .mutable_manifest()
      ->mutable_tensors(0)
      ->mutable_pieces(0)
      ->clear_chunk_digests();
  requests[1].Clear();
  for (const auto& chunk : tensor_.chunks) AddChunk(&requests[1], chunk, false);
  auto saved = harness_.Save(requests);
  ASSERT_TRUE(saved.ok()) << saved.status();
  v1::LoadCheckpointRequest load;
  load.set_name("models/m/checkpoints/latest");
  auto loaded = harness_.Load(load);
  ASSERT_TRUE(loaded.ok()) << loaded.status();
  EXPECT_EQ(loaded->bytes, tensor_.bytes);
  auto with_digests = harness_.Save(Requests());
  ASSERT_TRUE(with_digests.ok()) << with_digests.status();
  EXPECT_EQ(with_digests->manifest_digest(), saved->manifest_digest());
}

TEST_F(SaveTest, TwoWaysToSayTheSameBoxMakeOneManifest) {
  auto first = harness_.Save(Requests());
  ASSERT_TRUE(first.ok()) << first.status();
  auto requests = Requests();
  v1::Piece* piece =
      requests[0].mutable_manifest()->mutable_tensors(0)->mutable_pieces(0);
  for (const int64_t zero : {0, 0}) piece->add_offset(zero);
  for (const int64_t size : {4, 8}) piece->add_size(size);
  requests[0].mutable_manifest()->mutable_tensors(0)->set_section("model");
  auto second = harness_.Save(requests);
  ASSERT_TRUE(second.ok()) << second.status();
  EXPECT_EQ(first->manifest_digest(), second->manifest_digest());
}

TEST_F(SaveTest, WithoutFinishNothingIsSaved) {
  auto requests = Requests();
  requests.pop_back();
  EXPECT_THAT(harness_.Save(requests),
              FailsWith(absl::StatusCode::kInvalidArgument, "finish"));
  EXPECT_FALSE(ModelHasVersion(1));
}

TEST_F(SaveTest, ASaveOfNothingIsRefusedUnlessItSaysSo) {
  v1::SaveCheckpointRequest request;
  request.set_parent("models/m");
  request.set_create_model(true);
  request.set_finish(true);
  EXPECT_THAT(harness_.Save({request}),
              FailsWith(absl::StatusCode::kInvalidArgument, "allow_empty"));
  EXPECT_FALSE(ModelHasVersion(1));
  request.set_allow_empty(true);
  EXPECT_TRUE(harness_.Save({request}).ok());
  EXPECT_TRUE(ModelHasVersion(1));
}

TEST_F(SaveTest, ACutStreamLeavesNothing) {
  auto session =
      harness_.service().OpenInbound(absl::StrCat(kTransfer, "SaveCheckpoint"));
  ASSERT_TRUE(session.ok());
  for (const auto& request : Requests()) {
    const std::string bytes = request.SerializeAsString();
    const absl::string_view view(bytes);
    ASSERT_TRUE((*session)->OnMessage({view}).ok());
  }
  session->reset();
  EXPECT_FALSE(ModelHasVersion(1));
}

TEST_F(SaveTest, FinishBeforeEveryChunkIsRefused) {
  auto requests = Requests();
  requests[1].Clear();
  AddChunk(&requests[1], tensor_.chunks[0]);
  EXPECT_THAT(harness_.Save(requests),
              FailsWith(absl::StatusCode::kFailedPrecondition, ""));
  EXPECT_FALSE(ModelHasVersion(1));
}

TEST_F(SaveTest, AKeyThatIsGivenTwiceIsCalledSo) {
  auto requests = Requests();
  const TestTensor again =
      MakeTensor("w", v1::DTYPE_FLOAT32, {4, 8}, MakeBytes(128, 2), 64);
  *requests[0].mutable_manifest()->add_tensors() = again.tensor;
  for (const auto& chunk : again.chunks) AddChunk(&requests[1], chunk);
  EXPECT_THAT(harness_.Save(requests),
              FailsWith(absl::StatusCode::kInvalidArgument,
                        "tensor model:w: the key is given twice"));
  requests = Requests();
  *requests[0].mutable_manifest()->add_tensors() =
      MakeTensor("w", v1::DTYPE_FLOAT32, {8, 4}, MakeBytes(128, 1), 64).tensor;
  EXPECT_THAT(harness_.Save(requests),
              FailsWith(absl::StatusCode::kInvalidArgument,
                        "tensor model:w: the key is given twice"));
}

TEST_F(SaveTest, MissingPiecesAreNotBlamedOnAChunk) {
  auto requests = Requests();
  requests[0].mutable_manifest()->mutable_tensors(0)->clear_pieces();
  EXPECT_THAT(harness_.Save(requests), FailsWith(absl::StatusCode::kInvalidArgument,
                                                 "manifest.tensors[0].pieces: required"));
}

TEST_F(SaveTest, TheSameRequestIdMakesOneVersion) {
  auto first = harness_.Save(Requests("once"));
  ASSERT_TRUE(first.ok()) << first.status();
  auto again = harness_.Save(Requests("once"));
  ASSERT_TRUE(again.ok()) << again.status();
  EXPECT_EQ(again->version(), first->version());
  EXPECT_FALSE(ModelHasVersion(2));
  auto other = Requests("once");
  other[0].mutable_checkpoint()->set_epoch(5);
  EXPECT_THAT(harness_.Save(other),
              FailsWith(absl::StatusCode::kInvalidArgument, "once"));
}

TEST_F(SaveTest, AnotherHeadThanExpectedAborts) {
  ASSERT_TRUE(harness_.Save(Requests()).ok());
  auto requests = Requests();
  requests[0].set_expect_no_version(true);
  EXPECT_THAT(harness_.Save(requests),
              FailsWith(absl::StatusCode::kAborted, "expected was none"));
  requests[0].set_expected_latest_version(1);
  EXPECT_THAT(harness_.Save(requests),
              FailsWith(absl::StatusCode::kInvalidArgument, "expected_latest_version"));
  requests[0].clear_expect_no_version();
  for (const int64_t no_version : {0, -1}) {
    requests[0].set_expected_latest_version(no_version);
    EXPECT_THAT(harness_.Save(requests),
                FailsWith(absl::StatusCode::kInvalidArgument, "expected_latest_version"));
  }
  requests[0].set_expected_latest_version(1);
  EXPECT_TRUE(harness_.Save(requests).ok());
}

TEST_F(SaveTest, ALineageMayStartOverOrFromAnotherVersion) {
  ASSERT_TRUE(harness_.Save(Requests()).ok());
  auto requests = Requests();
  requests[0].set_no_base(true);
  auto fresh = harness_.Save(requests);
  ASSERT_TRUE(fresh.ok()) << fresh.status();
  EXPECT_EQ(fresh->base_checkpoint(), "");
  EXPECT_GT(fresh->stored_bytes(), 0);
  requests[0].mutable_checkpoint()->set_base_checkpoint("models/m/checkpoints/1");
  EXPECT_THAT(harness_.Save(requests), FailsWith(absl::StatusCode::kInvalidArgument,
                                                 "checkpoint.base_checkpoint"));
  requests[0].clear_no_base();
  auto branched = harness_.Save(requests);
  ASSERT_TRUE(branched.ok()) << branched.status();
  EXPECT_EQ(branched->base_checkpoint(), "models/m/checkpoints/1");
  requests[0].mutable_checkpoint()->set_base_checkpoint("models/m/checkpoints/99");
  EXPECT_THAT(harness_.Save(requests), FailsWith(absl::StatusCode::kNotFound, "99"));
}

TEST_F(SaveTest, AMissingModelIsNotMadeUnasked) {
  auto requests = Requests();
  requests[0].set_create_model(false);
  EXPECT_THAT(harness_.Save(requests),
              FailsWith(absl::StatusCode::kNotFound, "models/m"));
}

TEST_F(SaveTest, BadStreamsAreRefusedByField) {
  const auto invalid = absl::StatusCode::kInvalidArgument;
  EXPECT_THAT(harness_.Save({}), FailsWith(invalid, "without a message"));

  auto requests = Requests();
  requests[1].mutable_data()->at(3) ^= 1;
  EXPECT_THAT(harness_.Save(requests), FailsWith(invalid, "chunks[0]"));

  requests = Requests();
  requests[1].mutable_chunks(1)->set_size_bytes(int64_t{1} << 62);
  EXPECT_THAT(harness_.Save(requests), FailsWith(invalid, "chunks[1].size_bytes"));
  requests[1].mutable_chunks(1)->set_size_bytes(INT64_MIN);
  EXPECT_THAT(harness_.Save(requests), FailsWith(invalid, "chunks[1].size_bytes"));
  requests[1].mutable_chunks(1)->set_size_bytes(63);
  EXPECT_THAT(harness_.Save(requests), FailsWith(invalid, "data"));

  requests = Requests();
  requests[1].mutable_chunks(0)->set_digest("short");
  EXPECT_THAT(harness_.Save(requests), FailsWith(invalid, "chunks[0].digest"));

  requests = Requests();
  requests[2].set_parent("models/m");
  EXPECT_THAT(harness_.Save(requests), FailsWith(invalid, "header"));

  requests = Requests();
  requests.push_back(requests[1]);
  EXPECT_THAT(harness_.Save(requests), FailsWith(invalid, "finish"));

  requests = Requests();
  *requests[2].mutable_manifest()->add_tensors() = tensor_.tensor;
  EXPECT_THAT(harness_.Save(requests), FailsWith(invalid, "manifest"));

  requests = Requests();
  requests[0].set_parent("models/m/checkpoints/1");
  EXPECT_THAT(harness_.Save(requests), FailsWith(invalid, "parent"));
  EXPECT_FALSE(ModelHasVersion(1));
}

TEST_F(SaveTest, AChunkBeyondTheManifestIsRefused) {
  auto requests = Requests();
  requests[0]
      .mutable_manifest()
      ->mutable_tensors(0)
      ->mutable_pieces(0)
      ->clear_chunk_digests();
  requests[1].Clear();
  for (const auto& chunk : tensor_.chunks) AddChunk(&requests[1], chunk, false);
  AddChunk(&requests[1], MakeBytes(10, 99), false);
  EXPECT_FALSE(harness_.Save(requests).ok());
  EXPECT_FALSE(ModelHasVersion(1));
}

TEST_F(SaveTest, MoreTensorsThanTheLimitAreRefused) {
  auto session =
      harness_.service().OpenInbound(absl::StrCat(kTransfer, "SaveCheckpoint"));
  ASSERT_TRUE(session.ok());
  v1::SaveCheckpointRequest request;
  request.set_parent("models/m");
  request.set_create_model(true);
  absl::Status status;
  int sent = 0;
  while (status.ok() && sent < 300'000) {
    for (int i = 0; i < 20'000; ++i) {
      v1::Tensor* t = request.mutable_manifest()->add_tensors();
      t->set_key(absl::StrCat("t", sent++));
      t->set_dtype(v1::DTYPE_BOOL);
      t->add_shape(0);
    }
    const std::string bytes = request.SerializeAsString();
    const absl::string_view view(bytes);
    status = (*session)->OnMessage({view});
    request.Clear();
  }
  EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument) << status;
  EXPECT_THAT(std::string(status.message()), testing::HasSubstr("262144"));
}

TEST_F(SaveTest, AttachmentsAreReportedWithoutTheirBytes) {
  auto requests = Requests();
  v1::Attachment* card = requests[0].mutable_manifest()->add_attachments();
  card->set_name("card.md");
  card->set_media_type("text/markdown");
  card->set_data("# a model");
  auto saved = harness_.Save(requests);
  ASSERT_TRUE(saved.ok()) << saved.status();
  ASSERT_EQ(saved->attachments_size(), 1);
  EXPECT_EQ(saved->attachments(0).size_bytes(), 9);
  EXPECT_EQ(saved->attachments(0).digest().size(), 32u);
}

TEST_F(SaveTest, MoreBytesOfAttachmentsThanACheckpointMayHaveAreRefused) {
  std::vector<v1::SaveCheckpointRequest> requests;
  for (int i = 0; i < 5; ++i) {
    v1::SaveCheckpointRequest& request = requests.emplace_back();
    if (i == 0) request.set_parent("models/m");
    request.set_create_model(i == 0);
    v1::Attachment* attachment = request.mutable_manifest()->add_attachments();
    attachment->set_name(absl::StrCat("a", i));
    attachment->set_data(std::string(i < 4 ? 4 << 20 : 1, 'x'));
  }
  requests.emplace_back().set_finish(true);
  EXPECT_THAT(harness_.Save(requests), FailsWith(absl::StatusCode::kInvalidArgument,
                                                 "manifest.attachments: 16777217 bytes"));
}

}  // namespace
}  // namespace modelstore::server
