#include "proto/contract/numeric.h"

#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <limits>
#include <random>
#include <string>
#include <vector>

#include "tests/support/seed.h"

namespace modelstore {
namespace {

template <typename To, typename From>
std::vector<To> CastAll(DType from, const std::vector<From>& values, DType to) {
  std::vector<To> out(values.size());
  EXPECT_TRUE(Cast(from, reinterpret_cast<const char*>(values.data()), to,
                   reinterpret_cast<char*>(out.data()), values.size())
                  .ok());
  return out;
}

uint32_t Bits(float value) {
  uint32_t bits;
  std::memcpy(&bits, &value, sizeof(bits));
  return bits;
}

float FromBits(uint32_t bits) {
  float value;
  std::memcpy(&value, &bits, sizeof(value));
  return value;
}

std::vector<uint16_t> AllPatterns() {
  std::vector<uint16_t> all(65536);
  for (size_t i = 0; i < all.size(); ++i) all[i] = static_cast<uint16_t>(i);
  return all;
}

// A 16-bit float's value by its definition.
double Value(uint16_t bits, int mantissa_bits) {
  const int exponent_bits = 15 - mantissa_bits;
  const int bias = (1 << (exponent_bits - 1)) - 1;
  const int exponent = bits >> mantissa_bits & ((1 << exponent_bits) - 1);
  const int mantissa = bits & ((1 << mantissa_bits) - 1);
  const double sign = bits & 0x8000 ? -1 : 1;
  if (exponent == (1 << exponent_bits) - 1) {
    return mantissa != 0 ? std::nan("") : sign * INFINITY;
  }
  if (exponent == 0) return sign * std::ldexp(mantissa, 1 - bias - mantissa_bits);
  return sign *
         std::ldexp((1 << mantissa_bits) + mantissa, exponent - bias - mantissa_bits);
}

int MantissaBits(DType dtype) { return dtype == DType::kFloat16 ? 10 : 7; }

class SixteenBits : public testing::TestWithParam<DType> {};
INSTANTIATE_TEST_SUITE_P(Types, SixteenBits,
                         testing::Values(DType::kFloat16, DType::kBfloat16),
                         [](const auto& info) {
                           return std::string(DTypeName(info.param));
                         });

TEST_P(SixteenBits, EveryPatternWidensToItsExactValue) {
  const std::vector<uint16_t> all = AllPatterns();
  const std::vector<float> floats = CastAll<float>(GetParam(), all, DType::kFloat32);
  const std::vector<double> doubles = CastAll<double>(GetParam(), all, DType::kFloat64);
  for (size_t i = 0; i < all.size(); ++i) {
    const double expected = Value(all[i], MantissaBits(GetParam()));
    if (std::isnan(expected)) {
      ASSERT_TRUE(std::isnan(floats[i]) && std::isnan(doubles[i])) << i;
    } else {
      ASSERT_EQ(floats[i], expected) << i;
      ASSERT_EQ(doubles[i], expected) << i;
    }
    ASSERT_EQ(std::signbit(floats[i]), i >= 0x8000) << i;
  }
}

TEST_P(SixteenBits, EveryPatternSurvivesWideningAndBack) {
  const std::vector<uint16_t> all = AllPatterns();
  for (DType wide : {DType::kFloat32, DType::kFloat64}) {
    std::vector<char> bytes(all.size() * ElementSize(wide));
    ASSERT_TRUE(Cast(GetParam(), reinterpret_cast<const char*>(all.data()), wide,
                     bytes.data(), all.size())
                    .ok());
    std::vector<uint16_t> back(all.size());
    ASSERT_TRUE(Cast(wide, bytes.data(), GetParam(), reinterpret_cast<char*>(back.data()),
                     all.size())
                    .ok());
    for (size_t i = 0; i < all.size(); ++i) {
      if (std::isnan(Value(all[i], MantissaBits(GetParam())))) {
        ASSERT_TRUE(std::isnan(Value(back[i], MantissaBits(GetParam())))) << i;
      } else {
        ASSERT_EQ(back[i], all[i]);
      }
    }
  }
}

// The values half way between neighbours, and those just beside: every decision
// of the rounding.
TEST_P(SixteenBits, RoundsToNearestTiesToEvenBetweenAllNeighbours) {
  const int mantissa_bits = MantissaBits(GetParam());
  const uint16_t infinity =
      static_cast<uint16_t>(((1 << (15 - mantissa_bits)) - 1) << mantissa_bits);
  std::vector<float> inputs;
  std::vector<uint16_t> expected;
  for (uint16_t sign : {0x0000, 0x8000}) {
    for (uint16_t low = 0; low < infinity; ++low) {
      const uint16_t high = low + 1;
      // Beyond the largest finite value one goes on as if there were a next.
      const double below = Value(low, mantissa_bits);
      const double above = high == infinity
                               ? below + (below - Value(low - 1, mantissa_bits))
                               : Value(high, mantissa_bits);
      const auto middle = static_cast<float>((below + above) / 2);
      if (static_cast<double>(middle) != (below + above) / 2) continue;
      const uint16_t even = low % 2 == 0 ? low : high;
      for (const auto& [value, result] :
           {std::pair(middle, even), std::pair(std::nextafter(middle, 0.0f), low),
            std::pair(std::nextafter(middle, INFINITY), high)}) {
        if (std::isinf(value)) continue;
        inputs.push_back(sign != 0 ? -value : value);
        expected.push_back(sign | result);
      }
    }
  }
  const std::vector<uint16_t> results =
      CastAll<uint16_t>(DType::kFloat32, inputs, GetParam());
  ASSERT_GT(inputs.size(), 180'000u);
  for (size_t i = 0; i < inputs.size(); ++i) {
    ASSERT_EQ(results[i], expected[i]) << inputs[i];
  }
}

TEST_P(SixteenBits, AFloat64IsRoundedThroughFloat32AsInPyTorch) {
  std::mt19937_64 random(TestSeed());
  std::vector<double> doubles = {1.0 + std::ldexp(1, -11) + std::ldexp(1, -40),
                                 1e300,
                                 -1e300,
                                 1e-300,
                                 0.0,
                                 -0.0,
                                 INFINITY,
                                 -INFINITY};
  for (int i = 0; i < 20'000; ++i) {
    const uint64_t bits = random();
    double value;
    std::memcpy(&value, &bits, sizeof(value));
    if (!std::isnan(value)) doubles.push_back(value);
    doubles.push_back(
        std::ldexp(static_cast<double>(random()), -60 - static_cast<int>(random() % 30)));
  }
  std::vector<float> floats;
  for (double value : doubles) floats.push_back(static_cast<float>(value));
  EXPECT_EQ(CastAll<uint16_t>(DType::kFloat64, doubles, GetParam()),
            CastAll<uint16_t>(DType::kFloat32, floats, GetParam()));
}

TEST(Casts, KnownBitPatternsOfFloat16) {
  const std::vector<std::pair<float, uint16_t>> known = {
      {0.0f, 0x0000},         {-0.0f, 0x8000},    {1.0f, 0x3c00},
      {-2.0f, 0xc000},        {65504.0f, 0x7bff}, {65519.0f, 0x7bff},
      {65520.0f, 0x7c00},     {1e10f, 0x7c00},    {-1e10f, 0xfc00},
      {0x1p-14f, 0x0400},     {0x1p-24f, 0x0001}, {0x1p-25f, 0x0000},
      {0x1.8p-25f, 0x0001},   {0x1p-26f, 0x0000}, {0x1p-149f, 0x0000},
      {0x1.ff8p-15f, 0x03ff}, {0.1f, 0x2e66},     {3.14159265f, 0x4248},
      {INFINITY, 0x7c00},     {-INFINITY, 0xfc00}};
  for (const auto& [value, bits] : known) {
    EXPECT_EQ(
        CastAll<uint16_t>(DType::kFloat32, std::vector<float>{value}, DType::kFloat16)[0],
        bits)
        << value;
  }
}

TEST(Casts, KnownBitPatternsOfBfloat16) {
  const std::vector<std::pair<float, uint16_t>> known = {{0.0f, 0x0000},
                                                         {-0.0f, 0x8000},
                                                         {1.0f, 0x3f80},
                                                         {-2.0f, 0xc000},
                                                         {0.1f, 0x3dcd},
                                                         {3.14159265f, 0x4049},
                                                         {FromBits(0x3f808000), 0x3f80},
                                                         {FromBits(0x3f818000), 0x3f82},
                                                         {FromBits(0x3f808001), 0x3f81},
                                                         {FromBits(0x7f7fffff), 0x7f80},
                                                         {0x1p-149f, 0x0000},
                                                         {INFINITY, 0x7f80}};
  for (const auto& [value, bits] : known) {
    EXPECT_EQ(CastAll<uint16_t>(DType::kFloat32, std::vector<float>{value},
                                DType::kBfloat16)[0],
              bits)
        << value;
  }
}

TEST(Casts, EveryNanStaysNan) {
  std::vector<float> nans;
  for (uint32_t payload = 1; payload < 0x800000; payload = payload * 3 + 1) {
    nans.push_back(FromBits(0x7f800000 | payload));
    nans.push_back(FromBits(0xff800000 | payload));
  }
  for (uint16_t bits : CastAll<uint16_t>(DType::kFloat32, nans, DType::kFloat16)) {
    EXPECT_GT(bits & 0x7fff, 0x7c00);
  }
  for (uint16_t bits : CastAll<uint16_t>(DType::kFloat32, nans, DType::kBfloat16)) {
    EXPECT_GT(bits & 0x7fff, 0x7f80);
  }
  for (double value : CastAll<double>(DType::kFloat32, nans, DType::kFloat64)) {
    EXPECT_TRUE(std::isnan(value));
  }
}

TEST(Casts, BetweenFloat32AndFloat64AreTheMachinesOwn) {
  std::mt19937_64 random(TestSeed());
  std::vector<double> doubles = {0.1, 1e300, -1e300, 1e-310, 5e-324, INFINITY, 1e-45};
  for (int i = 0; i < 10'000; ++i)
    doubles.push_back(std::ldexp(random(), random() % 300 - 200));
  const std::vector<float> floats =
      CastAll<float>(DType::kFloat64, doubles, DType::kFloat32);
  for (size_t i = 0; i < doubles.size(); ++i) {
    ASSERT_EQ(Bits(floats[i]), Bits(static_cast<float>(doubles[i])));
  }
  const std::vector<double> back =
      CastAll<double>(DType::kFloat32, floats, DType::kFloat64);
  for (size_t i = 0; i < floats.size(); ++i) ASSERT_EQ(back[i], floats[i]);
}

TEST(Casts, TheSameTypeIsCopiedBitForBit) {
  const std::vector<uint32_t> bits = {0x7f800001, 0xff812345, 0x80000000, 0x3f800000};
  EXPECT_EQ(CastAll<uint32_t>(DType::kFloat32, bits, DType::kFloat32), bits);
}

TEST(Casts, UnalignedBuffersAndEveryCountGiveTheSameBits) {
  std::mt19937_64 random(TestSeed());
  for (DType from :
       {DType::kFloat16, DType::kBfloat16, DType::kFloat32, DType::kFloat64}) {
    for (DType to :
         {DType::kFloat16, DType::kBfloat16, DType::kFloat32, DType::kFloat64}) {
      ASSERT_TRUE(CanCast(from, to));
      std::vector<char> in(70 * ElementSize(from));
      for (char& c : in) c = static_cast<char>(random());
      std::vector<char> one_by_one(70 * ElementSize(to));
      for (int i = 0; i < 70; ++i) {
        ASSERT_TRUE(Cast(from, &in[i * ElementSize(from)], to,
                         &one_by_one[i * ElementSize(to)], 1)
                        .ok());
      }
      for (int64_t count = 0; count <= 70; ++count) {
        std::vector<char> shifted(in.size() + 1), out(one_by_one.size() + 2, 'z');
        std::memcpy(shifted.data() + 1, in.data(), in.size());
        ASSERT_TRUE(Cast(from, shifted.data() + 1, to, out.data() + 1, count).ok());
        ASSERT_EQ(std::memcmp(out.data() + 1, one_by_one.data(), count * ElementSize(to)),
                  0);
        ASSERT_EQ(out[1 + count * ElementSize(to)], 'z') << "wrote past the end";
      }
    }
  }
}

TEST(Casts, OtherTypesAreRefused) {
  char bytes[16] = {};
  for (int number = 1; number <= 20; ++number) {
    const DType dtype = *DTypeFromNumber(number);
    const bool castable = number >= 7 && number <= 10;
    EXPECT_EQ(CanCast(dtype, DType::kFloat32), castable) << DTypeName(dtype);
    EXPECT_EQ(CanCast(DType::kFloat32, dtype), castable) << DTypeName(dtype);
    if (!castable) {
      EXPECT_EQ(Cast(dtype, bytes, DType::kFloat32, bytes + 8, 1).code(),
                absl::StatusCode::kInvalidArgument);
    }
  }
  EXPECT_FALSE(Cast(DType::kFloat32, bytes, DType::kFloat64, bytes + 8, -1).ok());
}

TEST(NumericTest, BytesOfBoolsAre0And1WhereverTheOtherByteLies) {
  std::string bytes(200, '\0');
  for (size_t i = 0; i < bytes.size(); i += 3) bytes[i] = 1;
  for (size_t length = 0; length <= bytes.size(); ++length) {
    EXPECT_TRUE(HoldsOnlyBools(absl::string_view(bytes).substr(0, length)));
  }
  for (size_t i = 0; i < bytes.size(); ++i) {
    for (const char other : {'\2', '\x81', '\xff'}) {
      std::string one = bytes;
      one[i] = other;
      EXPECT_FALSE(HoldsOnlyBools(one)) << i;
    }
  }
}

}  // namespace
}  // namespace modelstore
