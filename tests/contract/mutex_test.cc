#include "proto/contract/mutex.h"

#include <gtest/gtest.h>

#include <thread>
#include <vector>

namespace modelstore {
namespace {

struct Counter {
  Mutex mutex;
  CondVar changed;
  int value GUARDED_BY(mutex) = 0;
};

TEST(Mutex, ExcludesOtherThreads) {
  Counter counter;
  std::vector<std::thread> threads;
  for (int i = 0; i < 4; ++i) {
    threads.emplace_back([&] {
      for (int j = 0; j < 10'000; ++j) {
        MutexLock lock(counter.mutex);
        ++counter.value;
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  MutexLock lock(counter.mutex);
  EXPECT_EQ(counter.value, 40'000);
}

TEST(Mutex, ALockCanLetGoAndTakeAgain) {
  Counter counter;
  MutexLock lock(counter.mutex);
  std::thread([&] { EXPECT_FALSE(counter.mutex.TryLock()); }).join();
  lock.Unlock();
  EXPECT_TRUE(counter.mutex.TryLock());
  counter.mutex.Unlock();
  lock.Lock();
}

TEST(CondVar, AWaitEndsWhenTheConditionHolds) {
  Counter counter;
  std::thread setter([&] {
    MutexLock lock(counter.mutex);
    counter.value = 1;
    counter.changed.NotifyAll();
  });
  bool held = false;
  {
    MutexLock lock(counter.mutex);
    held = counter.changed.WaitUntil(counter.mutex, SteadyNow() + absl::Seconds(30),
                                     [&] { return counter.value == 1; });
  }
  setter.join();
  EXPECT_TRUE(held);
}

TEST(CondVar, AWaitEndsAtItsDeadlineWithTheMutexHeld) {
  Counter counter;
  MutexLock lock(counter.mutex);
  const absl::Time start = SteadyNow();
  EXPECT_FALSE(counter.changed.WaitFor(counter.mutex, absl::Milliseconds(30),
                                       [&] { return counter.value == 1; }));
  EXPECT_GE(SteadyNow() - start, absl::Milliseconds(29));
  std::thread([&] { EXPECT_FALSE(counter.mutex.TryLock()); }).join();
}

TEST(CondVar, ADeadlineInThePastStillChecksTheCondition) {
  Counter counter;
  MutexLock lock(counter.mutex);
  EXPECT_TRUE(counter.changed.WaitUntil(counter.mutex, absl::InfinitePast(),
                                        [] { return true; }));
  EXPECT_FALSE(counter.changed.WaitUntil(counter.mutex, absl::InfinitePast(),
                                         [] { return false; }));
  EXPECT_TRUE(counter.changed.WaitUntil(counter.mutex, absl::InfiniteFuture(),
                                        [] { return true; }));
}

}  // namespace
}  // namespace modelstore
