#include "client/internal/staging_pool.h"

#include <gtest/gtest.h>
#include <sys/resource.h>

#include <cstring>
#include <random>
#include <string>
#include <thread>

#include "tests/support/seed.h"

namespace modelstore::internal {
namespace {

TEST(StagingPoolTest, ABlockGivenBackIsUsedAgain) {
  const auto pool = StagingPool::Make();
  std::shared_ptr<char> block = pool->TakeBlock();
  char* const first = block.get();
  EXPECT_EQ(pool->size_bytes(), static_cast<int64_t>(StagingPool::kBlockBytes));
  block.reset();
  block = pool->TakeBlock();
  EXPECT_EQ(block.get(), first);
  EXPECT_EQ(pool->size_bytes(), static_cast<int64_t>(StagingPool::kBlockBytes));
}

TEST(StagingPoolTest, ABlockOutlivesThePoolsOwner) {
  auto pool = StagingPool::Make();
  const std::shared_ptr<char> block = pool->TakeBlock();
  pool.reset();
  std::memset(block.get(), 1, StagingPool::kBlockBytes);
  EXPECT_EQ(block.get()[StagingPool::kBlockBytes - 1], 1);
}

TEST(StagingPoolTest, PiecesDoNotOverlapAndKeepTheirBlock) {
  auto area = std::make_unique<StagingArea>(StagingPool::Make(), int64_t{1} << 40);
  std::mt19937_64 random(TestSeed());
  std::vector<StagingArea::Piece> pieces;
  std::vector<size_t> sizes;
  for (int i = 0; i < 100; ++i) {
    sizes.push_back(1 + random() % (1 << 20));
    pieces.push_back(area->Take(sizes.back()));
    ASSERT_NE(pieces.back().data, nullptr);
    std::memset(pieces.back().data, i, sizes.back());
  }
  area.reset();
  for (int i = 0; i < 100; ++i) {
    EXPECT_EQ(pieces[i].data[0], static_cast<char>(i));
    EXPECT_EQ(std::memcmp(pieces[i].data, pieces[i].data + 1, sizes[i] - 1), 0) << i;
  }
}

TEST(StagingPoolTest, AnAreaStopsAtItsLimit) {
  StagingArea area(StagingPool::Make(), 1000);
  EXPECT_NE(area.Take(600).data, nullptr);
  EXPECT_EQ(area.Take(600).data, nullptr);
  EXPECT_NE(area.Take(400).data, nullptr);
  EXPECT_EQ(area.Take(1).data, nullptr);
}

TEST(StagingPoolTest, AWholeBlockFitsIntoABlock) {
  StagingArea area(StagingPool::Make(), int64_t{1} << 40);
  EXPECT_NE(area.Take(StagingPool::kBlockBytes).data, nullptr);
  EXPECT_NE(area.Take(1).data, nullptr);
}

TEST(StagingPoolTest, ThreadsShareAPool) {
  const auto pool = StagingPool::Make();
  std::vector<std::thread> threads;
  for (int t = 0; t < 4; ++t) {
    threads.emplace_back([&, t] {
      for (int i = 0; i < 100; ++i) {
        const std::shared_ptr<char> block = pool->TakeBlock();
        std::memset(block.get(), t, 100);
        EXPECT_EQ(block.get()[99], t);
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_LE(pool->size_bytes(), 4 * static_cast<int64_t>(StagingPool::kBlockBytes));
}

class CopyInParallelSizeTest : public testing::TestWithParam<size_t> {};

TEST_P(CopyInParallelSizeTest, CopiesEveryJobOnce) {
  std::string from(GetParam(), '\0');
  for (size_t i = 0; i < from.size(); ++i) from[i] = static_cast<char>(i * 31);
  const size_t piece = from.size() / 81;
  for (const int threads : {1, 2, 8}) {
    std::string to(from.size(), '\0');
    std::vector<CopyJob> jobs;
    for (size_t at = 0; at < from.size(); at += piece) {
      jobs.push_back(
          {to.data() + at, from.data() + at, std::min(piece, from.size() - at)});
    }
    CopyInParallel(jobs, threads);
    EXPECT_EQ(to, from);
  }
}

TEST(CopyInParallelTest, TheCallingThreadKeepsItsPriority) {
  const int before = getpriority(PRIO_PROCESS, 0);
  const std::string from(100, 'x');
  std::string to(100, '\0');
  CopyInParallel({{to.data(), from.data(), 50}, {to.data() + 50, from.data(), 50}}, 2);
  EXPECT_EQ(to, from);
  EXPECT_EQ(getpriority(PRIO_PROCESS, 0), before);
}

// The second is copied past the caches.
INSTANTIATE_TEST_SUITE_P(Bytes, CopyInParallelSizeTest,
                         testing::Values(1'000'000, 40'000'000));

}  // namespace
}  // namespace modelstore::internal
