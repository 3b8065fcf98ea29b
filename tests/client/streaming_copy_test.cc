#include "client/internal/streaming_copy.h"

#include <gtest/gtest.h>

#include <random>
#include <string>

#include "tests/support/seed.h"

namespace modelstore::internal {
namespace {

TEST(StreamingCopyTest, EachWayCopiesAllBytesAndNoOthers) {
  std::mt19937_64 random(TestSeed());
  std::string from(2'000, '\0');
  for (char& c : from) c = static_cast<char>(random());
  for (const auto copy : StreamingCopies()) {
    for (size_t to_offset = 0; to_offset < 64; ++to_offset) {
      for (const size_t bytes : {0, 1, 15, 16, 63, 64, 65, 127, 128, 200, 1'000}) {
        const size_t from_offset = random() % 64;
        std::string to(1'200, '#');
        std::string expected = to;
        expected.replace(to_offset, bytes, from, from_offset, bytes);
        copy(to.data() + to_offset, from.data() + from_offset, bytes);
        ASSERT_EQ(to, expected)
            << bytes << " bytes from " << from_offset << " to " << to_offset;
      }
    }
  }
}

TEST(StreamingCopyTest, CopiesMuch) {
  std::mt19937_64 random(TestSeed());
  std::string from((1 << 20) + 5, '\0');
  for (char& c : from) c = static_cast<char>(random());
  std::string to(from.size(), '\0');
  StreamingCopy(to.data(), from.data(), from.size());
  EXPECT_EQ(to, from);
}

}  // namespace
}  // namespace modelstore::internal
