#include "client/internal/retry.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <set>
#include <string>
#include <thread>
#include <vector>

#include "proto/contract/errors.h"

namespace modelstore::internal {
namespace {

using std::chrono::milliseconds;

constexpr RetryPolicy kPolicy = {milliseconds(60'000), milliseconds(1'000)};

// Notes what it was asked to sleep, and sleeps not.
struct Sleeps {
  std::vector<milliseconds> asked;
  bool cancelled = false;
  Sleeper sleeper() {
    return [this](milliseconds time) {
      asked.push_back(time);
      return !cancelled;
    };
  }
};

TEST(RetryTest, APassingFailureIsRepeatedUntilItPasses) {
  Sleeps sleeps;
  int attempts = 0;
  const absl::Status s =
      Retry(kPolicy, Idempotency::kIdempotent, After(std::chrono::hours(1)),
            sleeps.sleeper(), [&](Deadline) {
              return ++attempts < 4 ? absl::UnavailableError("away") : absl::OkStatus();
            });
  EXPECT_TRUE(s.ok()) << s;
  EXPECT_EQ(attempts, 4);
  EXPECT_EQ(sleeps.asked.size(), 3u);
}

TEST(RetryTest, WhatMayNotBeRepeatedIsNot) {
  Sleeps sleeps;
  int attempts = 0;
  const absl::Status s =
      Retry(kPolicy, Idempotency::kNotIdempotent, After(std::chrono::hours(1)),
            sleeps.sleeper(), [&](Deadline) {
              ++attempts;
              return absl::UnavailableError("away");
            });
  EXPECT_EQ(s.code(), absl::StatusCode::kUnavailable);
  EXPECT_EQ(attempts, 1);
}

// The server has done nothing.
TEST(RetryTest, ARefusalForOverloadIsRepeatedWhateverTheCall) {
  Sleeps sleeps;
  int attempts = 0;
  const absl::Status s =
      Retry(kPolicy, Idempotency::kNotIdempotent, After(std::chrono::hours(1)),
            sleeps.sleeper(), [&](Deadline) {
              return ++attempts < 3 ? Overloaded("overloaded") : absl::OkStatus();
            });
  EXPECT_TRUE(s.ok()) << s;
  EXPECT_EQ(attempts, 3);
}

TEST(RetryTest, FinalFailuresAreNotRepeated) {
  for (const absl::StatusCode code :
       {absl::StatusCode::kInvalidArgument, absl::StatusCode::kDataLoss,
        absl::StatusCode::kResourceExhausted, absl::StatusCode::kAborted,
        absl::StatusCode::kNotFound}) {
    Sleeps sleeps;
    int attempts = 0;
    const absl::Status s =
        Retry(kPolicy, Idempotency::kIdempotent, After(std::chrono::hours(1)),
              sleeps.sleeper(), [&](Deadline) {
                ++attempts;
                return absl::Status(code, "no");
              });
    EXPECT_EQ(s.code(), code);
    EXPECT_EQ(attempts, 1);
  }
}

TEST(RetryTest, WaitsGrowAndStayBounded) {
  Backoff backoff;
  milliseconds longest(0);
  for (int i = 0; i < 20; ++i) {
    longest = std::max(longest, backoff.Next(absl::UnavailableError("")));
  }
  EXPECT_GT(longest, milliseconds(500));
  EXPECT_LE(longest, milliseconds(2'000));
  backoff.Reset();
  EXPECT_LE(backoff.Next(absl::UnavailableError("")), milliseconds(50));
}

TEST(RetryTest, TheServersWishIsHeeded) {
  Backoff backoff;
  EXPECT_GE(backoff.Next(Unavailable("reopening", 700)), milliseconds(700));
  EXPECT_GE(backoff.Next(Unavailable("a long while", 60'000)), milliseconds(60'000));
}

// A server that restarts or reopens its storage asks for 1 s, and is not overloaded.
TEST(RetryTest, AServerThatAsksForTimeAndIsNotOverloadedIsFoundSoon) {
  Backoff backoff;
  for (int i = 0; i < 20; ++i) {
    const milliseconds wait = backoff.Next(Unavailable("storage is reopening", 1'000));
    EXPECT_GE(wait, milliseconds(1'000));
    EXPECT_LE(wait, milliseconds(3'000));
  }
}

// A thousand clients that were refused together must not come back together.
TEST(RetryTest, ClientsThatAnOverloadedServerRefusedComeBackSpreadOut) {
  std::set<int64_t> waits;
  for (int client = 0; client < 200; ++client) {
    Backoff backoff;
    const milliseconds wait = backoff.Next(Overloaded("overloaded", 1'000));
    EXPECT_GE(wait, milliseconds(1'000));
    EXPECT_LE(wait, milliseconds(2'000));
    waits.insert(wait.count());
  }
  EXPECT_GT(waits.size(), 100u);
  EXPECT_GT(*waits.rbegin() - *waits.begin(), 700);
}

TEST(RetryTest, AnOverloadThatLastsIsAskedMoreAndMoreRarely) {
  Backoff backoff;
  milliseconds longest(0);
  for (int i = 0; i < 40; ++i) {
    const milliseconds wait = backoff.Next(Overloaded("overloaded", 100));
    EXPECT_GE(wait, milliseconds(100));
    EXPECT_LE(wait, milliseconds(10'100));
    longest = std::max(longest, wait);
  }
  EXPECT_GT(longest, milliseconds(3'000));
  // Away is not overloaded: soon found again.
  EXPECT_LE(backoff.Next(absl::UnavailableError("away")), milliseconds(2'000));
}

TEST(RetryTest, OverloadIsRepeatedAndAFullDiskIsNot) {
  absl::Status refused = Overloaded("1024 streams are open", 100);
  EXPECT_TRUE(IsTransient(refused));
  // As it was told before there was a time in the details.
  EXPECT_TRUE(IsTransient(absl::ResourceExhaustedError(
      "1024 streams are open, the most there may be: retry later")));
  absl::Status exhausted = absl::ResourceExhaustedError("overloaded");
  refused.ForEachPayload([&](absl::string_view url, const absl::Cord& payload) {
    exhausted.SetPayload(url, payload);
  });
  EXPECT_TRUE(IsTransient(exhausted));
  EXPECT_FALSE(IsTransient(absl::ResourceExhaustedError(
      "the disk has 0 bytes free, 4096 are needed: free some")));
  EXPECT_FALSE(IsTransient(absl::ResourceExhaustedError("too many open files")));
}

TEST(RetryTest, TheFinalErrorReportsTheLastCause) {
  Sleeps sleeps;
  int attempts = 0;
  const absl::Status s =
      Retry({milliseconds(0), milliseconds(10)}, Idempotency::kIdempotent,
            Deadline::max(), sleeps.sleeper(), [&](Deadline) {
              ++attempts;
              return Unavailable("make pack: too many open files", 10);
            });
  EXPECT_EQ(attempts, 1);
  EXPECT_EQ(s.code(), absl::StatusCode::kUnavailable);
  EXPECT_NE(s.message().find("too many open files"), absl::string_view::npos) << s;
  EXPECT_NE(
      s.message().find("the next attempt would be later than the retry timeout of 0 ms"),
      absl::string_view::npos)
      << s;
}

TEST(RetryTest, WithLittleTimeLeftTheAskedDelayIsSlept) {
  for (const bool by_deadline : {false, true}) {
    // The wait with its jitter is mostly too long.
    const milliseconds enough(1'100);
    for (int i = 0; i < 20; ++i) {
      Sleeps sleeps;
      RetryState state({by_deadline ? milliseconds(60'000) : enough, milliseconds(10)},
                       by_deadline ? After(enough) : Deadline::max(), sleeps.sleeper());
      EXPECT_TRUE(state.OnFailure(Overloaded("overloaded", 1'000)).ok());
      ASSERT_EQ(sleeps.asked.size(), 1u);
      EXPECT_GE(sleeps.asked[0], milliseconds(1'000));
      EXPECT_LE(sleeps.asked[0], enough);
    }
  }
}

TEST(RetryTest, OnlyAnAttemptThatGetsFartherThanAllBeforeIsProgress) {
  Sleeps sleeps;
  RetryState state(kPolicy, Deadline::max(), sleeps.sleeper());
  for (int attempt = 0; attempt < 20; ++attempt) {
    for (int n = 1; n <= 3; ++n) state.OnMessage(n);
    EXPECT_TRUE(state.OnFailure(absl::UnavailableError("away")).ok());
  }
  EXPECT_GT(sleeps.asked.back(), milliseconds(500));
  state.OnMessage(4);
  EXPECT_TRUE(state.OnFailure(absl::UnavailableError("away")).ok());
  EXPECT_LE(sleeps.asked.back(), milliseconds(50));
}

TEST(RetryTest, TheTimeBetweenMessagesIsNoPartOfTheRetryTimeout) {
  const RetryPolicy policy = {milliseconds(300), milliseconds(1'000)};
  const auto retried = [&](bool told) {
    Sleeps sleeps;
    RetryState state(policy, Deadline::max(), sleeps.sleeper());
    for (int n = 1; n <= 3; ++n) state.OnMessage(n);
    EXPECT_TRUE(state.OnFailure(absl::UnavailableError("cut")).ok());
    if (told) state.OnMessage(1);
    std::this_thread::sleep_for(milliseconds(400));
    if (told) state.OnMessage(2);
    return state.OnFailure(absl::UnavailableError("cut again")).ok();
  };
  EXPECT_TRUE(retried(true));
  EXPECT_FALSE(retried(false));
}

TEST(RetryTest, GivesUpWhenNothingSucceedsForTheRetryTimeout) {
  const RetryPolicy policy = {milliseconds(60), milliseconds(1'000)};
  const auto start = std::chrono::steady_clock::now();
  const absl::Status s =
      Retry(policy, Idempotency::kIdempotent, After(std::chrono::hours(1)),
            DefaultSleeper(), [&](Deadline) { return absl::UnavailableError("away"); });
  EXPECT_EQ(s.code(), absl::StatusCode::kUnavailable);
  EXPECT_NE(s.message().find("given up"), absl::string_view::npos) << s;
  EXPECT_LT(std::chrono::steady_clock::now() - start, std::chrono::seconds(5));
}

TEST(RetryTest, NeverSleepsBeyondTheDeadline) {
  Sleeps sleeps;
  const absl::Status s =
      Retry(kPolicy, Idempotency::kIdempotent, After(milliseconds(10)), sleeps.sleeper(),
            [&](Deadline) { return absl::UnavailableError("away"); });
  EXPECT_EQ(s.code(), absl::StatusCode::kDeadlineExceeded);
  EXPECT_NE(s.message().find("away"), absl::string_view::npos) << s;
  EXPECT_TRUE(sleeps.asked.empty());
}

TEST(RetryTest, ACancelledSleepEndsTheCall) {
  Sleeps sleeps;
  sleeps.cancelled = true;
  const absl::StatusOr<std::string> s =
      Retry(kPolicy, Idempotency::kIdempotent, After(std::chrono::hours(1)),
            sleeps.sleeper(), [&](Deadline) {
              return absl::StatusOr<std::string>(absl::UnavailableError("away"));
            });
  EXPECT_EQ(s.status().code(), absl::StatusCode::kCancelled);
}

TEST(RetryTest, AnAttemptHasItsOwnDeadlineWithinTheWhole) {
  Sleeps sleeps;
  const Deadline whole = After(std::chrono::hours(1));
  (void)Retry(kPolicy, Idempotency::kIdempotent, whole, sleeps.sleeper(),
              [&](Deadline attempt) {
                EXPECT_LE(attempt, After(milliseconds(1'000)));
                return absl::OkStatus();
              });
  (void)Retry(kPolicy, Idempotency::kIdempotent, After(milliseconds(5)), sleeps.sleeper(),
              [&](Deadline attempt) {
                EXPECT_LE(attempt, After(milliseconds(5)));
                return absl::OkStatus();
              });
}

}  // namespace
}  // namespace modelstore::internal
