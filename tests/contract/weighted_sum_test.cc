// Sums in float64 and their one rounding, against arithmetic by definition.
#include "proto/contract/weighted_sum.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>
#include <random>
#include <vector>

#include "tests/support/seed.h"

namespace modelstore {
namespace {

// A 16-bit float's value by its definition; NaN for what is no number.
double Value(uint16_t bits, int mantissa_bits) {
  const int exponent_bits = 15 - mantissa_bits;
  const int bias = (1 << (exponent_bits - 1)) - 1;
  const int exponent = bits >> mantissa_bits & ((1 << exponent_bits) - 1);
  const int mantissa = bits & ((1 << mantissa_bits) - 1);
  const double sign = (bits & 0x8000) != 0 ? -1 : 1;
  if (exponent == (1 << exponent_bits) - 1) {
    return mantissa != 0 ? std::nan("") : sign * INFINITY;
  }
  if (exponent == 0) return sign * std::ldexp(mantissa, 1 - bias - mantissa_bits);
  return sign *
         std::ldexp((1 << mantissa_bits) + mantissa, exponent - bias - mantissa_bits);
}

int MantissaBits(DType dtype) { return dtype == DType::kFloat16 ? 10 : 7; }

// The nearest 16-bit float to a double, ties to even: found among all of them.
class Nearest {
 public:
  explicit Nearest(DType dtype) : mantissa_bits_(MantissaBits(dtype)) {
    const int infinity = ((1 << (15 - mantissa_bits_)) - 1) << mantissa_bits_;
    for (int bits = 0; bits < infinity; ++bits) {
      values_.push_back(Value(static_cast<uint16_t>(bits), mantissa_bits_));
    }
    // What infinity would be, did the exponents go on.
    values_.push_back(2 * values_.back() - values_[values_.size() - 2]);
  }
  uint16_t operator()(double value) const {
    const double magnitude = std::fabs(value);
    const auto above = std::lower_bound(values_.begin(), values_.end(), magnitude);
    size_t bits = above - values_.begin();
    if (above == values_.end()) {
      bits = values_.size() - 1;
    } else if (bits > 0) {
      const double up = *above - magnitude, down = magnitude - *(above - 1);
      if (down < up || (down == up && bits % 2 == 1)) --bits;
    }
    return static_cast<uint16_t>(bits | (std::signbit(value) ? 0x8000 : 0));
  }
  const std::vector<double>& values() const { return values_; }

 private:
  const int mantissa_bits_;
  std::vector<double> values_;
};

std::vector<uint16_t> Round(const std::vector<double>& sums, DType to) {
  std::vector<uint16_t> out(sums.size());
  EXPECT_TRUE(RoundSums(sums.data(), to, reinterpret_cast<char*>(out.data()),
                        static_cast<int64_t>(sums.size()))
                  .ok());
  return out;
}

class RoundTest : public ::testing::TestWithParam<DType> {
 protected:
  void ExpectNearest(const std::vector<double>& sums) {
    const std::vector<uint16_t> rounded = Round(sums, GetParam());
    for (size_t i = 0; i < sums.size(); ++i) {
      ASSERT_EQ(rounded[i], nearest_(sums[i])) << std::hexfloat << sums[i];
    }
  }
  const Nearest nearest_{GetParam()};
};

INSTANTIATE_TEST_SUITE_P(Types, RoundTest,
                         ::testing::Values(DType::kFloat16, DType::kBfloat16),
                         [](const auto& info) {
                           return std::string(DTypeName(info.param));
                         });

TEST_P(RoundTest, EveryTieGoesToEvenAndItsNeighboursDoNot) {
  std::vector<double> sums;
  const auto& values = nearest_.values();
  for (size_t i = 0; i + 1 < values.size(); ++i) {
    const double tie = (values[i] + values[i + 1]) / 2;
    for (const double sign : {1.0, -1.0}) {
      sums.push_back(sign * tie);
      sums.push_back(sign * std::nextafter(tie, INFINITY));
      sums.push_back(sign * std::nextafter(tie, 0.0));
      sums.push_back(sign * values[i]);
    }
  }
  ExpectNearest(sums);
}

TEST_P(RoundTest, AnyDoubleIsRoundedOnce) {
  std::mt19937_64 random(TestSeed());
  std::uniform_int_distribution<uint64_t> mantissa;
  std::uniform_int_distribution<int> exponent(-170, 140);
  std::vector<double> sums = {0.0, -0.0, INFINITY, -INFINITY, 1e308, -1e308, 5e-324};
  for (int i = 0; i < 200'000; ++i) {
    const double fraction = 1.0 + static_cast<double>(mantissa(random) >> 12) * 0x1p-52;
    sums.push_back(std::ldexp(i % 2 == 0 ? fraction : -fraction, exponent(random)));
  }
  ExpectNearest(sums);
}

TEST_P(RoundTest, NanStaysNan) {
  uint64_t bits = 0x7ff0000000000001;  // a bit that no smaller type has
  double nan = 0;
  std::memcpy(&nan, &bits, sizeof(nan));
  for (const uint16_t out : Round({std::nan(""), -std::nan(""), nan}, GetParam())) {
    EXPECT_TRUE(std::isnan(Value(out, MantissaBits(GetParam())))) << out;
  }
}

TEST(WeightedSumTest, IsOneProductAndOneSumAStep) {
  std::mt19937 random(TestSeed());
  std::normal_distribution<float> normal;
  // An odd length, and an odd address: neither vector nor alignment is asked for.
  std::vector<float> a(1001), b(1001);
  for (float& value : a) value = normal(random);
  for (float& value : b) value = normal(random);
  std::string shifted = "x" + std::string(reinterpret_cast<char*>(b.data()), 4004);
  std::vector<double> sums(1001, 99);
  ASSERT_TRUE(AddWeighted(DType::kFloat32, reinterpret_cast<char*>(a.data()), 1.0 / 3,
                          Sums::kBegin, sums.data(), 1001)
                  .ok());
  ASSERT_TRUE(AddWeighted(DType::kFloat32, shifted.data() + 1, 0.7, Sums::kAccumulate,
                          sums.data(), 1001)
                  .ok());
  std::vector<float> rounded(1001);
  ASSERT_TRUE(RoundSums(sums.data(), DType::kFloat32,
                        reinterpret_cast<char*>(rounded.data()), 1001)
                  .ok());
  for (size_t i = 0; i < a.size(); ++i) {
    volatile double first = 1.0 / 3 * a[i], second = 0.7 * b[i];
    ASSERT_EQ(sums[i], first + second);
    ASSERT_EQ(rounded[i], static_cast<float>(first + second));
  }
}

TEST(WeightedSumTest, SixteenBitElementsAreReadByTheirValue) {
  for (const DType dtype : {DType::kFloat16, DType::kBfloat16}) {
    std::vector<uint16_t> all(65536);
    for (size_t i = 0; i < all.size(); ++i) all[i] = static_cast<uint16_t>(i);
    std::vector<double> sums(all.size());
    ASSERT_TRUE(AddWeighted(dtype, reinterpret_cast<char*>(all.data()), 1, Sums::kBegin,
                            sums.data(), 65536)
                    .ok());
    for (size_t i = 0; i < all.size(); ++i) {
      const double expected = Value(all[i], MantissaBits(dtype));
      ASSERT_TRUE(sums[i] == expected || (std::isnan(sums[i]) && std::isnan(expected)))
          << i;
    }
  }
}

TEST(WeightedSumTest, TypesWithoutSumsAreRefused) {
  double sum = 0;
  char bytes[16] = {};
  for (const DType dtype :
       {DType::kInt64, DType::kBool, DType::kComplex64, DType::kFloat8E5m2}) {
    EXPECT_FALSE(CanSum(dtype));
    EXPECT_EQ(AddWeighted(dtype, bytes, 1, Sums::kBegin, &sum, 1).code(),
              absl::StatusCode::kInvalidArgument);
    EXPECT_EQ(RoundSums(&sum, dtype, bytes, 1).code(),
              absl::StatusCode::kInvalidArgument);
  }
  EXPECT_TRUE(CanSum(DType::kFloat64));
}

}  // namespace
}  // namespace modelstore
