// Damaged names and statuses: a name that is taken has exactly one meaning and
// one spelling, and nothing in it could leave a folder.
#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "google/protobuf/stubs/logging.h"
#include "google/rpc/status.pb.h"
#include "proto/contract/errors.h"
#include "proto/contract/names.h"
#include "proto/contract/status_codec.h"
#include "proto/contract/utf8.h"
#include "tests/fuzz/mutator.h"
#include "tests/support/seed.h"

namespace modelstore {
namespace {

std::vector<std::string> Corpus() {
  return {"",
          "models/iris",
          "models/resnet18.v2_final-1",
          "models/iris/checkpoints/1",
          "models/iris/checkpoints/9223372036854775807",
          "models/iris/checkpoints/latest",
          "models/iris/checkpoints/production-2",
          "models/iris/uploads/u-1_Z9",
          "models/../../etc/passwd",
          "models/" + std::string(128, 'm') + "/checkpoints/1",
          "optimizer:state/0/exp_avg",
          "model:layer.0.weight",
          "a~0b~1c",
          "层.权重",
          "cuda:0",
          std::string(1024, 'k')};
}

// Of a part of a name that a server may look up.
void ExpectHarmless(const std::string& id) {
  EXPECT_FALSE(id.empty());
  EXPECT_LE(id.size(), 128u);
  EXPECT_NE(id[0], '.');
  for (unsigned char c : id) {
    EXPECT_TRUE(isalnum(c) || c == '.' || c == '_' || c == '-') << int{c};
  }
}

// A refusal names its field, is printable, and short.
void ExpectGoodRefusal(const absl::Status& status) {
  EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(status.message().substr(0, 7), "field: ");
  EXPECT_LT(status.message().size(), 400u);
  EXPECT_TRUE(IsUtf8(status.message()));
}

TEST(FuzzNames, WhatIsTakenIsCanonicalAndHarmless) {
  Mutator mutator(TestSeed(), Corpus());
  int64_t taken = 0;
  for (int64_t i = FuzzIterations(100'000); i > 0; --i) {
    const std::string text = mutator.Next();
    SCOPED_TRACE(testing::PrintToString(text));
    if (auto model = ParseModelName("field", text); model.ok()) {
      ExpectHarmless(*model);
      EXPECT_EQ(ModelName(*model), text);
      ++taken;
    } else {
      ExpectGoodRefusal(model.status());
    }
    if (auto name = ParseCheckpointName("field", text); name.ok()) {
      ExpectHarmless(name->model_id);
      EXPECT_NE(name->version.has_value(), !name->alias.empty());
      EXPECT_EQ(name->version.has_value()
                    ? CheckpointNameOf(name->model_id, *name->version)
                    : "models/" + name->model_id + "/checkpoints/" + name->alias,
                text);
      EXPECT_GT(name->version.value_or(1), 0);
      ++taken;
    } else {
      ExpectGoodRefusal(name.status());
    }
    if (auto name = ParseUploadName("field", text); name.ok()) {
      ExpectHarmless(name->model_id);
      ExpectHarmless(name->upload_id);
      EXPECT_EQ(UploadNameOf(name->model_id, name->upload_id), text);
      ++taken;
    } else {
      ExpectGoodRefusal(name.status());
    }
    if (HasFailure()) return;
  }
  EXPECT_GT(taken, FuzzIterations(100'000) / 50);
}

TEST(FuzzNames, KeysAndTensorNames) {
  Mutator mutator(TestSeed(), Corpus());
  for (int64_t i = FuzzIterations(100'000); i > 0; --i) {
    const std::string text = mutator.Next();
    SCOPED_TRACE(testing::PrintToString(text));
    if (ValidateKey("field", text).ok()) {
      EXPECT_TRUE(IsUtf8(text));
      EXPECT_EQ(text.find('\0'), std::string::npos);
      EXPECT_EQ(ParseTensorName(TensorNameOf("model", text)),
                (TensorName{"model", text}));
    }
    const TensorName name = ParseTensorName(text);
    EXPECT_TRUE(ValidateSectionId("field", name.section).ok());
    EXPECT_EQ(ParseTensorName(TensorNameOf(name.section, name.key)), name);
    const std::string escaped = EscapeKeyElement(text);
    EXPECT_EQ(escaped.find('/'), std::string::npos);
    EXPECT_EQ(UnescapeKeyElement(escaped).value_or("refused"), text);
    if (auto element = UnescapeKeyElement(text); element.ok()) {
      EXPECT_EQ(EscapeKeyElement(*element), text);
    }
    EXPECT_TRUE(IsUtf8(ToUtf8(text, 100)));
    EXPECT_LE(ToUtf8(text, 100).size(), 100u);
    if (HasFailure()) return;
  }
}

TEST(FuzzNames, DamagedStatusDetailsNeverHideTheStatus) {
  const google::protobuf::LogSilencer silencer;
  google::rpc::Status sample;
  ASSERT_TRUE(
      sample.ParseFromString(ToGrpcStatus(InvalidField("a.b", "why")).error_details()));
  Mutator mutator(TestSeed(),
                  {sample.SerializeAsString(),
                   ToGrpcStatus(NoSuch("model", "models/m")).error_details(), ""});
  for (int64_t i = FuzzIterations(50'000); i > 0; --i) {
    const absl::Status status =
        FromGrpcStatus(grpc::Status(grpc::StatusCode::NOT_FOUND, "gone", mutator.Next()));
    ASSERT_EQ(status.code(), absl::StatusCode::kNotFound);
    ASSERT_EQ(status.message(), "gone");
    // What came in can be sent on.
    ASSERT_EQ(FromGrpcStatus(ToGrpcStatus(status)).message(), "gone");
  }
}

}  // namespace
}  // namespace modelstore
