#include "proto/contract/dtype.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cctype>
#include <string>
#include <vector>

#include "modelstore/v1/resources.pb.h"

namespace modelstore {
namespace {

TEST(DType, NumbersAndNamesAreThoseOfTheApi) {
  const auto* descriptor = v1::DType_descriptor();
  ASSERT_EQ(descriptor->value_count(), 21);
  for (int i = 0; i < descriptor->value_count(); ++i) {
    const auto* value = descriptor->value(i);
    absl::StatusOr<DType> dtype = DTypeFromNumber(value->number());
    if (value->number() == 0) {
      EXPECT_FALSE(dtype.ok());
      continue;
    }
    ASSERT_TRUE(dtype.ok()) << value->name();
    std::string name = value->name().substr(std::string("DTYPE_").size());
    std::transform(name.begin(), name.end(), name.begin(),
                   [](unsigned char c) { return std::tolower(c); });
    EXPECT_EQ(std::string(DTypeName(*dtype)), name);
    EXPECT_EQ(DTypeFromName(name).value(), *dtype);
  }
}

TEST(DType, SizesAreThoseOfPyTorch) {
  const std::vector<std::pair<DType, int64_t>> sizes = {
      {DType::kBool, 1},           {DType::kUint8, 1},         {DType::kInt8, 1},
      {DType::kInt16, 2},          {DType::kInt32, 4},         {DType::kInt64, 8},
      {DType::kFloat16, 2},        {DType::kBfloat16, 2},      {DType::kFloat32, 4},
      {DType::kFloat64, 8},        {DType::kComplex32, 4},     {DType::kComplex64, 8},
      {DType::kComplex128, 16},    {DType::kUint16, 2},        {DType::kUint32, 4},
      {DType::kUint64, 8},         {DType::kFloat8E4m3fn, 1},  {DType::kFloat8E5m2, 1},
      {DType::kFloat8E4m3fnuz, 1}, {DType::kFloat8E5m2fnuz, 1}};
  for (const auto& [dtype, size] : sizes) {
    EXPECT_EQ(ElementSize(dtype), size) << DTypeName(dtype);
  }
}

TEST(DType, ComplexAndIntegersAreNotFloatingPoint) {
  int floating = 0;
  for (int number = 1; number <= 20; ++number) {
    const DType dtype = *DTypeFromNumber(number);
    const std::string name(DTypeName(dtype));
    EXPECT_EQ(IsFloatingPoint(dtype), name.find("float") != std::string::npos) << name;
    floating += IsFloatingPoint(dtype);
  }
  EXPECT_EQ(floating, 8);
}

TEST(DType, UnknownNamesAndNumbersAreRefused) {
  for (const char* name : {"", "Float32", "torch.float32", "float", "int", "float32 "}) {
    EXPECT_EQ(DTypeFromName(name).status().code(), absl::StatusCode::kInvalidArgument)
        << name;
  }
  for (int number : {-1, 0, 21, 1 << 20}) EXPECT_FALSE(DTypeFromNumber(number).ok());
}

TEST(Shape, ScalarsHoldOneElementAndEmptyTensorsNone) {
  EXPECT_EQ(ElementCount({}).value(), 1);
  EXPECT_EQ(ElementCount({0}).value(), 0);
  EXPECT_EQ(ElementCount({3, 0, 5}).value(), 0);
  EXPECT_EQ(ElementCount({4096, 10}).value(), 40960);
  EXPECT_EQ(TensorBytes(DType::kFloat32, {}).value(), 4);
  EXPECT_EQ(TensorBytes(DType::kComplex128, {3, 5}).value(), 240);
}

TEST(Shape, ProductsBeyondTwoToThe62AreRefused) {
  const int64_t two31 = int64_t{1} << 31;
  EXPECT_EQ(ElementCount({two31, two31}).value(), int64_t{1} << 62);
  EXPECT_FALSE(ElementCount({two31, two31, 2}).ok());
  EXPECT_FALSE(ElementCount({two31, two31 + 1}).ok());
  EXPECT_FALSE(ElementCount({INT64_MAX, INT64_MAX}).ok());
  EXPECT_FALSE(ElementCount({INT64_MAX}).ok());
  EXPECT_EQ(TensorBytes(DType::kUint8, {two31, two31}).value(), int64_t{1} << 62);
  EXPECT_FALSE(TensorBytes(DType::kInt16, {two31, two31}).ok());
}

TEST(Shape, AnEmptyDimensionDoesNotExcuseTheOthers) {
  EXPECT_FALSE(ElementCount({0, -1}).ok());
  EXPECT_FALSE(ElementCount({0, INT64_MAX, INT64_MAX}).ok());
  EXPECT_FALSE(ElementCount({INT64_MAX, INT64_MAX, 0}).ok());
}

TEST(Shape, NegativeSizesAndMoreThan64DimensionsAreRefused) {
  EXPECT_FALSE(ElementCount({-1}).ok());
  EXPECT_FALSE(ElementCount({-2, -3}).ok());
  EXPECT_FALSE(ElementCount({INT64_MIN}).ok());
  EXPECT_EQ(ElementCount(std::vector<int64_t>(64, 1)).value(), 1);
  EXPECT_FALSE(ElementCount(std::vector<int64_t>(65, 1)).ok());
}

}  // namespace
}  // namespace modelstore
