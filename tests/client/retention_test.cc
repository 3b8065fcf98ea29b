// Retention through the client: the policy of a model, pruning by it or by another,
// dry runs, and what a broken connection makes of it.
#include "modelstore/retention.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/client/test_store.h"

namespace modelstore {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

constexpr char kModel[] = "models/kept";

class RetentionTest : public ::testing::Test {
 protected:
  void SetUp() override {
    for (int i = 1; i <= 5; ++i) {
      values_[0] = static_cast<float>(i);
      SaveContent content;
      TensorView view;
      view.info.key = "w";
      view.info.shape = {4};
      view.info.size_bytes = sizeof(values_);
      view.data = values_;
      content.tensors = {view};
      content.metadata.step = 10 * i;
      content.metadata.metrics["accuracy"] = i == 2 ? 0.9 : 0.1 * i;
      auto saved =
          client_.SaveAsync(kModel, std::move(content)).Durable(support::TestDeadline());
      ASSERT_TRUE(saved.ok()) << saved.status();
    }
  }

  support::TestStore store_;
  Client client_ = store_.NewClient();
  float values_[4] = {};
};

TEST_F(RetentionTest, YoungVersionsStay) {
  const std::chrono::milliseconds hour(3'600'500);
  ASSERT_EQ(
      SetRetentionPolicy(client_, kModel, {.keep_latest = 1, .keep_younger_than = hour}),
      absl::OkStatus());
  EXPECT_EQ(GetRetentionPolicy(client_, kModel)->keep_younger_than, hour);
  const auto pruned = PruneCheckpoints(client_, kModel);
  ASSERT_TRUE(pruned.ok()) << pruned.status();
  EXPECT_THAT(pruned->pruned_versions, IsEmpty());
}

TEST_F(RetentionTest, AModelKeepsItsPolicyAndIsPrunedByIt) {
  ASSERT_EQ(SetRetentionPolicy(client_, kModel,
                               {.keep_latest = 2,
                                .keep_best = 1,
                                .metric = "accuracy",
                                .maximize = true,
                                .keep_every_steps = 1000}),
            absl::OkStatus());
  const auto policy = GetRetentionPolicy(client_, kModel);
  ASSERT_TRUE(policy.ok()) << policy.status();
  EXPECT_EQ(policy->keep_latest, 2);
  EXPECT_EQ(policy->keep_best, 1);
  EXPECT_EQ(policy->metric, "accuracy");
  EXPECT_TRUE(policy->maximize);
  EXPECT_EQ(policy->keep_every_steps, 1000);
  EXPECT_EQ(policy->keep_younger_than.count(), 0);
  const auto dry = PruneCheckpoints(client_, kModel, {.validate_only = true});
  ASSERT_TRUE(dry.ok()) << dry.status();
  EXPECT_THAT(dry->pruned_versions, ElementsAre(1, 3));
  EXPECT_EQ(client_.ListCheckpoints(kModel)->size(), 5u);
  const auto pruned = PruneCheckpoints(client_, kModel);
  ASSERT_TRUE(pruned.ok()) << pruned.status();
  EXPECT_THAT(pruned->pruned_versions, ElementsAre(1, 3));
  EXPECT_THAT(pruned->held_versions, IsEmpty());
  EXPECT_EQ(pruned->kept_count, 3);
  using Outcome = PruneDecision::Outcome;
  using Rule = PruneDecision::Rule;
  ASSERT_EQ(pruned->decisions.size(), 5u);
  EXPECT_EQ(pruned->decisions[0].outcome, Outcome::kPruned);
  EXPECT_THAT(pruned->decisions[0].rules, IsEmpty());
  EXPECT_EQ(pruned->decisions[1].outcome, Outcome::kKept);
  EXPECT_THAT(pruned->decisions[1].rules, ElementsAre(Rule::kBest));
  EXPECT_THAT(pruned->decisions[4].rules, ElementsAre(Rule::kNewest, Rule::kLatest));
  EXPECT_EQ(ToString(Rule::kEverySteps), "EVERY_STEPS");
  EXPECT_EQ(ToString(Outcome::kHeld), "HELD");
  // 16 bytes each, which wait for the grace time.
  EXPECT_EQ(pruned->waiting_bytes, 32);
  EXPECT_EQ(client_.ListCheckpoints(kModel)->size(), 3u);
}

TEST_F(RetentionTest, ACallMayOverrideTheRules) {
  const auto pruned =
      PruneCheckpoints(client_, kModel, {.policy = RetentionPolicy{.keep_latest = 4}});
  ASSERT_TRUE(pruned.ok()) << pruned.status();
  EXPECT_THAT(pruned->pruned_versions, ElementsAre(1));
  // Without rules nothing goes.
  EXPECT_THAT(PruneCheckpoints(client_, kModel)->pruned_versions, IsEmpty());
}

TEST_F(RetentionTest, WhatMakesNoSenseIsRefusedByName) {
  const absl::Status negative =
      PruneCheckpoints(client_, kModel, {.policy = RetentionPolicy{.keep_latest = -1}})
          .status();
  EXPECT_TRUE(absl::IsInvalidArgument(negative)) << negative;
  EXPECT_THAT(std::string(negative.message()), HasSubstr("policy.keep_latest"));
  const absl::Status unnamed = SetRetentionPolicy(client_, kModel, {.keep_best = 1});
  EXPECT_TRUE(absl::IsInvalidArgument(unnamed)) << unnamed;
  EXPECT_THAT(std::string(unnamed.message()), HasSubstr("retention_policy.metric"));
  EXPECT_TRUE(absl::IsNotFound(PruneCheckpoints(client_, "models/none").status()));
}

TEST_F(RetentionTest, AServerThatIsAwayIsWaitedForAndThenReported) {
  store_.Stop();
  const absl::Status status =
      PruneCheckpoints(client_, kModel, {.deadline = After(std::chrono::seconds(10))})
          .status();
  EXPECT_TRUE(absl::IsUnavailable(status) || absl::IsDeadlineExceeded(status)) << status;
  store_.Start();
  EXPECT_TRUE(PruneCheckpoints(client_, kModel).ok());
}

}  // namespace
}  // namespace modelstore
