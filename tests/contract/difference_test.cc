#include "proto/contract/difference.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <random>
#include <string>

#include "tests/support/plain_difference.h"
#include "tests/support/seed.h"

namespace modelstore {
namespace {

using support::AllTypes;
using support::Elements;
using support::PlainDifference;

constexpr double kInfinity = std::numeric_limits<double>::infinity();

void ExpectNear(double actual, double expected) {
  if (std::isinf(expected) || expected == 0) {
    EXPECT_EQ(actual, expected);
  } else {
    EXPECT_NEAR(actual / expected, 1, 1e-12);
  }
}

class EachType : public testing::TestWithParam<DType> {};
INSTANTIATE_TEST_SUITE_P(Types, EachType, testing::ValuesIn(AllTypes()),
                         [](const auto& info) {
                           return std::string(DTypeName(info.param));
                         });

TEST_P(EachType, DiffersFromEveryOtherTypeAsAPlainComputationSays) {
  std::mt19937_64 random(TestSeed());
  for (const DType other : AllTypes()) {
    SCOPED_TRACE(std::string(DTypeName(other)));
    for (const int64_t count : {0, 1, 7, 1537}) {
      const std::string a = Elements(GetParam(), count, random);
      const std::string b = Elements(other, count, random);
      DifferenceSums sums;
      // In two runs, the second at an odd address.
      const int64_t first = count / 3;
      sums.Add(GetParam(), a.data(), other, b.data(), first);
      const std::string rest_a = "x" + a.substr(first * ElementSize(GetParam()));
      const std::string rest_b = "x" + b.substr(first * ElementSize(other));
      DifferenceSums rest;
      rest.Add(GetParam(), rest_a.data() + 1, other, rest_b.data() + 1, count - first);
      sums.Merge(rest);
      const PlainDifference plain = support::ComputeDifference(GetParam(), a, other, b);
      EXPECT_EQ(sums.differing_elements(), plain.differing);
      EXPECT_EQ(sums.nan_differences(), plain.nan);
      ExpectNear(sums.max_abs_difference(), plain.max_abs);
      ExpectNear(sums.difference_norm(), std::sqrt(plain.difference_squares));
      ExpectNear(sums.norm(), std::sqrt(plain.squares));
    }
  }
}

TEST_P(EachType, IsAtNoDistanceFromItself) {
  std::mt19937_64 random(TestSeed());
  const std::string a = Elements(GetParam(), 1000, random);
  DifferenceSums sums;
  sums.Add(GetParam(), a.data(), GetParam(), a.data(), 1000);
  EXPECT_EQ(sums.max_abs_difference(), 0);
  EXPECT_EQ(sums.difference_norm(), 0);
  EXPECT_EQ(sums.differing_elements(), 0);
  EXPECT_EQ(sums.nan_differences(), 0);
}

TEST_P(EachType, CountsItsNanAndInfiniteElements) {
  std::mt19937_64 random(TestSeed());
  for (const int64_t count : {0, 1, 129, 70'000}) {
    const std::string a = "x" + Elements(GetParam(), count, random);
    const PlainDifference plain =
        support::ComputeDifference(GetParam(), a.substr(1), GetParam(), a.substr(1));
    const NonFinite found = CountNonFinite(GetParam(), a.data() + 1, count);
    EXPECT_EQ(found.nan, plain.nan_in_first);
    EXPECT_EQ(found.infinite, plain.infinite_in_first);
  }
}

TEST(DifferenceTest, LargeIntegersThatRoundToOneDoubleStillDiffer) {
  const int64_t a = (int64_t{1} << 53) + 1;
  const double b = std::ldexp(1.0, 53);
  DifferenceSums sums;
  sums.Add(DType::kInt64, reinterpret_cast<const char*>(&a), DType::kFloat64,
           reinterpret_cast<const char*>(&b), 1);
  EXPECT_EQ(sums.differing_elements(), 1);
  EXPECT_EQ(sums.max_abs_difference(), 1);
}

TEST(DifferenceTest, InfinitiesOfOneSignAreEqualAndOthersInfinitelyFar) {
  const double a[] = {kInfinity, -kInfinity, kInfinity};
  const double b[] = {kInfinity, -kInfinity, -kInfinity};
  const auto bytes = [](const double* p) { return reinterpret_cast<const char*>(p); };
  DifferenceSums same;
  same.Add(DType::kFloat64, bytes(a), DType::kFloat64, bytes(b), 2);
  EXPECT_EQ(same.differing_elements(), 0);
  EXPECT_EQ(same.difference_norm(), 0);
  DifferenceSums far;
  far.Add(DType::kFloat64, bytes(a), DType::kFloat64, bytes(b), 3);
  EXPECT_EQ(far.differing_elements(), 1);
  EXPECT_EQ(far.max_abs_difference(), kInfinity);
}

}  // namespace
}  // namespace modelstore
