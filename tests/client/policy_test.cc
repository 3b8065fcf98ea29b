// When a training loop saves.
#include "modelstore/policy.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <csignal>
#include <limits>
#include <thread>
#include <vector>

namespace modelstore {
namespace {

using std::chrono::milliseconds;
using std::chrono::seconds;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

class PolicyTest : public ::testing::Test {
 protected:
  ~PolicyTest() override { WithdrawFinalSave(); }

  CheckpointPolicy Make(CheckpointPolicyOptions options) {
    options.now = [this] { return now_; };
    auto policy = CheckpointPolicy::Create(std::move(options));
    EXPECT_TRUE(policy.ok()) << policy.status();
    return *policy;
  }
  // Epochs of 1..last after which it saves.
  static std::vector<int64_t> SavedEpochs(CheckpointPolicy& policy, int64_t last,
                                          int64_t first = 1, int64_t stride = 1) {
    std::vector<int64_t> saved;
    for (int64_t epoch = first; epoch <= last; epoch += stride) {
      if (policy.Decide({.epoch = epoch}) != SaveReason::kNone) saved.push_back(epoch);
    }
    return saved;
  }

  std::chrono::steady_clock::time_point now_{seconds(1'000)};
};

TEST_F(PolicyTest, SavesEveryFewEpochs) {
  CheckpointPolicy policy = Make({.every_epochs = 3});
  EXPECT_THAT(SavedEpochs(policy, 10), ElementsAre(3, 6, 9));
}

TEST_F(PolicyTest, NoMultipleIsMissedByALoopOfAnotherStride) {
  CheckpointPolicy policy = Make({.every_steps = 100});
  std::vector<int64_t> saved;
  for (int64_t step = 0; step <= 500; step += 64) {
    if (policy.Decide({.step = step}) == SaveReason::kInterval) saved.push_back(step);
  }
  EXPECT_THAT(saved, ElementsAre(128, 256, 320, 448));
}

TEST_F(PolicyTest, TheLongestIntervalIsNeverOver) {
  CheckpointPolicy policy = Make(
      {.every = std::chrono::hours::max(), .final_save_within = milliseconds::max()});
  now_ += std::chrono::hours(24 * 365);
  EXPECT_EQ(policy.Decide({.epoch = 1}), SaveReason::kNone);
  RequestFinalSave();
  EXPECT_EQ(policy.FinalSaveDeadline(), Deadline::max());
}

TEST_F(PolicyTest, SavesEveryFewSecondsSinceTheLastSaveOfAnyReason) {
  CheckpointPolicy policy = Make({.every_epochs = 10, .every = seconds(60)});
  now_ += seconds(59);
  EXPECT_EQ(policy.Decide({.epoch = 1}), SaveReason::kNone);
  now_ += seconds(1);
  EXPECT_EQ(policy.Decide({.epoch = 2}), SaveReason::kInterval);
  now_ += seconds(59);
  EXPECT_EQ(policy.Decide({.epoch = 10}), SaveReason::kInterval);
  now_ += seconds(59);
  EXPECT_EQ(policy.Decide({.epoch = 11}), SaveReason::kNone);
  now_ += seconds(1);
  EXPECT_EQ(policy.Decide({.epoch = 12}), SaveReason::kInterval);
}

TEST_F(PolicyTest, SavesWhenAMetricImproves) {
  CheckpointPolicy policy =
      Make({.metric = "accuracy", .higher_is_better = true, .min_improvement = 0.01});
  const auto decide = [&](double accuracy) {
    return policy.Decide({.metrics = {{"accuracy", accuracy}}});
  };
  EXPECT_EQ(decide(0.5), SaveReason::kImproved) << "the first is the best so far";
  EXPECT_EQ(decide(0.505), SaveReason::kNone);
  EXPECT_EQ(policy.best(), 0.5) << "small steps add up";
  EXPECT_EQ(decide(0.52), SaveReason::kImproved);
  EXPECT_EQ(decide(0.4), SaveReason::kNone);
  EXPECT_EQ(decide(std::numeric_limits<double>::quiet_NaN()), SaveReason::kNone);
  EXPECT_EQ(policy.Decide({.metrics = {{"other", 9.0}}}), SaveReason::kNone);
  EXPECT_EQ(policy.best(), 0.52);
}

TEST_F(PolicyTest, ALossImprovesByFalling) {
  CheckpointPolicy policy = Make({.metric = "loss"});
  EXPECT_EQ(policy.Decide({.loss = 2.0}), SaveReason::kImproved);
  EXPECT_EQ(policy.Decide({.loss = 2.0}), SaveReason::kNone);
  EXPECT_EQ(policy.Decide({.loss = 1.5}), SaveReason::kImproved);
  EXPECT_EQ(policy.Decide({.loss = -std::numeric_limits<double>::infinity()}),
            SaveReason::kImproved);
}

TEST_F(PolicyTest, ABestThatAnIntervalSavedIsNotSavedAgain) {
  CheckpointPolicy policy = Make({.every_epochs = 2, .metric = "loss"});
  EXPECT_EQ(policy.Decide({.epoch = 2, .loss = 1.0}), SaveReason::kInterval);
  EXPECT_EQ(policy.Decide({.epoch = 3, .loss = 1.0}), SaveReason::kNone);
  EXPECT_EQ(policy.Decide({.epoch = 3, .loss = 0.9}), SaveReason::kImproved);
}

TEST_F(PolicyTest, ContinuesFromTheVersionThatTrainingResumed) {
  CheckpointPolicy policy = Make({.every_epochs = 5, .metric = "loss"});
  CheckpointInfo checkpoint;
  checkpoint.epoch = 12;
  checkpoint.loss = 0.5;
  policy.ResumeFrom(checkpoint);
  EXPECT_EQ(policy.best(), 0.5);
  EXPECT_THAT(SavedEpochs(policy, 21, /*first=*/13), ElementsAre(15, 20));
  EXPECT_EQ(policy.Decide({.epoch = 21, .loss = 0.6}), SaveReason::kNone);
}

TEST_F(PolicyTest, AFinalSaveIsAskedForOnceAndBeforeAllElse) {
  CheckpointPolicy policy = Make({.every_epochs = 1});
  std::thread(RequestFinalSave).join();
  EXPECT_TRUE(FinalSaveRequested());
  EXPECT_EQ(policy.Decide({.epoch = 1}), SaveReason::kFinal);
  EXPECT_EQ(policy.Decide({.epoch = 2}), SaveReason::kNone);
  WithdrawFinalSave();
  EXPECT_EQ(policy.Decide({.epoch = 3}), SaveReason::kInterval);
}

TEST_F(PolicyTest, TheTimeOfAFinalSaveRunsFromItsRequest) {
  auto policy =
      CheckpointPolicy::Create({.every_epochs = 1, .final_save_within = seconds(30)});
  ASSERT_TRUE(policy.ok()) << policy.status();
  const Deadline before = After(seconds(30));
  EXPECT_GE(policy->FinalSaveDeadline(), before);
  RequestFinalSave();
  const Deadline requested = policy->FinalSaveDeadline();
  EXPECT_GE(requested, before);
  EXPECT_LE(requested, After(seconds(30)));
  std::this_thread::sleep_for(milliseconds(20));
  RequestFinalSave();  // The first counts.
  EXPECT_EQ(policy->FinalSaveDeadline(), requested);
  auto late = CheckpointPolicy::Create(
      {.every_epochs = 1, .final_save_within = milliseconds(10)});
  EXPECT_LT(late->FinalSaveDeadline(), std::chrono::steady_clock::now());
}

TEST_F(PolicyTest, ASignalRequestsTheFinalSaveAndTheProcessLives) {
  struct sigaction before {};
  ASSERT_EQ(sigaction(SIGUSR1, nullptr, &before), 0);
  ASSERT_EQ(RequestFinalSaveOnSignal(SIGUSR1), absl::OkStatus());
  EXPECT_FALSE(FinalSaveRequested());
  ASSERT_EQ(raise(SIGUSR1), 0);
  EXPECT_TRUE(FinalSaveRequested());
  ASSERT_EQ(sigaction(SIGUSR1, &before, nullptr), 0);
  const absl::Status kill = RequestFinalSaveOnSignal(SIGKILL);
  EXPECT_EQ(kill.code(), absl::StatusCode::kInvalidArgument) << kill;
  EXPECT_THAT(std::string(kill.message()), HasSubstr("signal"));
}

TEST_F(PolicyTest, WhatMakesNoSenseIsRefusedByItsField) {
  const auto refusal = [](CheckpointPolicyOptions options) {
    const absl::Status s = CheckpointPolicy::Create(std::move(options)).status();
    EXPECT_EQ(s.code(), absl::StatusCode::kInvalidArgument) << s;
    return std::string(s.message());
  };
  EXPECT_THAT(refusal({.every_epochs = -1}), HasSubstr("every_epochs"));
  EXPECT_THAT(refusal({.every_steps = -1}), HasSubstr("every_steps"));
  EXPECT_THAT(refusal({.every = milliseconds(-1)}), HasSubstr("every"));
  EXPECT_THAT(refusal({.metric = "loss", .min_improvement = -1}),
              HasSubstr("min_improvement"));
  EXPECT_THAT(refusal({.metric = "loss", .min_improvement = std::nan("")}),
              HasSubstr("min_improvement"));
  EXPECT_THAT(refusal({.every_epochs = 1, .final_save_within = milliseconds(-1)}),
              HasSubstr("final_save_within"));
  EXPECT_THAT(refusal({}), HasSubstr("nothing would be saved"));
}

}  // namespace
}  // namespace modelstore
