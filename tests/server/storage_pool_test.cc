#include "server/rpc/storage_pool.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <future>
#include <thread>

#include "proto/contract/steady_time.h"
#include "server/rpc/byte_buffers.h"

namespace modelstore::server {
namespace {

constexpr auto kLong = std::chrono::seconds(20);

TEST(StoragePoolTest, AFullQueueRefusesNewRpcsAndContinuesWithRunningOnes) {
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

TEST(StoragePoolTest, AStepThatWaitsHoldsNoThread) {
  StoragePool pool(1, 8);
  std::promise<absl::Time> later, sooner;
  std::promise<void> other;
  const absl::Time begin = SteadyNow();
  pool.ContinueAt(begin + absl::Milliseconds(200), [&] { later.set_value(SteadyNow()); });
  pool.ContinueAt(begin + absl::Milliseconds(100),
                  [&] { sooner.set_value(SteadyNow()); });
  pool.Continue([&] { other.set_value(); });
  ASSERT_EQ(other.get_future().wait_for(kLong), std::future_status::ready);
  const absl::Time first = sooner.get_future().get(), second = later.get_future().get();
  EXPECT_GE(first, begin + absl::Milliseconds(100));
  EXPECT_GE(second, begin + absl::Milliseconds(200));
}

TEST(StoragePoolTest, WhatWaitsForItsTimeRunsBeforeThePoolEnds) {
  bool ran = false;
  const absl::Time begin = SteadyNow();
  {
    StoragePool pool(2, 8);
    pool.ContinueAt(begin + absl::Minutes(10), [&] { ran = true; });
  }
  EXPECT_TRUE(ran);
  EXPECT_LT(SteadyNow() - begin, absl::Minutes(1));
}

TEST(StoragePoolTest, ForEachEndsWhenAllIsDoneAlsoWhereEveryOtherThreadIsBlocked) {
  std::promise<void> release;
  std::shared_future<void> released = release.get_future().share();
  {
    StoragePool pool(2, 8);
    std::promise<void> blocked;
    pool.Continue([&] {
      blocked.set_value();
      released.wait();
    });
    ASSERT_EQ(blocked.get_future().wait_for(kLong), std::future_status::ready);
    std::promise<int> sum;
    pool.Continue([&] {
      std::atomic<int> added = 0;
      pool.ForEach(100, [&](int i) { added += i; });
      sum.set_value(added);
    });
    auto result = sum.get_future();
    ASSERT_EQ(result.wait_for(kLong), std::future_status::ready);
    EXPECT_EQ(result.get(), 4950);
    release.set_value();
  }
}

TEST(StoragePoolTest, ForEachSharesTheWorkWithThreadsThatAreFree) {
  if (std::thread::hardware_concurrency() < 2)
    GTEST_SKIP() << "one core: nothing is shared";
  StoragePool pool(4, 8);
  std::promise<bool> met;
  pool.Continue([&] {
    // Each waits for the other: only two threads get through.
    std::promise<void> here[2];
    bool both = true;
    pool.ForEach(2, [&](int i) {
      here[i].set_value();
      if (here[1 - i].get_future().wait_for(kLong) != std::future_status::ready)
        both = false;
    });
    met.set_value(both);
  });
  EXPECT_TRUE(met.get_future().get());
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

TEST(ByteBudgetTest, AMessageIsChargedUntilGrpcLetsGoOfIt) {
  auto budget = std::make_shared<ByteBudget>(100, nullptr);
  budget->Charge(64);
  const std::string head(64, 'x');
  auto buffer =
      std::make_unique<grpc::ByteBuffer>(ToBuffer(OutboundMessage{head, {}}, 64, budget));
  EXPECT_EQ(Fragments(*buffer).Join(), head);
  EXPECT_EQ(budget->used(), 64);
  buffer.reset();
  EXPECT_EQ(budget->used(), 0);
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
