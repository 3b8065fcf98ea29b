// Deadlines saturate instead of overflowing into the past.
#include "modelstore/deadline.h"

#include <gtest/gtest.h>

#include <limits>
#include <thread>
#include <type_traits>

#include "absl/time/time.h"
#include "client/internal/convert.h"
#include "modelstore/client.h"
#include "proto/contract/mutex.h"

namespace modelstore {
namespace {

using std::chrono::hours;
using std::chrono::milliseconds;
using std::chrono::nanoseconds;
using std::chrono::seconds;
using std::chrono::steady_clock;

static_assert(std::is_same_v<Deadline::clock, steady_clock>,
              "a step of the wall clock must not move a deadline");

// The protocol's times go to the year 9999, system_clock's to 2262.
TEST(DeadlineTest, ATimeThatTheClockCannotHoldIsItsEnd) {
  google::protobuf::Timestamp time;
  time.set_seconds(253'402'300'799);
  time.set_nanos(999'999'999);
  EXPECT_EQ(internal::ToTime(time), std::chrono::system_clock::time_point::max());
  time.set_seconds(-62'135'596'800);
  EXPECT_EQ(internal::ToTime(time), std::chrono::system_clock::time_point::min());
  time.set_seconds(1'700'000'000);
  EXPECT_EQ(std::chrono::system_clock::to_time_t(internal::ToTime(time)), 1'700'000'000);
}

TEST(DeadlineTest, TheLargestDurationOfEveryUnitNeverEnds) {
  EXPECT_EQ(After(nanoseconds::max()), Deadline::max());
  EXPECT_EQ(After(milliseconds::max()), Deadline::max());
  EXPECT_EQ(After(seconds::max()), Deadline::max());
  EXPECT_EQ(After(hours::max()), Deadline::max());
  EXPECT_EQ(After(std::chrono::duration<double>(1e300)), Deadline::max());
  EXPECT_EQ(After(std::chrono::duration<double>(std::numeric_limits<double>::infinity())),
            Deadline::max());
}

TEST(DeadlineTest, ALargeDurationThatFitsIsKept) {
  const Deadline now = steady_clock::now();
  const Deadline far = Later(now, hours(24 * 365 * 100));
  EXPECT_EQ(far - now, hours(24 * 365 * 100));
}

TEST(DeadlineTest, WhatIsNegativeOrZeroIsOverAtOnce) {
  const Deadline now = steady_clock::now();
  EXPECT_EQ(Later(now, milliseconds(0)), now);
  EXPECT_EQ(Later(now, milliseconds(-1)), now);
  EXPECT_EQ(Later(now, milliseconds::min()), now);
  EXPECT_EQ(Later(now, hours::min()), now);
  EXPECT_EQ(
      Later(now, std::chrono::duration<double>(std::numeric_limits<double>::quiet_NaN())),
      now);
}

TEST(DeadlineTest, SumsSaturate) {
  EXPECT_EQ(Later(Deadline::max(), seconds(1)), Deadline::max());
  EXPECT_EQ(Later(After(milliseconds::max()), milliseconds::max()), Deadline::max());
  // A steady clock may count from any time, and tests have their own.
  EXPECT_EQ(Later(Deadline(seconds(-5)), seconds(7)), Deadline(seconds(2)));
  EXPECT_EQ(Later(Deadline::min(), nanoseconds::max()),
            Deadline::min() + nanoseconds::max());
}

TEST(DeadlineTest, OptionsTakeAnyDurationWhole) {
  ConnectOptions options;
  options.stall_timeout = hours::max();
  EXPECT_EQ(options.stall_timeout.count(), milliseconds::max().count());
  EXPECT_EQ(After(options.stall_timeout), Deadline::max());
  options.stall_timeout = hours::min();
  EXPECT_EQ(options.stall_timeout.count(), milliseconds::min().count());
  options.stall_timeout = seconds(2);
  EXPECT_EQ(options.stall_timeout, milliseconds(2'000));
  const ConnectOptions connect{.retry_timeout = hours(1)};
  EXPECT_EQ(connect.retry_timeout.count(), 3'600'000);
}

TEST(DeadlineTest, AWaitUntilTheLastDeadlineIsWokenAndDoesNotEndByItself) {
  Mutex mutex;
  CondVar changed;
  bool ready = false;
  std::thread waker;
  MutexLock lock(mutex);
  waker = std::thread([&] {
    MutexLock own(mutex);  // Taken once the other waits.
    ready = true;
    changed.NotifyAll();
  });
  EXPECT_TRUE(changed.WaitUntil(mutex, Deadline::max(), [&] { return ready; }));
  EXPECT_FALSE(changed.WaitUntil(mutex, After(milliseconds(1)), [] { return false; }));
  EXPECT_FALSE(changed.WaitUntil(mutex, After(hours::min()), [] { return false; }));
  EXPECT_FALSE(changed.WaitFor(mutex, absl::Milliseconds(1), [] { return false; }));
  EXPECT_FALSE(changed.WaitFor(mutex, -absl::InfiniteDuration(), [] { return false; }));
  EXPECT_TRUE(changed.WaitFor(mutex, absl::InfiniteDuration(), [] { return true; }));
  lock.Unlock();
  waker.join();
  lock.Lock();
}

}  // namespace
}  // namespace modelstore
