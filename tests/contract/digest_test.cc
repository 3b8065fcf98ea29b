#include "proto/contract/digest.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

// The library's portable code, inlined, as the reference for the vectorised code
// that the library picks at run time.
#define XXH_INLINE_ALL
#define XXH_VECTOR 0
#include <xxhash.h>

#include <random>
#include <string>

#include "absl/container/flat_hash_set.h"
#include "absl/strings/escaping.h"
#include "tests/support/seed.h"

namespace modelstore {
namespace {

constexpr DigestAlgorithm kXxh3 = DigestAlgorithm::kXxh3_128;

std::string Bytes(std::mt19937_64& random, size_t count) {
  std::string bytes(count, '\0');
  for (char& c : bytes) c = static_cast<char>(random());
  return bytes;
}

TEST(Digest, EqualsPublishedVectorsOfXxh3) {
  EXPECT_EQ(ComputeDigest(kXxh3, "").ToHex(), "99aa06d3014798d86001c324468d497f");
  EXPECT_EQ(ComputeDigest(kXxh3, "a").ToHex(), "a96faf705af16834e6c632b61e964e1f");
  EXPECT_EQ(ComputeDigest(kXxh3, "abc").ToHex(), "06b05ab6733a618578af5f94892f3950");
}

TEST(Digest, EqualsThePortableCodeAtEveryLengthClass) {
  std::mt19937_64 random(TestSeed());
  const std::string bytes = Bytes(random, (4 << 20) + 64);
  // XXH3 has other code up to 16, 128 and 240 bytes, and blocks of 1024.
  std::vector<size_t> lengths = {4 << 20, (4 << 20) - 1, 65536, 65537};
  for (size_t length = 0; length < 2100; ++length) lengths.push_back(length);
  for (size_t length : lengths) {
    const absl::string_view part(bytes.data() + random() % 64, length);
    XXH128_canonical_t expected;
    XXH128_canonicalFromHash(&expected, XXH3_128bits(part.data(), part.size()));
    EXPECT_EQ(ComputeDigest(kXxh3, part).bytes(),
              absl::string_view(reinterpret_cast<char*>(expected.digest), 16))
        << "length " << length;
  }
}

TEST(Digest, OfPiecesEqualsThatOfTheWhole) {
  std::mt19937_64 random(TestSeed());
  Digester digester(kXxh3);
  for (int round = 0; round < 200; ++round) {
    const std::string bytes = Bytes(random, random() % 5000);
    for (size_t at = 0; at < bytes.size();) {
      const size_t piece = std::min<size_t>(random() % 600, bytes.size() - at);
      digester.Update(absl::string_view(bytes).substr(at, piece));
      at += piece;
    }
    EXPECT_EQ(digester.Finish(), ComputeDigest(kXxh3, bytes)) << bytes.size();
  }
}

TEST(Digest, OfNothingIsThatOfTheEmptyString) {
  Digester digester(kXxh3);
  EXPECT_EQ(digester.Finish(), ComputeDigest(kXxh3, ""));
  digester.Update(absl::string_view());
  EXPECT_EQ(digester.Finish(), ComputeDigest(kXxh3, ""));
}

TEST(Digest, AMovedDigesterContinues) {
  Digester first(kXxh3);
  first.Update("ab");
  Digester second(std::move(first));
  second.Update("c");
  EXPECT_EQ(second.Finish(), ComputeDigest(kXxh3, "abc"));
}

TEST(Digest, FromBytesTakesExactlyTheAlgorithmsLength) {
  const std::string bytes = absl::HexStringToBytes("06b05ab6733a618578af5f94892f3950");
  absl::StatusOr<Digest> digest = Digest::FromBytes(kXxh3, bytes);
  ASSERT_TRUE(digest.ok());
  EXPECT_EQ(*digest, ComputeDigest(kXxh3, "abc"));
  EXPECT_EQ(digest->bytes(), bytes);
  for (size_t length : {0, 1, 15, 17, 32}) {
    EXPECT_EQ(Digest::FromBytes(kXxh3, std::string(length, 'x')).status().code(),
              absl::StatusCode::kInvalidArgument)
        << length;
  }
}

TEST(Digest, NumbersThatNameNoAlgorithmAreRefused) {
  EXPECT_EQ(DigestAlgorithmFromNumber(1).value(), kXxh3);
  EXPECT_EQ(DigestLength(kXxh3), 16u);
  for (int number : {-1, 0, 3, 257}) {
    EXPECT_FALSE(DigestAlgorithmFromNumber(number).ok()) << number;
  }
}

TEST(Digest, IsAKeyOfHashTables) {
  absl::flat_hash_set<Digest> set;
  for (int i = 0; i < 1000; ++i) {
    set.insert(ComputeDigest(kXxh3, std::to_string(i)));
    set.insert(ComputeDigest(kXxh3, std::to_string(i)));
  }
  EXPECT_EQ(set.size(), 1000u);
  EXPECT_TRUE(set.contains(ComputeDigest(kXxh3, "999")));
  EXPECT_FALSE(set.contains(ComputeDigest(kXxh3, "1000")));
}

}  // namespace
}  // namespace modelstore
