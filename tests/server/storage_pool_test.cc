#include "server/storage_pool.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <future>

namespace modelstore::server {
namespace {

constexpr auto kLong = std::chrono::seconds(20);

TEST(StoragePoolTest, AFullQueueRefusesNewRpcsAndGoesOnWithRunningOnes) {
  std::promise<void> release;
  std::shared_future<void> released = release.get_future().share();
  std::atomic<int> ran = 0;
  {
    StoragePool pool(2, 3);
    std::promise<void> blocked[2];
    for (auto& b : blocked) {
      ASSERT_TRUE(pool.Submit([&b, released] {
        b.set_value();
        released.wait();
      }));
    }
    for (auto& b : blocked) {
      ASSERT_EQ(b.get_future().wait_for(kLong), std::future_status::ready);
    }
    for (int i = 0; i < 3; ++i) EXPECT_TRUE(pool.Submit([&ran] { ++ran; }));
    EXPECT_FALSE(pool.Submit([&ran] { ++ran; }));
    pool.Continue([&ran] { ++ran; });
    EXPECT_EQ(pool.queued(), 4u);
    release.set_value();
  }
  EXPECT_EQ(ran, 4) << "what was queued runs before the pool ends";
}

TEST(ByteBudgetTest, WaitersAreServedInOrderAsBytesComeBack) {
  auto gauge = std::make_shared<std::atomic<int64_t>>(0);
  ByteBudget budget(100, gauge);
  std::vector<int> granted;
  auto acquire = [&](int64_t bytes, int id) {
    budget.Acquire(&granted, bytes, [&granted, id] { granted.push_back(id); });
  };
  acquire(60, 1);
  acquire(60, 2);
  acquire(10, 3);
  EXPECT_THAT(granted, testing::ElementsAre(1)) << "the third does not overtake";
  EXPECT_TRUE(budget.contended());
  EXPECT_EQ(gauge->load(), 60);
  budget.Release(60);
  EXPECT_THAT(granted, testing::ElementsAre(1, 2, 3));
  EXPECT_FALSE(budget.contended());
  EXPECT_EQ(gauge->load(), 70);
}

TEST(ByteBudgetTest, WhatExceedsTheLimitWaitsForAllAndIsThenGranted) {
  ByteBudget budget(100, nullptr);
  bool granted = false;
  budget.Acquire(&budget, 1, [] {});
  budget.Acquire(&budget, 500, [&] { granted = true; });
  EXPECT_FALSE(granted);
  budget.Release(1);
  EXPECT_TRUE(granted);
  EXPECT_EQ(budget.used(), 500);
}

TEST(ByteBudgetTest, WhoWithdrawsLetsThoseBehindItThrough) {
  ByteBudget budget(100, nullptr);
  const int large = 0, small = 0;
  bool large_granted = false, small_granted = false;
  budget.Charge(60);
  budget.Acquire(&large, 90, [&] { large_granted = true; });
  budget.Acquire(&small, 10, [&] { small_granted = true; });
  EXPECT_FALSE(small_granted);
  EXPECT_TRUE(budget.Withdraw(&large));
  EXPECT_FALSE(budget.Withdraw(&large));
  EXPECT_TRUE(small_granted);
  EXPECT_FALSE(budget.Withdraw(&small)) << "it was granted";
  budget.Release(70);
  EXPECT_FALSE(large_granted);
  EXPECT_EQ(budget.used(), 0);
}

TEST(ByteBudgetTest, ChargedBytesHoldTheNextReadBack) {
  ByteBudget budget(100, nullptr);
  bool read = false;
  budget.Charge(150);
  budget.Acquire(&budget, 0, [&] { read = true; });
  EXPECT_FALSE(read);
  budget.Release(60);
  EXPECT_TRUE(read);
}

}  // namespace
}  // namespace modelstore::server
