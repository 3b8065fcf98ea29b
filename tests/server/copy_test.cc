// CopyCheckpoint: what is copied, what it costs, what it refuses; and GetAttachment,
// which reads what comes along.
#include "absl/strings/str_cat.h"
#include "proto/contract/errors.h"
#include "tests/server/harness.h"

namespace modelstore::server {
namespace {

constexpr auto kInvalid = absl::StatusCode::kInvalidArgument;

class CopyTest : public testing::Test {
 protected:
  // Version 1 of models/iris: a tensor of 2 MiB, values, attachments, metadata.
  void SetUp() override {
    const TestTensor weights =
        MakeTensor("w", v1::DTYPE_FLOAT32, {512, 1024}, MakeBytes(2 << 20, 5), 1 << 20);
    v1::SaveCheckpointRequest first;
    first.set_parent("models/iris");
    first.set_create_model(true);
    v1::Checkpoint* checkpoint = first.mutable_checkpoint();
    checkpoint->set_epoch(7);
    checkpoint->set_loss(0.25);
    (*checkpoint->mutable_metrics())["accuracy"] = 0.97;
    (*checkpoint->mutable_labels())["data"] = "clean";
    checkpoint->set_description("the original");
    *first.mutable_manifest()->add_tensors() = weights.tensor;
    v1::Section* extra = first.mutable_manifest()->add_sections();
    extra->set_name("extra");
    extra->mutable_value()->set_string_value("kept");
    for (const auto& [name, data] :
         {std::pair<std::string, std::string>{"card.md", card_}, {"empty", ""}}) {
      v1::Attachment* attachment = first.mutable_manifest()->add_attachments();
      attachment->set_name(name);
      attachment->set_media_type("text/markdown");
      attachment->set_data(data);
    }
    std::vector<v1::SaveCheckpointRequest> requests = {first};
    for (const auto& chunk : weights.chunks) AddChunk(&requests.emplace_back(), chunk);
    requests.emplace_back().set_finish(true);
    auto saved = harness_.Save(requests);
    ASSERT_TRUE(saved.ok()) << saved.status();
    bytes_ = weights.bytes;
  }

  template <typename Response>
  absl::StatusOr<Response> Call(const char* method,
                                const google::protobuf::Message& request) {
    return harness_.Call<Response>(absl::StrCat(kStore, method), request);
  }
  static v1::CopyCheckpointRequest Into(const std::string& parent,
                                        const std::string& source = "latest") {
    v1::CopyCheckpointRequest request;
    request.set_name("models/iris/checkpoints/" + source);
    request.set_parent(parent);
    request.set_create_model(true);
    return request;
  }
  absl::StatusOr<v1::Checkpoint> Copy(const v1::CopyCheckpointRequest& request) {
    return Call<v1::Checkpoint>("CopyCheckpoint", request);
  }
  std::string Load(const std::string& name) {
    v1::LoadCheckpointRequest request;
    request.set_name(name);
    auto loaded = harness_.Load(request);
    return loaded.ok() ? loaded->Of("w") : std::string(loaded.status().message());
  }
  int64_t PackBytes() {
    return Call<v1::Stats>("GetStats", v1::GetStatsRequest())->pack_bytes();
  }
  absl::StatusOr<v1::GetAttachmentResponse> Attachment(const std::string& checkpoint,
                                                       const std::string& name,
                                                       int64_t offset = 0,
                                                       int32_t max_bytes = 0) {
    v1::GetAttachmentRequest request;
    request.set_parent(checkpoint);
    request.set_attachment(name);
    request.set_offset(offset);
    request.set_max_bytes(max_bytes);
    return Call<v1::GetAttachmentResponse>("GetAttachment", request);
  }

  Harness harness_;
  const std::string card_ = MakeBytes(4 << 20, 9);
  std::string bytes_;
};

TEST_F(CopyTest, ACopyHasEverythingOfItsSourceAndNoBytesOfItsOwn) {
  const int64_t before = PackBytes();
  v1::CopyCheckpointRequest request = Into("models/released");
  (*request.mutable_checkpoint()->mutable_labels())["stage"] = "release";
  request.mutable_checkpoint()->set_description("v1.0");
  auto copy = Copy(request);
  ASSERT_TRUE(copy.ok()) << copy.status();
  EXPECT_EQ(copy->name(), "models/released/checkpoints/1");
  EXPECT_EQ(copy->base_checkpoint(), "models/iris/checkpoints/1");
  EXPECT_EQ(copy->origin(), v1::ORIGIN_COPIED);
  EXPECT_EQ(copy->epoch(), 7);
  EXPECT_EQ(copy->loss(), 0.25);
  EXPECT_EQ(copy->metrics().at("accuracy"), 0.97);
  EXPECT_EQ(copy->labels().size(), 1u);
  EXPECT_EQ(copy->labels().at("stage"), "release");
  EXPECT_EQ(copy->description(), "v1.0");
  EXPECT_EQ(copy->stored_bytes(), 0);
  EXPECT_EQ(copy->logical_bytes(), 2 << 20);
  EXPECT_EQ(PackBytes(), before);
  EXPECT_EQ(Load("models/released/checkpoints/1"), bytes_);
  v1::GetSectionRequest section;
  section.set_parent("models/released/checkpoints/1");
  section.set_section("extra");
  EXPECT_EQ(Call<v1::Section>("GetSection", section)->value().string_value(), "kept");
  EXPECT_EQ(Attachment("models/released/checkpoints/1", "card.md")->info().size_bytes(),
            static_cast<int64_t>(card_.size()));
}

TEST_F(CopyTest, ACopyHasTheFiguresThatTheRequestSetsAndTheSourcesOthers) {
  v1::CopyCheckpointRequest request = Into("models/tuned");
  v1::Checkpoint& metadata = *request.mutable_checkpoint();
  metadata.set_epoch(0);
  metadata.set_step(12);
  (*metadata.mutable_metrics())["bleu"] = 0.5;
  metadata.set_version(9);  // the server's to give
  request.set_request_id("tune");
  auto copy = Copy(request);
  ASSERT_TRUE(copy.ok()) << copy.status();
  EXPECT_EQ(copy->version(), 1);
  EXPECT_TRUE(copy->has_epoch());
  EXPECT_EQ(copy->epoch(), 0);
  EXPECT_EQ(copy->step(), 12);
  EXPECT_EQ(copy->loss(), 0.25);
  EXPECT_EQ(copy->metrics().size(), 1u);
  EXPECT_EQ(copy->metrics().at("bleu"), 0.5);
  metadata.clear_version();
  EXPECT_EQ(Copy(request)->name(), copy->name());
  metadata.set_epoch(1);
  EXPECT_THAT(Copy(request), FailsWith(kInvalid, "request_id"));
  v1::CopyCheckpointRequest loss = Into("models/tuned");
  loss.mutable_checkpoint()->set_loss(0.125);
  copy = Copy(loss);
  ASSERT_TRUE(copy.ok()) << copy.status();
  EXPECT_EQ(copy->epoch(), 7);
  EXPECT_EQ(copy->loss(), 0.125);
  EXPECT_EQ(copy->metrics().at("accuracy"), 0.97);
}

TEST_F(CopyTest, EitherSideIsDeletedWithoutAffectingTheOther) {
  ASSERT_TRUE(Copy(Into("models/iris")).ok());
  ASSERT_TRUE(Copy(Into("models/released")).ok());
  v1::DeleteModelRequest gone;
  gone.set_name("models/iris");
  gone.set_force(true);
  ASSERT_TRUE(Call<v1::DeleteModelResponse>("DeleteModel", gone).ok());
  ASSERT_TRUE(harness_.store().maintenance().CollectGarbage(false, nullptr).ok());
  EXPECT_EQ(Load("models/released/checkpoints/1"), bytes_);
}

TEST_F(CopyTest, TheSameRequestIsTheSameVersionThoughItsSourceHasMoved) {
  v1::CopyCheckpointRequest request = Into("models/released");
  request.set_request_id("release-7");
  auto copy = Copy(request);
  ASSERT_TRUE(copy.ok()) << copy.status();
  ASSERT_TRUE(harness_
                  .SaveTensors("models/iris",
                               {MakeTensor("v", v1::DTYPE_INT32, {1}, MakeBytes(4, 1))})
                  .ok());
  request.set_expect_no_version(true);
  auto again = Copy(request);
  ASSERT_TRUE(again.ok()) << again.status();
  EXPECT_EQ(again->SerializeAsString(), copy->SerializeAsString());
  request.mutable_checkpoint()->set_description("something else");
  const absl::Status reused = Copy(request).status();
  EXPECT_EQ(reused.code(), kInvalid) << reused;
  const auto detail = ErrorDetailOf(reused);
  ASSERT_TRUE(detail.has_value()) << reused;
  EXPECT_EQ(detail->reason, "REQUEST_ID_REUSED");
}

TEST_F(CopyTest, WhatItRefusesNamesTheFieldOrTheResource) {
  v1::CopyCheckpointRequest request = Into("models/released");
  request.set_name("models/iris");
  EXPECT_THAT(Copy(request), FailsWith(kInvalid, "name"));
  EXPECT_THAT(Copy(Into("released")), FailsWith(kInvalid, "parent"));
  request = Into("models/released");
  request.set_request_id("a\nb");
  EXPECT_THAT(Copy(request), FailsWith(kInvalid, "request_id"));
  request = Into("models/released");
  (*request.mutable_checkpoint()->mutable_labels())[""] = "x";
  EXPECT_THAT(Copy(request), FailsWith(kInvalid, "labels"));
  EXPECT_THAT(Copy(Into("models/released", "9")),
              FailsWith(absl::StatusCode::kNotFound, "models/iris/checkpoints/9"));
  EXPECT_THAT(Copy(Into("models/released", "production")),
              FailsWith(absl::StatusCode::kNotFound, "production"));
  request = Into("models/released");
  request.set_create_model(false);
  EXPECT_THAT(Copy(request), FailsWith(absl::StatusCode::kNotFound, "models/released"));
  request = Into("models/iris");
  request.set_expected_latest_version(3);
  for (const bool validate_only : {true, false}) {
    request.set_validate_only(validate_only);
    EXPECT_THAT(Copy(request),
                FailsWith(absl::StatusCode::kAborted, "latest version is 1"));
  }
  request.set_expect_no_version(true);
  EXPECT_THAT(Copy(request), FailsWith(kInvalid, "expected_latest_version"));
  request.clear_expected_latest_version();
  EXPECT_THAT(Copy(request), FailsWith(absl::StatusCode::kAborted, "expected was none"));
  request.clear_expect_no_version();
  request.set_expected_latest_version(0);
  EXPECT_THAT(Copy(request), FailsWith(kInvalid, "expected_latest_version"));
}

TEST_F(CopyTest, APlannedCopyReportsWhatWouldBeAndMakesNothing) {
  v1::CopyCheckpointRequest request = Into("models/released");
  request.set_validate_only(true);
  auto planned = Copy(request);
  ASSERT_TRUE(planned.ok()) << planned.status();
  EXPECT_EQ(planned->name(), "models/released/checkpoints/1");
  EXPECT_EQ(planned->origin(), v1::ORIGIN_COPIED);
  EXPECT_EQ(planned->logical_bytes(), 2 << 20);
  v1::GetModelRequest model;
  model.set_name("models/released");
  EXPECT_THAT(Call<v1::Model>("GetModel", model),
              FailsWith(absl::StatusCode::kNotFound, "released"));
}

TEST_F(CopyTest, AnAttachmentIsReadPartByPart) {
  std::string read;
  int64_t offset = 0;
  int parts = 0;
  do {
    auto part = Attachment("models/iris/checkpoints/latest", "card.md", offset);
    ASSERT_TRUE(part.ok()) << part.status();
    EXPECT_EQ(part->info().name(), "card.md");
    EXPECT_EQ(part->info().media_type(), "text/markdown");
    EXPECT_LE(part->data().size(), size_t{3} << 20);
    read += part->data();
    offset = part->next_offset();
    ++parts;
  } while (offset != 0);
  EXPECT_EQ(parts, 2);
  EXPECT_EQ(read, card_);
  auto some = Attachment("models/iris/checkpoints/1", "card.md", 10, 5);
  ASSERT_TRUE(some.ok()) << some.status();
  EXPECT_EQ(some->data(), card_.substr(10, 5));
  EXPECT_EQ(some->next_offset(), 15);
  auto empty = Attachment("models/iris/checkpoints/1", "empty");
  ASSERT_TRUE(empty.ok()) << empty.status();
  EXPECT_EQ(empty->data(), "");
  EXPECT_FALSE(empty->has_next_offset());
}

TEST_F(CopyTest, BadReadsOfAttachmentsAreRefused) {
  const std::string checkpoint = "models/iris/checkpoints/1";
  EXPECT_THAT(Attachment(checkpoint, "absent"),
              FailsWith(absl::StatusCode::kNotFound, "attachments/absent"));
  EXPECT_THAT(Attachment("models/iris/checkpoints/9", "card.md"),
              FailsWith(absl::StatusCode::kNotFound, "checkpoints/9"));
  EXPECT_THAT(Attachment("models/iris", "card.md"), FailsWith(kInvalid, "parent"));
  EXPECT_THAT(Attachment(checkpoint, "card.md", -1), FailsWith(kInvalid, "offset"));
  EXPECT_THAT(Attachment(checkpoint, "card.md", 0, -1), FailsWith(kInvalid, "max_bytes"));
  EXPECT_THAT(Attachment(checkpoint, "card.md", int64_t{1} << 40),
              FailsWith(absl::StatusCode::kOutOfRange, "offset"));
}

}  // namespace
}  // namespace modelstore::server
