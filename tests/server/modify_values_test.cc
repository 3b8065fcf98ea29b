// ModifyCheckpoint: casts and averages, bit for bit what a plain computation gives.
#include <gmock/gmock.h>

#include <cmath>
#include <cstring>

#include "absl/strings/str_cat.h"
#include "tests/server/modify_harness.h"

namespace modelstore::server {
namespace {

using ::testing::Contains;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using Fate = v1::ModifyCheckpointResponse::ParameterFate;
using Warning = v1::ModifyCheckpointResponse::Warning;

constexpr char kNew[] = "models/m/checkpoints/2";

// Nearest, ties to even, by float's definition: the neighbours are tried.
uint16_t ToBfloat16(float value) {
  uint32_t bits;
  std::memcpy(&bits, &value, sizeof(bits));
  const uint32_t low = bits & 0xffff;
  uint32_t high = bits >> 16;
  if (low > 0x8000 || (low == 0x8000 && (high & 1) != 0)) ++high;
  return static_cast<uint16_t>(high);
}

std::string CastToBfloat16(const std::vector<float>& values) {
  std::vector<uint16_t> cast;
  for (const float value : values) cast.push_back(ToBfloat16(value));
  return BytesOf(cast);
}

class ModifyValuesTest : public ModifyTest {
 protected:
  void ExpectRefused(const Modified& modified, absl::StatusCode code,
                     const std::string& text) {
    EXPECT_EQ(modified.status.code(), code) << modified.status;
    EXPECT_THAT(std::string(modified.status.message()), HasSubstr(text));
  }
};

TEST_F(ModifyValuesTest, CastConvertsFloatingPointTensorsAndLeavesTheOthers) {
  const std::vector<float> values = RandomFloats(3000, 1);
  Save({Parameter("w", {3, 1000}, values),
        Buffer("count", v1::DTYPE_INT64, {}, BytesOf<int64_t>({7})),
        Buffer("mask", v1::DTYPE_BOOL, {3}, std::string("\1\0\1", 3)),
        Buffer("c", v1::DTYPE_COMPLEX64, {1}, BytesOf<float>({1, 2})),
        Parameter("empty", {0, 4}, {}), Parameter("scalar", {}, {1.5f})});
  const auto old = Bytes("models/m/checkpoints/1");
  const Modified modified = Modify("edits { cast { dtype: DTYPE_BFLOAT16 } }");
  ASSERT_TRUE(modified.status.ok()) << modified.status;
  auto made = Bytes(kNew);
  EXPECT_EQ(made["model:w"], CastToBfloat16(values));
  EXPECT_EQ(made["model:scalar"], CastToBfloat16({1.5f}));
  for (const char* key : {"model:count", "model:mask", "model:c"}) {
    EXPECT_EQ(made[key], old.at(key));
  }
  EXPECT_EQ(TensorOf(kNew, "w").dtype(), v1::DTYPE_BFLOAT16);
  EXPECT_EQ(TensorOf(kNew, "empty").dtype(), v1::DTYPE_BFLOAT16);
  EXPECT_EQ(TensorOf(kNew, "c").dtype(), v1::DTYPE_COMPLEX64);
  EXPECT_TRUE(TensorOf(kNew, "w").requires_grad());
  EXPECT_EQ(modified.FateOf("w").fate(), Fate::FATE_CHANGED);
  EXPECT_EQ(modified.result.new_tensor_bytes(), 6000 + 2);
  EXPECT_EQ(modified.result.stored_bytes(), 6000 + 2);
}

TEST_F(ModifyValuesTest, CastOfNamedKeysAndPatternsLeavesTheRest) {
  Save({Parameter("a.w", {2}, {1, 2}), Parameter("b.w", {2}, {3, 4}),
        Parameter("c.w", {2}, {5, 6}),
        Buffer("b.n", v1::DTYPE_INT64, {}, BytesOf<int64_t>({7}))});
  ASSERT_TRUE(
      Modify(R"(edits { cast { dtype: DTYPE_FLOAT64 keys: "a.w" patterns: "b\\..*" } })")
          .status.ok());
  auto made = Bytes(kNew);
  EXPECT_EQ(made["model:a.w"], BytesOf<double>({1, 2}));
  EXPECT_EQ(made["model:b.w"], BytesOf<double>({3, 4}));
  EXPECT_EQ(made["model:c.w"], BytesOf<float>({5, 6}));
  EXPECT_EQ(made["model:b.n"], BytesOf<int64_t>({7}));
}

TEST_F(ModifyValuesTest, ACastThatCannotBeIsRefusedByItsEdit) {
  Save({Parameter("w", {2}, {1, 2}),
        Buffer("n", v1::DTYPE_INT64, {}, BytesOf<int64_t>({7}))});
  ExpectRefused(Modify(R"(edits { rename_keys { pattern: "w" replacement: "v" } }
                edits { cast { dtype: DTYPE_FLOAT16 keys: "v" keys: "n" } })"),
                absl::StatusCode::kInvalidArgument,
                "edits[1].cast.keys[1]: n is of type int64");
  ExpectRefused(Modify(R"(edits { cast { dtype: DTYPE_FLOAT16 keys: "x" } })"),
                absl::StatusCode::kNotFound, "edits[0].cast.keys[0]");
  for (const char* dtype :
       {"DTYPE_INT32", "DTYPE_BOOL", "DTYPE_COMPLEX64", "DTYPE_UNSPECIFIED"}) {
    ExpectRefused(Modify(absl::StrCat("edits { cast { dtype: ", dtype, " } }")),
                  absl::StatusCode::kInvalidArgument, "edits[0].cast.dtype");
  }
  ExpectRefused(Modify(R"(edits { cast { dtype: DTYPE_FLOAT16 section: "optimizer" } })"),
                absl::StatusCode::kNotFound, "edits[0].cast.section");
  EXPECT_EQ(LatestVersion(), 1);
}

TEST_F(ModifyValuesTest, ACastOfOneTiedTensorCastsItsGroupAndStoresItOnce) {
  const TestTensor embed = Parameter("embed", {2}, {1, 2});
  Save({embed, Tied("head", embed)});
  const Modified modified =
      Modify(R"(edits { cast { dtype: DTYPE_FLOAT64 keys: "head" } })");
  ASSERT_TRUE(modified.status.ok()) << modified.status;
  EXPECT_EQ(TensorOf(kNew, "embed").dtype(), v1::DTYPE_FLOAT64);
  EXPECT_EQ(TensorOf(kNew, "head").tied_to(), "model:embed");
  EXPECT_EQ(modified.result.stored_bytes(), 16);
  EXPECT_THAT(modified.WarningsOf("embed"), IsEmpty());
  EXPECT_THAT(modified.WarningsOf("head"), IsEmpty());
}

TEST_F(ModifyValuesTest, WithUntieOnlyTheNamedTensorChanges) {
  const TestTensor embed = Parameter("embed", {2}, {1, 2});
  Save({embed, Tied("head", embed)});
  const Modified modified =
      Modify(R"(edits { untie: true cast { dtype: DTYPE_FLOAT64 keys: "embed" } })");
  ASSERT_TRUE(modified.status.ok()) << modified.status;
  EXPECT_EQ(TensorOf(kNew, "embed").dtype(), v1::DTYPE_FLOAT64);
  EXPECT_EQ(TensorOf(kNew, "head").dtype(), v1::DTYPE_FLOAT32);
  EXPECT_EQ(TensorOf(kNew, "head").tied_to(), "");
  EXPECT_EQ(Bytes(kNew)["model:head"], BytesOf<float>({1, 2}));
  EXPECT_THAT(modified.WarningsOf("embed"), ElementsAre(Warning::KIND_UNTIED));
}

TEST_F(ModifyValuesTest, StepsWorkOnWhatTheStepsBeforeHaveLeft) {
  const std::vector<float> values = RandomFloats(100, 1);
  Save({Parameter("w", {100}, values)});
  ASSERT_TRUE(Modify(R"(edits { cast { dtype: DTYPE_BFLOAT16 } }
                        edits { rename_keys { pattern: "w" replacement: "v" } }
                        edits { cast { dtype: DTYPE_FLOAT32 keys: "v" } })")
                  .status.ok());
  std::vector<uint32_t> expected;
  for (const float value : values) expected.push_back(ToBfloat16(value) << 16);
  EXPECT_EQ(Bytes(kNew)["model:v"], BytesOf(expected));
}

class ModifyAverageTest : public ModifyValuesTest {
 protected:
  // Three versions of a model, and another model to put the average into.
  ModifyAverageTest() {
    for (uint32_t version = 1; version <= 3; ++version) {
      weights_.push_back(RandomFloats(5000, version));
      Save({Parameter("w", {5, 1000}, weights_.back()),
            Parameter("bias", {2}, RandomFloats(2, 10 + version)),
            Buffer("bn.running_mean", v1::DTYPE_FLOAT32, {2},
                   BytesOf(RandomFloats(2, version))),
            Buffer("bn.num_batches_tracked", v1::DTYPE_INT64, {},
                   BytesOf<int64_t>({100 * version}))});
    }
  }
  std::string Expected(const std::vector<double>& coefficients) {
    std::vector<float> averaged;
    for (size_t i = 0; i < weights_[0].size(); ++i) {
      double sum = coefficients[0] * weights_[0][i];
      for (size_t c = 1; c < coefficients.size(); ++c) {
        sum += coefficients[c] * weights_[c][i];
      }
      averaged.push_back(static_cast<float>(sum));
    }
    return BytesOf(averaged);
  }

  std::vector<std::vector<float>> weights_;
  const std::string three_ = R"(checkpoints: "models/m/checkpoints/1"
                                checkpoints: "models/m/checkpoints/2"
                                checkpoints: "models/m/checkpoints/latest")";
};

TEST_F(ModifyAverageTest, EqualSharesUnlessCoefficientsAreGiven) {
  const Modified modified = Modify(absl::StrCat("edits { average { ", three_, " } }"));
  ASSERT_TRUE(modified.status.ok()) << modified.status;
  const double third = 1.0 / 3;
  auto made = Bytes("models/m/checkpoints/4");
  EXPECT_EQ(made["model:w"], Expected({third, third, third}));
  EXPECT_EQ(made["model:bn.num_batches_tracked"], BytesOf<int64_t>({100}))
      << "integers are those of the first";
  EXPECT_THAT(modified.WarningsOf("bn.running_mean"),
              ElementsAre(Warning::KIND_STATISTICS_AVERAGED));
  EXPECT_THAT(modified.WarningsOf("w"), IsEmpty());
  // What `latest` stood for is kept with the version.
  EXPECT_THAT(Full("models/m/checkpoints/4").edits(0).average().checkpoints(),
              ElementsAre("models/m/checkpoints/1", "models/m/checkpoints/2",
                          "models/m/checkpoints/3"));
}

TEST_F(ModifyAverageTest, CoefficientsWeighAndMustSumToOne) {
  ASSERT_TRUE(Modify(absl::StrCat("edits { average { ", three_, R"( coefficients: 0.5
                        coefficients: 0.75 coefficients: -0.25 patterns: "w" } })"))
                  .status.ok());
  auto made = Bytes("models/m/checkpoints/4");
  EXPECT_EQ(made["model:w"], Expected({0.5, 0.75, -0.25}));
  EXPECT_EQ(made["model:bias"], Bytes("models/m/checkpoints/3")["model:bias"])
      << "no pattern names it";
  const std::string two = absl::StrCat(
      "edits { average { ", three_, " coefficients: 1 coefficients: 1 coefficients: 0");
  ExpectRefused(Modify(two + "} }"), absl::StatusCode::kInvalidArgument,
                "edits[0].average.coefficients: sum to 2");
  ASSERT_TRUE(Modify(two + " any_sum: true patterns: \"w\" } }").status.ok());
  EXPECT_EQ(Bytes("models/m/checkpoints/5")["model:w"], Expected({1, 1, 0}));
}

TEST_F(ModifyAverageTest, KeysNameWhatIsAveraged) {
  ASSERT_TRUE(Modify(absl::StrCat("edits { average { ", three_, R"( coefficients: 0.5
                        coefficients: 0.75 coefficients: -0.25 keys: "w" } })"))
                  .status.ok());
  auto made = Bytes("models/m/checkpoints/4");
  EXPECT_EQ(made["model:w"], Expected({0.5, 0.75, -0.25}));
  EXPECT_EQ(made["model:bias"], Bytes("models/m/checkpoints/3")["model:bias"]);
  ExpectRefused(Modify(absl::StrCat("edits { average { ", three_, " keys: 'v' } }")),
                absl::StatusCode::kNotFound, "edits[0].average.keys[0]");
}

TEST_F(ModifyAverageTest, WhatDoesNotFitTogetherIsRefused) {
  Save({Parameter("w", {5000}, weights_[0])}, "flat");
  const std::string edit = R"(edits { average { checkpoints: "models/m/checkpoints/1")";
  ExpectRefused(Modify(edit + "} }"), absl::StatusCode::kInvalidArgument,
                "edits[0].average.checkpoints");
  ExpectRefused(Modify(edit + R"(checkpoints: "models/m/checkpoints/9" } })"),
                absl::StatusCode::kNotFound, "edits[0].average.checkpoints[1]");
  ExpectRefused(Modify(edit + R"(checkpoints: "models/flat/checkpoints/1"
                                 patterns: "w" } })"),
                absl::StatusCode::kInvalidArgument, "w is float32 [5000]");
  ExpectRefused(Modify(edit + R"(checkpoints: "models/flat/checkpoints/1" } })"),
                absl::StatusCode::kInvalidArgument, "edits[0].average.checkpoints[1]");
  ExpectRefused(Modify(edit + R"(checkpoints: "nonsense" } })"),
                absl::StatusCode::kInvalidArgument, "edits[0].average.checkpoints[1]");
  ExpectRefused(
      Modify(absl::StrCat("edits { average { ", three_, " coefficients: 1 } }")),
      absl::StatusCode::kInvalidArgument, "are 1 for 3 checkpoints");
  EXPECT_EQ(LatestVersion(), 3);
}

// float16 and bfloat16 by double: rounding by way of float would give other bits.
TEST_F(ModifyAverageTest, SumsAreRoundedOnce) {
  // 1 + 2^-8 is half way between two numbers of bfloat16; a little above it must
  // round up, and does not if the little is lost in float first.
  const auto save = [&](uint16_t bits) {
    TestTensor tensor =
        MakeTensor("w", v1::DTYPE_BFLOAT16, {1}, BytesOf<uint16_t>({bits}));
    tensor.tensor.set_role(v1::TENSOR_ROLE_PARAMETER);
    Save({tensor}, "b");
  };
  save(0x3f80);  // 1
  save(0x3b80);  // 2^-8
  save(0x2f80);  // 2^-32
  ASSERT_TRUE(Modify(R"(name: "models/b/checkpoints/1" edits { average {
                          checkpoints: "models/b/checkpoints/1"
                          checkpoints: "models/b/checkpoints/2"
                          checkpoints: "models/b/checkpoints/3"
                          coefficients: 1 coefficients: 1 coefficients: 1
                          any_sum: true } })")
                  .status.ok());
  EXPECT_EQ(Bytes("models/b/checkpoints/4")["model:w"], BytesOf<uint16_t>({0x3f81}));
}

TEST_F(ModifyAverageTest, ComplexNumbersAreAveragedPartByPart) {
  for (const float value : {1.0f, 3.0f}) {
    TestTensor tensor =
        MakeTensor("z", v1::DTYPE_COMPLEX64, {1}, BytesOf<float>({value, -value}));
    Save({tensor}, "z");
  }
  ASSERT_TRUE(Modify(R"(name: "models/z/checkpoints/1" edits { average {
                          checkpoints: "models/z/checkpoints/1"
                          checkpoints: "models/z/checkpoints/2" } })")
                  .status.ok());
  EXPECT_EQ(Bytes("models/z/checkpoints/3")["model:z"], BytesOf<float>({2, -2}));
}

}  // namespace
}  // namespace modelstore::server
