#include "server/core/validation.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <functional>
#include <string>

#include "proto/contract/limits.h"
#include "server/core/convert.h"
#include "tests/server/harness.h"

namespace modelstore::server {
namespace {

using ::testing::HasSubstr;

v1::Tensor Plain() {
  return MakeTensor("w", v1::DTYPE_FLOAT32, {4, 8}, MakeBytes(128, 1), 64).tensor;
}

absl::Status Check(const v1::Tensor& tensor) {
  return ValidateTensor("t", tensor, Digests::kRequired);
}

void ExpectRefused(const v1::Tensor& tensor, const std::string& field) {
  const absl::Status status = Check(tensor);
  EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument) << status;
  EXPECT_THAT(std::string(status.message()), HasSubstr(field));
}

TEST(ValidationTest, ATensorsFieldsAreNamedWhenRefused) {
  EXPECT_TRUE(Check(Plain()).ok()) << Check(Plain());
  v1::Tensor t = Plain();
  t.set_key("");
  ExpectRefused(t, "t.key");
  t = Plain();
  t.set_section("no spaces");
  ExpectRefused(t, "t.section");
  t = Plain();
  t.set_dtype(v1::DTYPE_UNSPECIFIED);
  ExpectRefused(t, "t.dtype");
  t = Plain();
  t.set_dtype(static_cast<v1::DType>(99));
  ExpectRefused(t, "t.dtype");
  t = Plain();
  t.set_shape(0, -1);
  ExpectRefused(t, "t.shape");
  t = Plain();
  t.set_shape(0, INT64_MAX);
  ExpectRefused(t, "t.shape");
  t = Plain();
  t.set_tied_to("model:v");
  ExpectRefused(t, "t.pieces");
}

TEST(ValidationTest, AnArchitectureIsATreeWithNamesAndValuesWithinBounds) {
  v1::Checkpoint checkpoint;
  v1::Architecture::Module* root = checkpoint.mutable_architecture()->mutable_root();
  const auto refusal = [&] {
    const absl::Status status = ValidateCheckpoint("checkpoint", checkpoint);
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument) << status;
    return std::string(status.message());
  };
  EXPECT_THAT(refusal(), HasSubstr("checkpoint.architecture.root.type"));
  root->set_type("Net");
  root->add_children()->set_type("ReLU");
  EXPECT_THAT(refusal(), HasSubstr("checkpoint.architecture.root.children[0].name"));
  root->mutable_children(0)->set_name("act");
  root->add_forward("act");
  EXPECT_TRUE(ValidateCheckpoint("checkpoint", checkpoint).ok());
  auto* argument = root->mutable_children(0)->add_arguments();
  argument->set_name("inplace");
  EXPECT_THAT(refusal(),
              HasSubstr("checkpoint.architecture.root.children[0].arguments: ReLU: "
                        "`inplace` must be True or False"));
  argument->mutable_value()->set_bool_value(true);
  EXPECT_TRUE(ValidateCheckpoint("checkpoint", checkpoint).ok());
  // Of a type that is not known only that a value is one.
  argument = root->add_arguments();
  argument->set_name("own");
  EXPECT_THAT(refusal(), HasSubstr("checkpoint.architecture: argument own"));
}

TEST(ValidationTest, APieceLiesWithinItsTensorAndIsCutAsItSays) {
  v1::Tensor t = Plain();
  t.mutable_pieces(0)->set_chunk_size_bytes(63);
  ExpectRefused(t, "t.pieces[0].chunk_size_bytes");
  t.mutable_pieces(0)->set_chunk_size_bytes(kMaxChunkBytes + 4);
  ExpectRefused(t, "t.pieces[0].chunk_size_bytes");
  t.mutable_pieces(0)->set_chunk_size_bytes(INT64_MIN);
  ExpectRefused(t, "t.pieces[0].chunk_size_bytes");
  t = Plain();
  t.mutable_pieces(0)->mutable_chunk_digests()->append("x");
  ExpectRefused(t, "t.pieces[0].chunk_digests");
  t = Plain();
  t.mutable_pieces(0)->clear_chunk_digests();
  ExpectRefused(t, "t.pieces[0].chunk_digests");
  EXPECT_TRUE(ValidateTensor("t", t, Digests::kOptional).ok());
  t = Plain();
  t.mutable_pieces(0)->add_offset(0);
  ExpectRefused(t, "t.pieces[0].offset");
  t = Plain();
  for (const int64_t offset : {INT64_MAX, int64_t{0}}) {
    t.mutable_pieces(0)->add_offset(offset);
  }
  ExpectRefused(t, "t.pieces[0]");
  t = Plain();
  t.set_shape(0, int64_t{1} << 40);
  t.mutable_pieces(0)->set_chunk_size_bytes(0);
  ExpectRefused(t, "t.pieces[0].chunk_size_bytes");
}

TEST(ValidationTest, ABoxThatIsNoRangeOfRowsIsNotBuilt) {
  v1::Tensor t = Plain();
  for (const int64_t offset : {0, 4}) t.mutable_pieces(0)->add_offset(offset);
  for (const int64_t size : {4, 4}) t.mutable_pieces(0)->add_size(size);
  EXPECT_EQ(Check(t).code(), absl::StatusCode::kUnimplemented) << Check(t);
}

TEST(ValidationTest, AnEmptyTensorMayHaveAPieceWithoutChunks) {
  v1::Tensor t = MakeTensor("w", v1::DTYPE_FLOAT64, {0, 7}, "").tensor;
  EXPECT_TRUE(Check(t).ok()) << Check(t);
  t.clear_pieces();
  EXPECT_TRUE(Check(t).ok()) << Check(t);
}

TEST(ValidationTest, AValueIsRefusedByItsSectionAndPlace) {
  v1::Section section;
  section.set_name("extra");
  std::vector<NamedTensor> named;
  auto* entry = section.mutable_value()->mutable_dict_value()->add_entries();
  entry->mutable_key()->set_string_value("a/b");
  auto* set = entry->mutable_value()->mutable_list_value()->add_values();
  EXPECT_THAT(std::string(ValidateSection("s", section, named).message()),
              HasSubstr("s.value: section \"extra\", value a~1b/0: a value has no kind"));
  set->mutable_set_value()->add_values()->mutable_list_value();
  EXPECT_THAT(
      std::string(ValidateSection("s", section, named).message()),
      HasSubstr("section \"extra\", value a~1b/0/0: a list cannot be an element"));
  set->set_tensor_value("w");
  const absl::Status status = ValidateSection("s", section, named);
  EXPECT_TRUE(status.ok()) << status;
  ASSERT_EQ(named.size(), 1u);
  EXPECT_EQ(named[0].place, "a~1b/0");
  *section.mutable_metadata() = section.value();
  EXPECT_THAT(std::string(ValidateSection("s", section, named).message()),
              HasSubstr("section \"extra\", metadata a~1b/0: a tensor has no place"));
}

TEST(ValidationTest, AnArgumentOfAModuleIsAtMost8LevelsDeepAndNoTensor) {
  v1::Checkpoint checkpoint;
  auto* root = checkpoint.mutable_architecture()->mutable_root();
  root->set_type("Linear");
  auto* argument = root->add_arguments();
  argument->set_name("a");
  v1::Value* leaf = argument->mutable_value();
  for (int i = 1; i < kMaxArgumentDepth; ++i) {
    leaf = leaf->mutable_tuple_value()->add_values();
  }
  leaf->mutable_tuple_value();
  EXPECT_TRUE(ValidateCheckpoint("c", checkpoint).ok());
  leaf->mutable_tuple_value()->add_values()->set_int_value(1);
  EXPECT_THAT(std::string(ValidateCheckpoint("c", checkpoint).message()),
              HasSubstr("more than 8 levels deep"));
  leaf->set_tensor_value("w");
  EXPECT_THAT(std::string(ValidateCheckpoint("c", checkpoint).message()),
              HasSubstr("a tensor has no place here"));
}

TEST(ValidationTest, MetadataHasLimits) {
  v1::Checkpoint checkpoint;
  checkpoint.set_description(std::string(4097, 'x'));
  EXPECT_THAT(std::string(ValidateCheckpoint("c", checkpoint).message()),
              HasSubstr("c.description"));
  checkpoint.Clear();
  for (int i = 0; i < 65; ++i) (*checkpoint.mutable_labels())[std::to_string(i)] = "v";
  EXPECT_THAT(std::string(ValidateCheckpoint("c", checkpoint).message()),
              HasSubstr("c.labels"));
  checkpoint.Clear();
  for (int i = 0; i < 1025; ++i) (*checkpoint.mutable_metrics())[std::to_string(i)] = 1;
  EXPECT_THAT(std::string(ValidateCheckpoint("c", checkpoint).message()),
              HasSubstr("c.metrics"));
  v1::Attachment attachment;
  attachment.set_name("../up");
  EXPECT_FALSE(ValidateAttachment("a", attachment).ok());
}

TEST(ValidationTest, ALimitThatIsPassedIsReportedWithWhatWasGiven) {
  v1::Checkpoint checkpoint;
  const auto refusal = [&] {
    return std::string(ValidateCheckpoint("c", checkpoint).message());
  };
  checkpoint.set_description(std::string(4097, 'x'));
  EXPECT_THAT(refusal(), HasSubstr("has 4097 bytes, at most 4096 are allowed"));
  checkpoint.Clear();
  for (int i = 0; i < 65; ++i) (*checkpoint.mutable_labels())[std::to_string(i)] = "v";
  EXPECT_THAT(refusal(), HasSubstr("c.labels: has 65 pairs, at most 64 are allowed"));
  checkpoint.Clear();
  (*checkpoint.mutable_labels())["run"] = std::string(257, 'x');
  EXPECT_THAT(refusal(), HasSubstr("c.labels[\"run\"]: has 257 bytes, at most 256"));
  checkpoint.Clear();
  (*checkpoint.mutable_labels())[""] = "v";
  EXPECT_THAT(refusal(), HasSubstr("c.labels: has an empty key"));
  checkpoint.Clear();
  for (int i = 0; i < 1025; ++i) (*checkpoint.mutable_metrics())[std::to_string(i)] = 1;
  EXPECT_THAT(refusal(), HasSubstr("c.metrics: has 1025 entries, at most 1024"));
  checkpoint.Clear();
  (*checkpoint.mutable_metrics())[std::string(300, 'm')] = 1;
  EXPECT_THAT(refusal(), HasSubstr("c.metrics: has 300 bytes in a key, at most 256"));
  v1::Attachment attachment;
  attachment.set_name("card");
  attachment.set_media_type(std::string(257, 'x'));
  EXPECT_THAT(std::string(ValidateAttachment("a", attachment).message()),
              HasSubstr("a.media_type: has 257 bytes, at most 256"));
  attachment.clear_media_type();
  attachment.set_data(std::string(4 << 20, 'x'));
  EXPECT_TRUE(ValidateAttachment("a", attachment).ok());
  attachment.mutable_data()->append("x");
  EXPECT_THAT(std::string(ValidateAttachment("a", attachment).message()),
              HasSubstr("a.data: has 4194305 bytes, at most 4194304"));
  EXPECT_THAT(std::string(ValidateNote("note", std::string(5000, 'x')).message()),
              HasSubstr("note: has 5000 bytes, at most 4096"));
}

// protobuf keeps the fields that it does not know, and every listing would tell them.
TEST(ValidationTest, UnknownFieldsCountAgainstALimit) {
  const auto add_unknown = [](google::protobuf::Message& message) {
    message.GetReflection()->MutableUnknownFields(&message)->AddLengthDelimited(
        1000, std::string(1 << 20, 'x'));
  };
  v1::Model model;
  add_unknown(*model.mutable_retention_policy());
  absl::Status status = ValidateModel("m", model);
  EXPECT_TRUE(absl::IsInvalidArgument(status)) << status;
  EXPECT_THAT(std::string(status.message()), HasSubstr("m.retention_policy: has 10485"));
  v1::Checkpoint checkpoint;
  add_unknown(*checkpoint.mutable_producer());
  status = ValidateCheckpoint("c", checkpoint);
  EXPECT_TRUE(absl::IsInvalidArgument(status)) << status;
  EXPECT_THAT(std::string(status.message()), HasSubstr("c.producer: has 10485"));
}

// Sets each text of `message`, one at a time, to 1 MiB and calls `check` with its name.
// Not those of maps, nor of what no listing tells.
void ForEachText(google::protobuf::Message& message,
                 const std::function<void(const std::string& name)>& check) {
  using Field = google::protobuf::FieldDescriptor;
  const auto* descriptor = message.GetDescriptor();
  const auto* reflection = message.GetReflection();
  for (int i = 0; i < descriptor->field_count(); ++i) {
    const Field* field = descriptor->field(i);
    if (field->is_repeated() || field->name() == "architecture") continue;
    if (field->cpp_type() == Field::CPPTYPE_STRING) {
      reflection->SetString(&message, field, std::string(1 << 20, 'x'));
      check(field->full_name());
    } else if (field->cpp_type() == Field::CPPTYPE_MESSAGE) {
      ForEachText(*reflection->MutableMessage(&message, field), check);
    }
    reflection->ClearField(&message, field);
  }
}

TEST(ValidationTest, WhateverIsStoredAndListedHasALimit) {
  constexpr size_t kSmall = 64 << 10;
  int texts = 0;
  v1::Model model;
  ForEachText(model, [&](const std::string& name) {
    ++texts;
    const bool refused = absl::IsInvalidArgument(ValidateModel("m", model));
    EXPECT_TRUE(refused || ModelToRecord("m", model).ByteSizeLong() < kSmall) << name;
  });
  (*model.mutable_labels())["k"] = std::string(257, 'x');
  EXPECT_TRUE(absl::IsInvalidArgument(ValidateModel("m", model)));
  v1::Checkpoint checkpoint;
  ForEachText(checkpoint, [&](const std::string& name) {
    ++texts;
    const bool refused = absl::IsInvalidArgument(ValidateCheckpoint("c", checkpoint));
    EXPECT_TRUE(refused || MetadataToRecord(checkpoint).ByteSizeLong() < kSmall) << name;
  });
  EXPECT_GE(texts, 14);
  (*checkpoint.mutable_labels())[std::string(257, 'x')] = "v";
  EXPECT_TRUE(absl::IsInvalidArgument(ValidateCheckpoint("c", checkpoint)));
  checkpoint.clear_labels();
  (*checkpoint.mutable_metrics())[std::string(257, 'x')] = 1;
  EXPECT_TRUE(absl::IsInvalidArgument(ValidateCheckpoint("c", checkpoint)));
  v1::Attachment attachment;
  attachment.set_name("a");
  attachment.set_media_type(std::string(257, 'x'));
  EXPECT_TRUE(absl::IsInvalidArgument(ValidateAttachment("a", attachment)));
  attachment.set_name(std::string(129, 'x'));
  attachment.clear_media_type();
  EXPECT_TRUE(absl::IsInvalidArgument(ValidateAttachment("a", attachment)));
  EXPECT_TRUE(absl::IsInvalidArgument(ValidateNote("n", std::string(4097, 'x'))));
}

TEST(ValidationTest, MissingPiecesAreNamedWhereTheManifestIsWhole) {
  v1::Tensor t = Plain();
  t.clear_pieces();
  const absl::Status whole = ValidateTensor("t", t, Digests::kOptional);
  EXPECT_EQ(whole.code(), absl::StatusCode::kInvalidArgument) << whole;
  EXPECT_THAT(std::string(whole.message()), HasSubstr("t.pieces: required"));
  // Another worker may bring them.
  EXPECT_TRUE(ValidateTensor("t", t, Digests::kRequired).ok());
  t.set_tied_to("model:v");
  EXPECT_TRUE(ValidateTensor("t", t, Digests::kOptional).ok());
}

}  // namespace
}  // namespace modelstore::server
