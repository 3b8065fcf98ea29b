// A learning rate schedule goes on where it stood.
#include <gmock/gmock.h>

#include "tests/client_torch/tensors.h"
#include "tests/client_torch/world.h"

namespace modelstore {
namespace {

using support::World;
using ::testing::ElementsAre;
using ::testing::HasSubstr;

double Rate(torch::optim::Optimizer& optimizer) {
  return optimizer.param_groups()[0].options().get_lr();
}

// The learning rates of `epochs` epochs.
std::vector<double> RatesOf(torch::optim::Optimizer& optimizer,
                        torch::optim::LRScheduler& scheduler, int epochs) {
  std::vector<double> rates;
  for (int i = 0; i < epochs; ++i) {
    rates.push_back(Rate(optimizer));
    scheduler.step();
  }
  return rates;
}

TEST(SchedulerTest, AScheduleStoppedAtAnyEpochGoesOnWithTheSameRates) {
  for (int stop = 0; stop <= 7; ++stop) {
    SCOPED_TRACE(stop);
    World world;
    torch::nn::Linear net(2, 2);
    torch::optim::SGD sgd(net->parameters(), torch::optim::SGDOptions(1));
    torch::optim::StepLR schedule(sgd, /*step_size=*/3, /*gamma=*/0.5);
    RatesOf(sgd, schedule, stop);
    auto saved = SaveCheckpoint(
        world.client(), "models/m",
        {.module = net.get(), .optimizer = &sgd, .scheduler = &schedule});
    ASSERT_TRUE(saved.ok()) << saved.status();

    torch::optim::SGD other(net->parameters(), torch::optim::SGDOptions(1));
    torch::optim::StepLR resumed(other, 3, 0.5);
    LoadResult result = LoadCheckpoint(
        world.client(), support::kLatest,
        {.module = net.get(), .optimizer = &other, .scheduler = &resumed});
    ASSERT_TRUE(result.status.ok()) << result.status;
    EXPECT_EQ(RatesOf(other, resumed, 8), RatesOf(sgd, schedule, 8));
  }
}

TEST(SchedulerTest, TheStoredTreeIsPythons) {
  World world;
  torch::nn::Linear net(2, 2);
  torch::optim::SGD sgd(net->parameters(), torch::optim::SGDOptions(1));
  torch::optim::StepLR schedule(sgd, 3, 0.5);
  RatesOf(sgd, schedule, 5);
  ASSERT_TRUE(SaveCheckpoint(world.client(), "models/m",
                             {.module = net.get(), .scheduler = &schedule})
                  .ok());
  LoadResult result =
      LoadCheckpoint(world.client(), support::kLatest, {.sections = {"scheduler"}});
  ASSERT_TRUE(result.status.ok()) << result.status;
  EXPECT_EQ(result.sections.at("scheduler").value.ToString(),
            "{'last_epoch': 5, '_step_count': 6}");
}

TEST(SchedulerTest, WhatIsNotStoredIsTold) {
  World world;
  torch::nn::Linear net(2, 2);
  torch::optim::SGD sgd(net->parameters(), torch::optim::SGDOptions(1));
  torch::optim::StepLR schedule(sgd, 3, 0.5);
  ASSERT_TRUE(SaveCheckpoint(world.client(), "models/m", {.module = net.get()}).ok());
  LoadResult none = LoadCheckpoint(world.client(), support::kLatest,
                                   {.module = net.get(), .scheduler = &schedule});
  ASSERT_TRUE(none.status.ok()) << none.status;
  EXPECT_THAT(none.report.skipped, ElementsAre("scheduler"));

  SaveArgs args = {.module = net.get()};
  args.sections["scheduler"] = {Value::Dict({{"last_epoch", -1}}), {}};
  ASSERT_TRUE(SaveCheckpoint(world.client(), "models/m", args).ok());
  LoadResult broken = LoadCheckpoint(world.client(), support::kLatest,
                                     {.module = net.get(), .scheduler = &schedule});
  EXPECT_EQ(broken.status.code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_THAT(std::string(broken.status.message()), HasSubstr("`scheduler`"));
}

}  // namespace
}  // namespace modelstore
