#include "proto/contract/names.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "google/rpc/error_details.pb.h"

namespace modelstore {
namespace {

using ::testing::HasSubstr;
using ::testing::StartsWith;

std::string FieldOf(const absl::Status& status) {
  google::rpc::BadRequest detail;
  auto payload = status.GetPayload("type.googleapis.com/google.rpc.BadRequest");
  if (!payload.has_value() || !detail.ParseFromString(std::string(*payload))) return "";
  return detail.field_violations(0).field();
}

void ExpectRefused(const absl::Status& status, absl::string_view text) {
  EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument) << text;
  EXPECT_THAT(std::string(status.message()), StartsWith("field: "));
  EXPECT_EQ(FieldOf(status), "field");
  for (unsigned char c : status.message()) ASSERT_TRUE(c >= 0x20 && c < 0x7f) << text;
  EXPECT_LT(status.message().size(), 300u);
}

const std::vector<std::string>& BadModelIds() {
  static const std::vector<std::string> ids = {"",
                                               ".",
                                               "..",
                                               ".hidden",
                                               "-dash",
                                               "_under",
                                               "a/b",
                                               "a b",
                                               "a\nb",
                                               "a:b",
                                               "a%2fb",
                                               "café",
                                               "a\\b",
                                               "a*",
                                               "\xff\xfe",
                                               "~",
                                               std::string(129, 'a'),
                                               std::string("a\0b", 3)};
  return ids;
}

TEST(ModelNames, RoundTrip) {
  for (const char* id : {"a", "9", "resnet18", "Iris.v2_final-1", "a..b"}) {
    EXPECT_TRUE(ValidateModelId("field", id).ok());
    EXPECT_EQ(ParseModelName("field", ModelName(id)).value(), id);
  }
  EXPECT_TRUE(ValidateModelId("field", std::string(128, 'a')).ok());
}

TEST(ModelNames, OtherCharactersAndLengthsAreRefusedByField) {
  for (const std::string& id : BadModelIds()) {
    ExpectRefused(ValidateModelId("field", id), id);
    ExpectRefused(ParseModelName("field", "models/" + id).status(), id);
    ExpectRefused(
        ParseCheckpointName("field", "models/" + id + "/checkpoints/1").status(), id);
  }
  for (const char* name : {"", "models", "models/", "model/a", "/models/a", "models/a/",
                           "models//a", "Models/a", "models/-"}) {
    ExpectRefused(ParseModelName("field", name).status(), name);
  }
}

TEST(CheckpointNames, TakeVersionsAliasesAndLatest) {
  absl::StatusOr<CheckpointName> name =
      ParseCheckpointName("field", CheckpointNameOf("m", 7));
  ASSERT_TRUE(name.ok());
  EXPECT_EQ(name->model_id, "m");
  EXPECT_EQ(name->version, 7);
  EXPECT_EQ(name->alias, "");
  EXPECT_FALSE(name->IsLatest());

  name = ParseCheckpointName("field", "models/m/checkpoints/latest");
  ASSERT_TRUE(name.ok());
  EXPECT_FALSE(name->version.has_value());
  EXPECT_TRUE(name->IsLatest());

  name = ParseCheckpointName("field", "models/m/checkpoints/production-2");
  ASSERT_TRUE(name.ok());
  EXPECT_EQ(name->alias, "production-2");
  EXPECT_FALSE(name->IsLatest());

  EXPECT_EQ(ParseCheckpointName("field", CheckpointNameOf("m", INT64_MAX))->version,
            INT64_MAX);
}

TEST(CheckpointNames, AVersionHasExactlyOneSpelling) {
  for (const char* last : {"0", "-1", "+1", "01", "1.0", "0x1", " 1", "1 ", "1e3",
                           "9223372036854775808", "99999999999999999999999"}) {
    ExpectRefused(
        ParseCheckpointName("field", std::string("models/m/checkpoints/") + last)
            .status(),
        last);
  }
}

TEST(CheckpointNames, OtherFormsAreRefusedByField) {
  for (const char* name :
       {"", "models/m", "models/m/checkpoints", "models/m/checkpoints/",
        "models/m/checkpoint/1", "models/m/checkpoints/1/", "models/m/checkpoints/1/x",
        "models/m/n/checkpoints/1", "m/checkpoints/1", "models/m/checkpoints/Latest",
        "models/m/checkpoints/LATEST", "models/m/checkpoints/a_b",
        "models//checkpoints/1", "models/m/uploads/1", "models/m/checkpoints/../1"}) {
    ExpectRefused(ParseCheckpointName("field", name).status(), name);
  }
}

TEST(UploadNames, RoundTripAndRefuseOtherForms) {
  absl::StatusOr<UploadName> name = ParseUploadName("field", UploadNameOf("m", "u-1_Z9"));
  ASSERT_TRUE(name.ok());
  EXPECT_EQ(name->model_id, "m");
  EXPECT_EQ(name->upload_id, "u-1_Z9");
  for (const char* bad :
       {"models/m/uploads/", "models/m/uploads/a/b", "models/m/uploads/.",
        "models/m/uploads/a b", "models/m/checkpoints/1", "models/m"}) {
    ExpectRefused(ParseUploadName("field", bad).status(), bad);
  }
  ExpectRefused(
      ParseUploadName("field", "models/m/uploads/" + std::string(65, 'a')).status(),
      "long");
}

TEST(Aliases, AreLowerCaseAndNeverLatest) {
  for (const char* alias : {"a", "production", "v2", "best-loss-3"}) {
    EXPECT_TRUE(ValidateAlias("field", alias).ok()) << alias;
  }
  EXPECT_TRUE(ValidateAlias("field", std::string(63, 'a')).ok());
  for (const std::string& alias :
       {std::string(), std::string("latest"), std::string("A"), std::string("1"),
        std::string("-a"), std::string("a_b"), std::string("a.b"),
        std::string(64, 'a')}) {
    ExpectRefused(ValidateAlias("field", alias), alias);
  }
}

TEST(LeaseNames, RoundTripAndRefuseOtherForms) {
  for (const char* holder : {"serving-7", "trainer@host.local:4711", "0", "A_b"}) {
    EXPECT_TRUE(ValidateHolder("field", holder).ok()) << holder;
    const std::string name = LeaseNameOf("m", 12, holder);
    const auto parsed = ParseLeaseName("field", name);
    ASSERT_TRUE(parsed.ok()) << parsed.status();
    EXPECT_EQ(parsed->model_id, "m");
    EXPECT_EQ(parsed->version, 12);
    EXPECT_EQ(parsed->holder, holder);
  }
  EXPECT_TRUE(ValidateHolder("field", std::string(128, 'h')).ok());
  for (const std::string& holder :
       {std::string(), std::string("-a"), std::string("a b"), std::string("a/b"),
        std::string("a,b"), std::string("\xc3\xa4"), std::string(129, 'h')}) {
    ExpectRefused(ValidateHolder("field", holder), holder);
  }
  for (const char* name :
       {"models/m/checkpoints/1/leases/", "models/m/checkpoints/1/leases",
        "models/m/checkpoints/1", "models/m/checkpoints/0/leases/w",
        "models/m/checkpoints/01/leases/w", "models/m/checkpoints/latest/leases/w",
        "models/m/checkpoints/1/holders/w", "models/m/checkpoints/1/leases/w/x",
        "models/m/uploads/1/leases/w", "models//checkpoints/1/leases/w"}) {
    ExpectRefused(ParseLeaseName("field", name).status(), name);
  }
}

TEST(Sections, BeginWithALetterOrUnderscore) {
  for (const char* id : {"model", "optimizer", "_x", "a.b-c_9"}) {
    EXPECT_TRUE(ValidateSectionId("field", id).ok()) << id;
  }
  for (const std::string& id : {std::string(), std::string("9a"), std::string("a:b"),
                                std::string("a/b"), std::string(65, 'a')}) {
    ExpectRefused(ValidateSectionId("field", id), id);
  }
}

TEST(Keys, AreUtf8WithoutControlCharacters) {
  for (const char* key : {"fc.weight", "a/b:c", "层.权重", " ", "ÿ", "😀"}) {
    EXPECT_TRUE(ValidateKey("field", key).ok()) << key;
  }
  EXPECT_TRUE(ValidateKey("field", std::string(1024, 'k')).ok());
  for (const std::string& key :
       {std::string(), std::string(1025, 'k'), std::string("a\nb"),
        std::string("a\0b", 3), std::string("\x7f"), std::string("\xc2\x85"),
        std::string("\xc2"), std::string("a\xff"), std::string("\xed\xa0\x80")}) {
    ExpectRefused(ValidateKey("field", key), key);
  }
}

TEST(RequestIds, AreShortPrintableAscii) {
  for (const std::string& id :
       {std::string(), std::string("run 7/epoch 50"), std::string(128, 'r')}) {
    EXPECT_TRUE(ValidateRequestId("field", id).ok()) << id;
  }
  for (const std::string& id :
       {std::string(129, 'r'), std::string("a\tb"), std::string("é")}) {
    ExpectRefused(ValidateRequestId("field", id), id);
  }
}

TEST(TensorNames, TheFirstColonAfterASectionIdSeparates) {
  const auto expect = [](absl::string_view text, absl::string_view section,
                         absl::string_view key) {
    const TensorName name = ParseTensorName(text);
    EXPECT_EQ(name.section, section) << text;
    EXPECT_EQ(name.key, key) << text;
  };
  expect("fc.weight", "model", "fc.weight");
  expect("optimizer:state/0/exp_avg", "optimizer", "state/0/exp_avg");
  expect("model:a:b", "model", "a:b");
  expect(":a", "model", ":a");
  expect("a b:c", "model", "a b:c");
  expect("0:c", "model", "0:c");
  expect("", "model", "");
  EXPECT_EQ(ParseTensorName(TensorNameOf("optimizer", "a:b")),
            (TensorName{"optimizer", "a:b"}));
}

TEST(KeyElements, EscapeAndUnescapeAreInverse) {
  EXPECT_EQ(EscapeKeyElement("a/b~c"), "a~1b~0c");
  EXPECT_EQ(EscapeKeyElement("~1"), "~01");
  for (const std::string element :
       {"", "plain", "/", "~", "~0", "~1", "~~//~01", "a.b"}) {
    const std::string escaped = EscapeKeyElement(element);
    EXPECT_EQ(escaped.find('/'), std::string::npos);
    EXPECT_EQ(UnescapeKeyElement(escaped).value(), element);
  }
  for (const char* bad : {"~", "a~", "~2", "~~0", "a/b"}) {
    EXPECT_FALSE(UnescapeKeyElement(bad).ok()) << bad;
  }
}

TEST(Devices, AreCpuCudaOrAnIndexedCuda) {
  for (const char* device : {"", "cpu", "cuda", "cuda:0", "cuda:15", "cuda:127"}) {
    EXPECT_TRUE(ValidateDevice("field", device).ok()) << device;
  }
  for (const char* device : {"CPU", "cuda:", "cuda:-1", "cuda:01", "cuda:x", "cpu:0",
                             "mps", "cuda:1 ", "cuda:99999999999", "gpu"}) {
    ExpectRefused(ValidateDevice("field", device), device);
  }
}

}  // namespace
}  // namespace modelstore
