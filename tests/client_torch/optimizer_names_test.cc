// Names of parameters outside of the module, of tied ones, and of none.
#include <gmock/gmock.h>

#include "tests/client_torch/optimizers.h"

namespace modelstore {
namespace {

using support::MomentumOf;
using support::OptimizerFixture;
using support::SgdOver;
using support::TiedPieces;
using ::testing::ElementsAre;
using ::testing::HasSubstr;

class OptimizerNamesTest : public OptimizerFixture {
 protected:
  torch::nn::Linear net_{2, 2};
  torch::Tensor scale_ = torch::full({2}, 0.5).set_requires_grad(true);
};

// A step that makes the momentum of each parameter its gradient.
void StepWith(torch::optim::Optimizer& optimizer,
              const std::vector<std::pair<torch::Tensor, double>>& gradients) {
  for (const auto& [parameter, value] : gradients) {
    torch::Tensor tensor = parameter;
    tensor.mutable_grad() = torch::full_like(parameter, value);
  }
  optimizer.step();
}

TEST_F(OptimizerNamesTest, AParameterThatIsNotInTheModuleIsRefusedAtTheSave) {
  torch::optim::SGD sgd = SgdOver({net_->weight, scale_, net_->bias});
  const absl::Status refused = Save({.module = net_.get(), .optimizer = &sgd});
  EXPECT_EQ(refused.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(std::string(refused.message()),
              HasSubstr("parameter 1 of group 0 (Float [2]) is neither in the module nor "
                        "in extra_tensors"));
}

TEST_F(OptimizerNamesTest, ExtraTensorsAreSavedAndLoadedWithTheirStateInAnyOrder) {
  torch::optim::SGD sgd = SgdOver({scale_, net_->weight, net_->bias});
  StepWith(sgd, {{scale_, 50}, {net_->weight, 3}, {net_->bias, 1}});
  ASSERT_TRUE(Save({.module = net_.get(),
                    .extra_tensors = {{"logit_scale", scale_}},
                    .optimizer = &sgd})
                  .ok());
  torch::nn::Linear other(2, 2);
  torch::Tensor scale = torch::zeros({2}).set_requires_grad(true);
  torch::optim::SGD resumed = SgdOver({other->bias, scale, other->weight});
  const LoadResult result = Load({.module = other.get(),
                                  .extra_tensors = {{"logit_scale", scale}},
                                  .optimizer = &resumed});
  ASSERT_TRUE(result.status.ok()) << result.status;
  EXPECT_TRUE(result.report.inferred.empty());
  EXPECT_TRUE(scale.equal(scale_));
  EXPECT_TRUE(other->weight.equal(net_->weight));
  EXPECT_TRUE(MomentumOf(resumed, other->bias).eq(1).all().item<bool>());
  EXPECT_TRUE(MomentumOf(resumed, scale).eq(50).all().item<bool>());
  EXPECT_TRUE(MomentumOf(resumed, other->weight).eq(3).all().item<bool>());
  EXPECT_TRUE(scale.requires_grad());
}

TEST_F(OptimizerNamesTest, ASecondNetworkIsSavedWholeWithItsBuffers) {
  torch::nn::BatchNorm1d critic(3);
  const auto of = [](torch::nn::BatchNorm1d& module) {
    StateDict extra;
    for (auto& [key, tensor] : GetStateDict(*module)) {
      extra.emplace_back("critic." + key, tensor);
    }
    return extra;
  };
  std::vector<torch::Tensor> both = critic->parameters();
  for (const torch::Tensor& p : net_->parameters()) both.push_back(p);
  torch::optim::SGD sgd = SgdOver(both);
  StepWith(sgd, {{critic->bias, 50}, {net_->bias, 1}});
  critic->forward(torch::rand({4, 3}));
  ASSERT_TRUE(
      Save({.module = net_.get(), .extra_tensors = of(critic), .optimizer = &sgd}).ok());
  torch::nn::Linear net(2, 2);
  torch::nn::BatchNorm1d other(3);
  std::vector<torch::Tensor> reversed = net->parameters();
  for (const torch::Tensor& p : other->parameters()) reversed.push_back(p);
  torch::optim::SGD resumed = SgdOver(reversed);
  const LoadResult result =
      Load({.module = net.get(), .extra_tensors = of(other), .optimizer = &resumed});
  ASSERT_TRUE(result.status.ok()) << result.status;
  EXPECT_TRUE(MomentumOf(resumed, net->bias).eq(1).all().item<bool>());
  EXPECT_TRUE(MomentumOf(resumed, other->bias).eq(50).all().item<bool>());
  EXPECT_TRUE(other->running_mean.equal(critic->running_mean));
  EXPECT_EQ(other->num_batches_tracked.item<int64_t>(), 1);
}

TEST_F(OptimizerNamesTest, ExtraTensorsAreAsStrictAsTheModule) {
  const StateDict extra = {{"scale", scale_}};
  ASSERT_TRUE(Save({.module = net_.get(), .extra_tensors = extra}).ok());
  EXPECT_THAT(std::string(Load({.module = net_.get()}).status.message()),
              HasSubstr("unexpected key(s): \"scale\""));
  EXPECT_THAT(std::string(Load({.module = net_.get(),
                                .extra_tensors = {{"scale", scale_}, {"x", scale_}}})
                              .status.message()),
              HasSubstr("missing key(s): \"x\""));
  EXPECT_TRUE(Load({.module = net_.get(), .extra_tensors = extra}).status.ok());
  // Alone, they are the module.
  EXPECT_THAT(std::string(Load({.extra_tensors = extra}).status.message()),
              HasSubstr("unexpected key(s): \"weight\", \"bias\""));
  EXPECT_TRUE(Load({.extra_tensors = extra, .strict = false}).status.ok());
  const absl::Status taken =
      Save({.module = net_.get(), .extra_tensors = {{"bias", scale_}}});
  EXPECT_EQ(taken.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(std::string(taken.message()), HasSubstr("`bias`"));
  EXPECT_THAT(
      std::string(Save({.module = net_.get(), .extra_tensors = {{"x", {}}}}).message()),
      HasSubstr("`x` is undefined"));
}

TEST_F(OptimizerNamesTest, TwoParametersOfOneNameAreRefused) {
  const torch::Tensor alias = net_->bias.detach().set_requires_grad(true);
  torch::optim::SGD sgd = SgdOver({net_->bias, alias});
  EXPECT_THAT(std::string(Save({.module = net_.get(), .optimizer = &sgd}).message()),
              HasSubstr("parameter 1 of group 0 (Float [2]) is the memory of `bias`"));
}

void StepPieces(TiedPieces& net, torch::optim::Optimizer& optimizer) {
  optimizer.step([&] {
    optimizer.zero_grad();
    torch::Tensor loss = net->Loss();
    loss.backward();
    return loss;
  });
}

TEST_F(OptimizerNamesTest, TiedWeightsTrainOnBitForBit) {
  using namespace torch::optim;
  using Make = std::function<std::unique_ptr<Optimizer>(TiedPieces&)>;
  const Make makers[] = {
      [](TiedPieces& net) {
        return std::make_unique<SGD>(net->parameters(), SGDOptions(0.1).momentum(0.9));
      },
      [](TiedPieces& net) {
        return std::make_unique<AdamW>(net->parameters(), AdamWOptions(0.01));
      },
      [](TiedPieces& net) {
        return std::make_unique<LBFGS>(net->parameters(), LBFGSOptions(0.1).max_iter(3));
      }};
  for (const Make& make : makers) {
    TiedPieces net, other;
    ASSERT_EQ(net->parameters().size(), 4u) << "LibTorch lists a tied tensor twice";
    auto optimizer = make(net), resumed = make(other);
    StepPieces(net, *optimizer);
    StepPieces(net, *optimizer);
    ASSERT_TRUE(Save({.module = net.get(), .optimizer = optimizer.get()}).ok());
    const LoadResult same = Load({.module = net.get(), .optimizer = optimizer.get()});
    ASSERT_TRUE(same.status.ok()) << same.status;
    const LoadResult result = Load({.module = other.get(), .optimizer = resumed.get()});
    ASSERT_TRUE(result.status.ok()) << result.status;
    EXPECT_TRUE(result.report.inferred.empty());
    EXPECT_THAT(result.report.skipped, ElementsAre());
    for (int i = 0; i < 2; ++i) {
      StepPieces(net, *optimizer);
      StepPieces(other, *resumed);
    }
    support::ExpectSameBits(other->head->weight, net->head->weight, "weight");
    support::ExpectSameBits(other->embed->bias, net->embed->bias, "bias");
  }
}

TEST_F(OptimizerNamesTest, ATiedParameterIsStoredOnceAsInPython) {
  TiedPieces net;
  torch::optim::SGD sgd = SgdOver(net->parameters());
  StepPieces(net, sgd);
  ASSERT_TRUE(Save({.module = net.get(), .optimizer = &sgd}).ok());
  const LoadResult result = Load({}, {.selection = {.sections = {"optimizer"}}});
  const Value& tree = result.sections.at("optimizer").value;
  const Value& group =
      std::get<Value::Sequence>(tree.Find("param_groups")->variant()).values.at(0);
  EXPECT_EQ(group.Find("params")->ToString(), "[0, 1, 2]");
  EXPECT_EQ(group.Find("param_names")->ToString(),
            "['embed.weight', 'embed.bias', 'head.bias']");
  EXPECT_EQ(result.sections.at("optimizer").tensors.size(), 3u);
}

// None of the optimizer's parameters is in the state dict, which holds copies.
TEST_F(OptimizerNamesTest, AStateDictOfCopiesReportsNoNames) {
  torch::optim::SGD sgd = SgdOver(net_->parameters());
  StepWith(sgd, {{net_->weight, 3}, {net_->bias, 1}});
  StateDict average;
  for (const auto& [key, tensor] : GetStateDict(*net_)) {
    average.emplace_back(key, tensor.detach() * 0.5);
  }
  ASSERT_TRUE(Save({.state_dict = &average, .optimizer = &sgd}).ok());
  torch::optim::SGD resumed = SgdOver(net_->parameters());
  const LoadResult result = Load({.module = net_.get(), .optimizer = &resumed});
  ASSERT_TRUE(result.status.ok()) << result.status;
  EXPECT_FALSE(result.report.inferred.empty());
  EXPECT_TRUE(MomentumOf(resumed, net_->bias).eq(1).all().item<bool>());
}

}  // namespace
}  // namespace modelstore
