// A learning rate schedule goes on where it stood.
#include <gmock/gmock.h>

#include "tests/client_torch/server_fixture.h"
#include "tests/client_torch/tensors.h"

namespace modelstore {
namespace {

using support::ServerFixture;
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

TEST(SchedulerTest, AScheduleStoppedAtAnyEpochContinuesWithTheSameRates) {
  for (int stop = 0; stop <= 7; ++stop) {
    SCOPED_TRACE(stop);
    ServerFixture fixture;
    torch::nn::Linear net(2, 2);
    torch::optim::SGD sgd(net->parameters(), torch::optim::SGDOptions(1));
    torch::optim::StepLR schedule(sgd, /*step_size=*/3, /*gamma=*/0.5);
    RatesOf(sgd, schedule, stop);
    auto saved =
        SaveCheckpoint(fixture.client(), "models/m",
                       {.module = net.get(), .optimizer = &sgd, .scheduler = &schedule});
    ASSERT_TRUE(saved.ok()) << saved.status();

    torch::optim::SGD other(net->parameters(), torch::optim::SGDOptions(1));
    torch::optim::StepLR resumed(other, 3, 0.5);
    LoadResult result =
        LoadCheckpoint(fixture.client(), support::kLatest,
                       {.module = net.get(), .optimizer = &other, .scheduler = &resumed});
    ASSERT_TRUE(result.status.ok()) << result.status;
    EXPECT_EQ(RatesOf(other, resumed, 8), RatesOf(sgd, schedule, 8));
  }
}

TEST(SchedulerTest, TheStoredTreeIsPythons) {
  ServerFixture fixture;
  torch::nn::Linear net(2, 2);
  torch::optim::SGD sgd(net->parameters(), torch::optim::SGDOptions(1));
  torch::optim::StepLR schedule(sgd, 3, 0.5);
  RatesOf(sgd, schedule, 5);
  ASSERT_TRUE(SaveCheckpoint(fixture.client(), "models/m",
                             {.module = net.get(), .scheduler = &schedule})
                  .ok());
  LoadResult result = LoadCheckpoint(fixture.client(), support::kLatest, {},
                                     {.selection = {.sections = {"scheduler"}}});
  ASSERT_TRUE(result.status.ok()) << result.status;
  EXPECT_EQ(result.sections.at("scheduler").value.ToString(),
            "{'step_size': 3, 'gamma': 0.5, 'last_epoch': 5, '_step_count': 6}");
}

TEST(SchedulerTest, AStateThatIsNoSchedulersIsRefused) {
  ServerFixture fixture;
  torch::nn::Linear net(2, 2);
  torch::optim::SGD sgd(net->parameters(), torch::optim::SGDOptions(1));
  torch::optim::StepLR schedule(sgd, 3, 0.5);
  SaveArgs args = {.module = net.get()};
  args.sections["scheduler"] = {Value::Dict({{"last_epoch", -1}}), {}};
  ASSERT_TRUE(SaveCheckpoint(fixture.client(), "models/m", args).ok());
  LoadResult broken = LoadCheckpoint(fixture.client(), support::kLatest,
                                     {.module = net.get(), .scheduler = &schedule});
  EXPECT_EQ(broken.status.code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_THAT(std::string(broken.status.message()), HasSubstr("`scheduler`"));
}

// A schedule of the user's own.
struct Halving : torch::optim::LRScheduler {
  using LRScheduler::LRScheduler;
  std::vector<double> get_lrs() override {
    std::vector<double> rates = get_current_lrs();
    for (double& rate : rates) rate /= 2;
    return rates;
  }
};

class SchedulerSettingsTest : public ::testing::Test {
 protected:
  SchedulerSettingsTest() : sgd_(net_->parameters(), torch::optim::SGDOptions(1)) {}
  void Save(torch::optim::LRScheduler& schedule) {
    schedule.step();
    auto saved = SaveCheckpoint(
        fixture_.client(), "models/m",
        {.module = net_.get(), .optimizer = &sgd_, .scheduler = &schedule});
    ASSERT_TRUE(saved.ok()) << saved.status();
  }
  LoadResult Load(torch::optim::LRScheduler& schedule, Policy settings = Policy::kFail) {
    return LoadCheckpoint(
        fixture_.client(), support::kLatest,
        {.module = net_.get(), .scheduler = &schedule, .settings = settings});
  }
  ServerFixture fixture_;
  torch::nn::Linear net_{2, 2};
  torch::optim::SGD sgd_;
};

TEST_F(SchedulerSettingsTest, OtherSettingsAreRefusedOrReportedAndThoseHereStay) {
  torch::optim::StepLR saved(sgd_, /*step_size=*/3, /*gamma=*/0.5);
  Save(saved);
  torch::optim::StepLR other(sgd_, 7, 0.25);
  const LoadResult refused = Load(other);
  EXPECT_EQ(refused.status.code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_THAT(std::string(refused.status.message()),
              HasSubstr("`scheduler:step_size` is 3 in the checkpoint and 7 here; "
                        "`scheduler:gamma` is 0.5 in the checkpoint and 0.25 here"));
  const LoadResult told = Load(other, Policy::kReport);
  ASSERT_TRUE(told.status.ok()) << told.status;
  ASSERT_EQ(told.report.settings.size(), 2u);
  EXPECT_EQ(told.report.settings[1].name, "scheduler:gamma");
  EXPECT_EQ(told.report.settings[1].stored, "0.5");
  EXPECT_EQ(told.report.settings[1].here, "0.25");
  // One step is counted, so that the rate falls, to a quarter, after six more.
  EXPECT_EQ(RatesOf(sgd_, other, 8), (std::vector<double>{1, 1, 1, 1, 1, 1, 1, .25}));
  EXPECT_THAT(Load(other, Policy::kIgnore).report.settings, ElementsAre());
}

TEST_F(SchedulerSettingsTest, AScheduleOfAnotherClassIsRefused) {
  Halving own(sgd_);
  torch::optim::StepLR steps(sgd_, 3, 0.5);
  Save(own);
  EXPECT_THAT(std::string(Load(steps).status.message()),
              ::testing::ContainsRegex("`scheduler` is .*Halving in the checkpoint and "
                                       "StepLR here"));
  EXPECT_TRUE(Load(own).status.ok());
  Save(steps);
  EXPECT_THAT(std::string(Load(own).status.message()), HasSubstr("`scheduler:gamma`"));
}

TEST_F(SchedulerSettingsTest, PythonsSchedulerIsComparedBySettingsOnly) {
  SaveArgs args = {.module = net_.get()};
  Value state = Value::Dict({{"step_size", 3},
                             {"gamma", 0.5},
                             {"base_lrs", Value::List({0.1})},
                             {"last_epoch", 5},
                             {"verbose", false},
                             {"_step_count", 6},
                             {"_get_lr_called_within_step", false},
                             {"_last_lr", Value::List({0.05})}});
  args.sections["scheduler"] = {state, {}};
  ASSERT_TRUE(SaveCheckpoint(fixture_.client(), "models/m", args).ok());
  torch::optim::StepLR same(sgd_, 3, 0.5);
  const LoadResult taken = Load(same);
  ASSERT_TRUE(taken.status.ok()) << taken.status;
  EXPECT_TRUE(taken.report.settings.empty());
  state.Set("milestones", Value::List({1, 5}));
  args.sections["scheduler"] = {state, {}};
  ASSERT_TRUE(SaveCheckpoint(fixture_.client(), "models/m", args).ok());
  EXPECT_THAT(
      std::string(Load(same).status.message()),
      HasSubstr("`scheduler:milestones` is [1, 5] in the checkpoint and not known"));
}

}  // namespace
}  // namespace modelstore
