// Options and class of a stored optimizer against those here: taken, told or refused.
#include <gmock/gmock.h>

#include "tests/client_torch/server_fixture.h"
#include "tests/client_torch/tensors.h"

namespace modelstore {
namespace {

using support::ServerFixture;
using ::testing::HasSubstr;

class OptimizerSettingsTest : public ::testing::Test {
 protected:
  void Save(torch::optim::Optimizer& optimizer) {
    net_->forward(torch::ones({1, 2})).sum().backward();
    optimizer.step();
    auto saved = SaveCheckpoint(fixture_.client(), "models/m",
                                {.module = net_.get(), .optimizer = &optimizer});
    ASSERT_TRUE(saved.ok()) << saved.status();
  }
  LoadResult Load(LoadArgs args) {
    args.module = net_.get();
    return LoadCheckpoint(fixture_.client(), support::kLatest, args);
  }
  ServerFixture fixture_;
  torch::nn::Linear net_{2, 2};
};

TEST_F(OptimizerSettingsTest, StateOfAdamWIsNotAdoptedByAdamSilently) {
  torch::optim::AdamW adamw(net_->parameters(), torch::optim::AdamWOptions(0.1));
  Save(adamw);
  torch::optim::Adam adam(net_->parameters(), torch::optim::AdamOptions(0.1));
  const LoadResult refused = Load({.optimizer = &adam});
  EXPECT_EQ(refused.status.code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_THAT(std::string(refused.status.message()),
              HasSubstr("`optimizer` is AdamW in the checkpoint and Adam here"));
  EXPECT_TRUE(adam.state().empty());
  const LoadResult told = Load({.optimizer = &adam, .settings = Policy::kReport});
  ASSERT_TRUE(told.status.ok()) << told.status;
  ASSERT_EQ(told.report.settings.size(), 1u);
  EXPECT_EQ(told.report.settings[0].stored, "AdamW");
  EXPECT_EQ(adam.state().size(), 2u);
  EXPECT_THAT(told.report.ToString(), HasSubstr("AdamW"));
  torch::optim::AdamW again(net_->parameters());
  EXPECT_TRUE(Load({.optimizer = &again}).status.ok());
}

// PyTorch 2.6 and later tell it in the groups.
TEST_F(OptimizerSettingsTest, PythonsAdamWIsReportedByItsDecoupledWeightDecay) {
  torch::optim::Adam adam(net_->parameters(), torch::optim::AdamOptions(0.1));
  Save(adam);
  for (const bool decoupled : {false, true}) {
    LoadResult stored = LoadCheckpoint(fixture_.client(), support::kLatest, {},
                                       {.selection = {.sections = {"optimizer"}}});
    ValueTree& tree = stored.sections.at("optimizer");
    Value groups = *tree.value.Find("param_groups");
    std::get<Value::Sequence>(groups.variant())
        .values.at(0)
        .Set("decoupled_weight_decay", decoupled);
    tree.value.Set("param_groups", groups);
    SaveArgs args = {.module = net_.get()};
    args.sections["optimizer"] = tree;
    ASSERT_TRUE(SaveCheckpoint(fixture_.client(), "models/m", args).ok());
    EXPECT_EQ(Load({.optimizer = &adam}).status.ok(), !decoupled);
    torch::optim::AdamW adamw(net_->parameters());
    EXPECT_EQ(Load({.optimizer = &adamw}).status.ok(), decoupled);
  }
}

TEST_F(OptimizerSettingsTest, StoredOptionsWinAsInPyTorchAndAreReportedOrRefused) {
  torch::optim::Adam saved(net_->parameters(),
                           torch::optim::AdamOptions(0.1).betas({0.8, 0.9}));
  Save(saved);
  const auto options_of = [](torch::optim::Adam& adam) {
    return static_cast<torch::optim::AdamOptions&>(adam.param_groups()[0].options());
  };
  torch::optim::Adam adam(net_->parameters(), torch::optim::AdamOptions(0.25));
  const LoadResult refused = Load({.optimizer = &adam, .hyperparameters = Policy::kFail});
  EXPECT_EQ(refused.status.code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_THAT(std::string(refused.status.message()),
              HasSubstr("`optimizer:param_groups/0/lr` is 0.1 in the checkpoint and 0.25 "
                        "here"));
  EXPECT_EQ(options_of(adam).lr(), 0.25);
  EXPECT_TRUE(adam.state().empty());
  const LoadResult told = Load({.optimizer = &adam});
  ASSERT_TRUE(told.status.ok()) << told.status;
  ASSERT_EQ(told.report.hyperparameters.size(), 2u);
  EXPECT_EQ(told.report.hyperparameters[1].name, "optimizer:param_groups/0/betas");
  EXPECT_EQ(told.report.hyperparameters[1].stored, "(0.8, 0.9)");
  EXPECT_EQ(told.report.hyperparameters[1].here, "(0.9, 0.999)");
  EXPECT_EQ(options_of(adam).lr(), 0.1);
  // Now they are the same.
  EXPECT_TRUE(Load({.optimizer = &adam, .hyperparameters = Policy::kFail}).status.ok());
  torch::optim::Adam other(net_->parameters(), torch::optim::AdamOptions(0.25));
  EXPECT_TRUE(Load({.optimizer = &other, .hyperparameters = Policy::kIgnore})
                  .report.hyperparameters.empty());
  EXPECT_EQ(options_of(other).lr(), 0.1);
}

// Python's SGD without momentum keeps `momentum_buffer: None`.
TEST_F(OptimizerSettingsTest, AMomentumThatWasNoneStartsOver) {
  SaveArgs args = {.module = net_.get()};
  const Value none = Value::Dict({{"momentum_buffer", Value()}});
  args.sections["optimizer"] = {
      Value::Dict({{"state", Value::Dict({{Value(0), none}, {Value(1), none}})},
                   {"param_groups",
                    Value::List({Value::Dict({{"lr", 0.1},
                                              {"momentum", 0},
                                              {"dampening", 0},
                                              {"weight_decay", 0},
                                              {"nesterov", false},
                                              {"params", Value::List({0, 1})}})})}}),
      {}};
  ASSERT_TRUE(SaveCheckpoint(fixture_.client(), "models/m", args).ok());
  torch::optim::SGD sgd(net_->parameters(), torch::optim::SGDOptions(0.1));
  ASSERT_TRUE(Load({.optimizer = &sgd}).status.ok());
  static_cast<torch::optim::SGDOptions&>(sgd.param_groups()[0].options()).momentum(0.9);
  net_->forward(torch::ones({1, 2})).sum().backward();
  sgd.step();
  EXPECT_EQ(sgd.state().size(), 2u);
}

TEST_F(OptimizerSettingsTest, StateOfAnotherOptimizerLacksOptionsWhateverThePolicy) {
  torch::optim::SGD sgd(net_->parameters(), torch::optim::SGDOptions(0.1).momentum(0.9));
  Save(sgd);
  torch::optim::Adam adam(net_->parameters(), torch::optim::AdamOptions(0.1));
  EXPECT_THAT(std::string(Load({.optimizer = &adam}).status.message()),
              HasSubstr("`optimizer` is SGD in the checkpoint and Adam here"));
  const LoadResult result = Load({.optimizer = &adam, .settings = Policy::kReport});
  EXPECT_EQ(result.status.code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_THAT(std::string(result.status.message()), HasSubstr("no `betas` as Adam"));
  EXPECT_TRUE(adam.state().empty());
}

TEST_F(OptimizerSettingsTest, ASectionThatIsNoOptimizersIsRefused) {
  SaveArgs args = {.module = net_.get()};
  args.sections["optimizer"] = {Value(), {{"t", torch::ones({2})}}};
  ASSERT_TRUE(SaveCheckpoint(fixture_.client(), "models/m", args).ok());
  torch::optim::SGD sgd(net_->parameters(), torch::optim::SGDOptions(0.1));
  const LoadResult result = Load({.optimizer = &sgd});
  EXPECT_EQ(result.status.code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_THAT(std::string(result.status.message()),
              HasSubstr("it is no optimizer's state_dict"));
}

}  // namespace
}  // namespace modelstore
