#include <gtest/gtest.h>

#include <algorithm>
#include <random>

#include "client/internal/load.h"
#include "proto/contract/limits.h"
#include "tests/support/seed.h"

namespace modelstore::internal {
namespace {

constexpr int64_t kMiB = int64_t{1} << 20;

struct Targets {
  std::vector<std::pair<int64_t, bool>> sizes;  // Size and whether it is bound.
  std::unique_ptr<LoadTarget[]> targets;

  explicit Targets(std::vector<std::pair<int64_t, bool>> s)
      : sizes(std::move(s)), targets(std::make_unique<LoadTarget[]>(sizes.size())) {
    int64_t position = 0;
    for (size_t i = 0; i < sizes.size(); ++i) {
      targets[i].begin = position;
      position += sizes[i].first;
      targets[i].end = position;
      targets[i].bound = sizes[i].second;
    }
  }
  std::vector<LoadRange> Cut(int64_t most) const {
    return CutRanges(targets.get(), sizes.size(), most);
  }
};

// What every cut must keep.
void CheckRanges(const Targets& t, int64_t most, const std::vector<LoadRange>& ranges) {
  int64_t end = -1;
  for (const LoadRange& r : ranges) {
    EXPECT_LT(r.begin, r.end);
    EXPECT_GE(r.begin, end);
    EXPECT_LE(r.end - r.begin, most);
    end = r.end;
  }
  const auto covered = [&](int64_t position) {
    return std::any_of(ranges.begin(), ranges.end(), [&](const LoadRange& r) {
      return r.begin <= position && position < r.end;
    });
  };
  for (size_t i = 0; i < t.sizes.size(); ++i) {
    const LoadTarget& target = t.targets[i];
    if (target.begin == target.end || !target.bound) continue;
    EXPECT_TRUE(covered(target.begin));
    EXPECT_TRUE(covered(target.end - 1));
    EXPECT_TRUE(covered((target.begin + target.end) / 2));
  }
  // Cuts within a tensor fall where every chunk size cuts.
  for (const LoadRange& r : ranges) {
    for (size_t i = 0; i < t.sizes.size(); ++i) {
      const LoadTarget& target = t.targets[i];
      for (const int64_t cut : {r.begin, r.end}) {
        if (target.begin < cut && cut < target.end) {
          EXPECT_EQ((cut - target.begin) % kMaxChunkBytes, 0);
        }
      }
    }
  }
}

TEST(CutRangesTest, NothingBoundIsNothingToFetch) {
  EXPECT_TRUE(Targets({{kMiB, false}, {0, true}}).Cut(16 * kMiB).empty());
  EXPECT_TRUE(Targets({}).Cut(16 * kMiB).empty());
}

TEST(CutRangesTest, NeighboursTravelTogether) {
  const auto ranges = Targets({{100, true}, {0, true}, {200, true}}).Cut(16 * kMiB);
  ASSERT_EQ(ranges.size(), 1u);
  EXPECT_EQ(ranges[0].begin, 0);
  EXPECT_EQ(ranges[0].end, 300);
}

TEST(CutRangesTest, LargeGapsAreSkippedAndSmallOnesReadOver) {
  EXPECT_EQ(Targets({{10, true}, {2 * kMiB, false}, {10, true}}).Cut(16 * kMiB).size(),
            2u);
  EXPECT_EQ(Targets({{10, true}, {1000, false}, {10, true}}).Cut(16 * kMiB).size(), 1u);
}

TEST(CutRangesTest, ALargeTensorIsCutAtChunks) {
  const Targets t({{1000, true}, {50 * kMiB + 12, true}});
  const auto ranges = t.Cut(16 * kMiB);
  EXPECT_GE(ranges.size(), 4u);
  CheckRanges(t, 16 * kMiB, ranges);
}

TEST(CutRangesTest, RandomPlansAreCoveredWithoutOverlap) {
  std::mt19937_64 random(TestSeed());
  for (int round = 0; round < 300; ++round) {
    std::vector<std::pair<int64_t, bool>> sizes(random() % 30);
    for (auto& [size, bound] : sizes) {
      const int64_t unit[] = {0, 1, 5000, kMiB, 9 * kMiB};
      size = unit[random() % 5] * static_cast<int64_t>(random() % 5 + 1);
      bound = random() % 3 != 0;
    }
    const Targets t(sizes);
    const int64_t most = static_cast<int64_t>(16 + random() % 100) * kMiB;
    CheckRanges(t, most, t.Cut(most));
    if (HasFailure()) FAIL() << "round " << round;
  }
}

}  // namespace
}  // namespace modelstore::internal
