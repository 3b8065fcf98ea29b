// Which state goes to which parameter: by name, by position, or refused.
#include <gmock/gmock.h>

#include "tests/client_torch/optimizers.h"

namespace modelstore {
namespace {

using support::BytesOf;
using support::MomentumOf;
using support::OptimizerFixture;
using support::ServerFixture;
using support::SgdOf;
using support::SgdOver;
using support::Step;
using support::TiedPieces;
using support::TwoLayers;
using ::testing::ElementsAre;
using ::testing::HasSubstr;

TEST(OptimizerMatchTest, OtherParametersAreRefusedByNameAndNothingChanges) {
  ServerFixture fixture;
  TwoLayers net;
  torch::optim::SGD all(net->parameters(), torch::optim::SGDOptions(0.1).momentum(0.9));
  Step(net, all);
  ASSERT_TRUE(SaveCheckpoint(fixture.client(), "models/m",
                             {.module = net.get(), .optimizer = &all})
                  .ok());
  const std::string weight = BytesOf(net->first->weight);
  Step(net, all);
  const std::string moved = BytesOf(net->first->weight);
  ASSERT_TRUE(weight != moved);
  torch::optim::SGD some(net->first->parameters(), torch::optim::SGDOptions(0.3));
  LoadResult result = LoadCheckpoint(fixture.client(), support::kLatest,
                                     {.module = net.get(), .optimizer = &some});
  EXPECT_EQ(result.status.code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_THAT(std::string(result.status.message()),
              HasSubstr("not in the optimizer: [second.bias, second.weight]"));
  EXPECT_TRUE(BytesOf(net->first->weight) == moved) << "the module was touched";
  EXPECT_TRUE(some.state().empty());
}

// Two layers of the same shape: only names tell their momenta apart.
struct TwinsImpl : torch::nn::Module {
  TwinsImpl() {
    left = register_module("left", torch::nn::Linear(3, 3));
    right = register_module("right", torch::nn::Linear(3, 3));
  }
  torch::nn::Linear left{nullptr}, right{nullptr};
};
TORCH_MODULE(Twins);

class TwinsTest : public OptimizerFixture {
 protected:
  TwinsTest() {
    for (torch::Tensor& p : net_->parameters()) p.mutable_grad() = torch::rand_like(p);
  }
  void StepAndSave(torch::optim::SGD& sgd) {
    sgd.step();
    const absl::Status saved = Save({.module = net_.get(), .optimizer = &sgd});
    ASSERT_TRUE(saved.ok()) << saved;
  }
  // What refuses to load into it, and leaves it without state.
  std::string Refusal(torch::optim::SGD& sgd) {
    const LoadResult result = Load({.module = net_.get(), .optimizer = &sgd});
    EXPECT_EQ(result.status.code(), absl::StatusCode::kFailedPrecondition);
    EXPECT_TRUE(result.report.inferred.empty());
    EXPECT_TRUE(sgd.state().empty());
    return std::string(result.status.message());
  }
  Twins net_;
};

TEST_F(TwinsTest, MomentaOfEqualShapeThatChangedGroupsAreRefusedByName) {
  torch::optim::SGD saved = SgdOf({{net_->left->weight}, {net_->right->weight}});
  StepAndSave(saved);
  torch::optim::SGD swapped = SgdOf({{net_->right->weight}, {net_->left->weight}});
  EXPECT_THAT(Refusal(swapped),
              HasSubstr("group 0 holds other parameters: not stored: [right.weight]; not "
                        "in the optimizer: [left.weight]"));
}

TEST_F(TwinsTest, MomentaOfEqualShapeThatChangedPlacesFollowTheirNames) {
  torch::optim::SGD saved = SgdOf({{net_->left->weight, net_->right->weight}});
  StepAndSave(saved);
  torch::optim::SGD swapped({net_->right->weight, net_->left->weight},
                            torch::optim::SGDOptions(0.2).momentum(0.5));
  const LoadResult result = Load({.module = net_.get(), .optimizer = &swapped});
  ASSERT_TRUE(result.status.ok()) << result.status;
  EXPECT_TRUE(result.report.inferred.empty());
  for (const torch::Tensor& weight : {net_->left->weight, net_->right->weight}) {
    support::ExpectSameBits(MomentumOf(swapped, weight), MomentumOf(saved, weight),
                            "momentum_buffer");
  }
  EXPECT_EQ(static_cast<torch::optim::SGDOptions&>(swapped.param_groups()[0].options())
                .momentum(),
            0.9);
}

TEST_F(TwinsTest, AParameterThatIsNoneOfTheModulesIsNotGivenAnothersMomentum) {
  torch::optim::SGD saved = SgdOf({{net_->left->weight, net_->right->weight}});
  StepAndSave(saved);
  const torch::Tensor stranger = torch::zeros({3, 3}).set_requires_grad(true);
  torch::optim::SGD other = SgdOf({{net_->left->weight, stranger}});
  EXPECT_THAT(Refusal(other),
              HasSubstr("group 0 holds [left.weight, right.weight], and parameter(s) 1 "
                        "of the optimizer's are none of the module's"));
}

TEST(OptimizerMatchTest, WithoutNamesOrderDecidesIfCountAndShapesFit) {
  ServerFixture fixture;
  TwoLayers net;
  torch::optim::Adam saved(net->parameters(), torch::optim::AdamOptions(0.1));
  Step(net, saved);
  ASSERT_TRUE(SaveCheckpoint(fixture.client(), "models/m", {.optimizer = &saved}).ok());
  TwoLayers twin;
  torch::optim::Adam other(twin->parameters(), torch::optim::AdamOptions(0.2));
  LoadResult result =
      LoadCheckpoint(fixture.client(), support::kLatest, {.optimizer = &other});
  ASSERT_TRUE(result.status.ok()) << result.status;
  EXPECT_FALSE(result.report.inferred.empty());
  EXPECT_EQ(other.state().size(), 4u);

  auto swapped = twin->parameters();
  std::swap(swapped[0], swapped[1]);
  torch::optim::Adam wrong(swapped, torch::optim::AdamOptions(0.2));
  LoadResult shape =
      LoadCheckpoint(fixture.client(), support::kLatest, {.optimizer = &wrong});
  EXPECT_EQ(shape.status.code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_THAT(std::string(shape.status.message()), HasSubstr("state/0/"));
  swapped.pop_back();
  torch::optim::Adam fewer(swapped, torch::optim::AdamOptions(0.2));
  EXPECT_THAT(std::string(LoadCheckpoint(fixture.client(), support::kLatest,
                                         {.optimizer = &fewer})
                              .status.message()),
              HasSubstr("4 parameter(s), the optimizer's has 3"));
}

// Its directions run over all parameters in a row: another order is another state.
TEST(OptimizerMatchTest, StateOfLbfgsIsRefusedForAnotherOrder) {
  ServerFixture fixture;
  TwoLayers net;
  torch::optim::LBFGS saved(net->parameters(), torch::optim::LBFGSOptions(0.1));
  Step(net, saved);
  ASSERT_TRUE(SaveCheckpoint(fixture.client(), "models/m",
                             {.module = net.get(), .optimizer = &saved})
                  .ok());
  auto reversed = net->parameters();
  std::reverse(reversed.begin(), reversed.end());
  torch::optim::LBFGS other(reversed, torch::optim::LBFGSOptions(0.1));
  LoadResult result = LoadCheckpoint(fixture.client(), support::kLatest,
                                     {.module = net.get(), .optimizer = &other});
  EXPECT_EQ(result.status.code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_THAT(std::string(result.status.message()),
              HasSubstr("the optimizer holds [second.bias, second.weight, first.bias, "
                        "first.weight]"));
  EXPECT_TRUE(other.state().empty());
}

// A section of SGD: momenta by id, and groups of ids and names.
ValueTree SgdTree(
    const std::map<int, torch::Tensor>& momenta,
    const std::vector<std::pair<std::vector<int>, std::vector<const char*>>>& groups) {
  ValueTree tree;
  std::vector<std::pair<Value, Value>> states;
  for (const auto& [id, momentum] : momenta) {
    const std::string key = "state/" + std::to_string(id) + "/momentum_buffer";
    tree.tensors[key] = momentum;
    states.emplace_back(Value(id),
                        Value::Dict({{"momentum_buffer", Value::Tensor(key)}}));
  }
  std::vector<Value> list;
  for (const auto& [ids, names] : groups) {
    Value group = Value::Dict({{"lr", 0.1},
                               {"momentum", 0.9},
                               {"dampening", 0},
                               {"weight_decay", 0},
                               {"nesterov", false}});
    group.Set("params", Value::List({ids.begin(), ids.end()}));
    if (!names.empty())
      group.Set("param_names", Value::List({names.begin(), names.end()}));
    list.push_back(std::move(group));
  }
  tree.value = Value::Dict({{"state", Value::Dict(std::move(states))},
                            {"param_groups", Value::List(std::move(list))}});
  return tree;
}

class StoredSgdTest : public OptimizerFixture {
 protected:
  void SaveTree(const torch::nn::Module& module, ValueTree tree) {
    SaveArgs args = {.module = &module};
    args.sections["optimizer"] = std::move(tree);
    ASSERT_TRUE(Save(args).ok());
  }
  std::string Refusal(const LoadArgs& args) {
    const LoadResult result = Load(args);
    EXPECT_EQ(result.status.code(), absl::StatusCode::kFailedPrecondition);
    return std::string(result.status.message());
  }
  torch::nn::Linear net_{2, 2};
  torch::Tensor scale_ = torch::full({2}, 0.5).set_requires_grad(true);
};

TEST_F(StoredSgdTest, EveryLayoutOfTiedWeightsIsRead) {
  TiedPieces net;
  const torch::Tensor w = torch::full({4, 3}, 5.0), e = torch::full({4}, 6.0),
                      h = torch::full({4}, 7.0);
  const ValueTree layouts[] = {
      SgdTree({{0, w}, {1, e}, {2, h}},
              {{{0, 1, 2}, {"embed.weight", "embed.bias", "head.bias"}}}),
      SgdTree({{0, e}, {1, w}, {2, h}},
              {{{0, 1, 2}, {"embed.bias", "head.weight", "head.bias"}}}),
      // Once for each name: the state is one.
      SgdTree(
          {{0, w}, {1, e}, {2, w}, {3, h}},
          {{{0, 1, 2, 3}, {"embed.weight", "embed.bias", "embed.weight", "head.bias"}}}),
      SgdTree(
          {{0, w}, {1, e}, {2, w}, {3, h}},
          {{{0, 1, 2, 3}, {"embed.weight", "embed.bias", "head.weight", "head.bias"}}}),
      // Python's, of a parameter that a group lists twice.
      SgdTree(
          {{2, w}, {1, e}, {3, h}},
          {{{2, 1, 2, 3}, {"embed.weight", "embed.bias", "embed.weight", "head.bias"}}}),
  };
  for (const ValueTree& layout : layouts) {
    SCOPED_TRACE(layout.value.Find("param_groups")->ToString());
    SaveTree(*net, layout);
    torch::optim::SGD sgd = SgdOver(net->parameters());
    const LoadResult result = Load({.module = net.get(), .optimizer = &sgd});
    ASSERT_TRUE(result.status.ok()) << result.status;
    EXPECT_TRUE(MomentumOf(sgd, net->embed->weight).eq(5).all().item<bool>());
    EXPECT_TRUE(MomentumOf(sgd, net->embed->bias).eq(6).all().item<bool>());
    EXPECT_TRUE(MomentumOf(sgd, net->head->bias).eq(7).all().item<bool>());
    EXPECT_THAT(result.report.skipped, ElementsAre());
  }
}

TEST_F(StoredSgdTest, TwoStatesForOneTiedParameterAreRefused) {
  TiedPieces net;
  SaveTree(*net, SgdTree({{0, torch::full({4, 3}, 5.0)}, {1, torch::full({4, 3}, 6.0)}},
                         {{{0, 1, 2, 3},
                           {"embed.weight", "head.weight", "embed.bias", "head.bias"}}}));
  torch::optim::SGD sgd = SgdOver(net->parameters());
  EXPECT_THAT(
      Refusal({.module = net.get(), .optimizer = &sgd}),
      HasSubstr("several states for the parameter `embed.weight`, `head.weight`"));
  EXPECT_TRUE(sgd.state().empty());
}

// As Python's state_dict() is.
TEST_F(StoredSgdTest, WithoutNamesStateGoesByPositionOnlyIfShapesAllowNoOther) {
  TiedPieces net(/*tied=*/false);
  const torch::Tensor w = torch::full({4, 3}, 5.0), b = torch::full({4}, 6.0);
  SaveTree(*net, SgdTree({{0, w}, {1, b}}, {{{0, 1}, {}}}));
  torch::optim::SGD alone = SgdOver(net->embed->parameters());
  const LoadResult result = Load({.module = net.get(), .optimizer = &alone});
  ASSERT_TRUE(result.status.ok()) << result.status;
  EXPECT_FALSE(result.report.inferred.empty());
  EXPECT_TRUE(MomentumOf(alone, net->embed->bias).eq(6).all().item<bool>());

  const torch::Tensor x = torch::full({4, 3}, 7.0), y = torch::full({4}, 8.0);
  SaveTree(*net, SgdTree({{0, w}, {1, b}, {2, x}, {3, y}}, {{{0, 1, 2, 3}, {}}}));
  torch::optim::SGD sgd = SgdOver(net->parameters());
  EXPECT_THAT(Refusal({.module = net.get(), .optimizer = &sgd}),
              HasSubstr("parameter 1 of group 0 (Float [4]) could be mistaken for "
                        "parameter 3 of group 0 (Float [4])"));
  EXPECT_TRUE(sgd.state().empty());
  const LoadResult told =
      Load({.module = net.get(), .optimizer = &sgd, .parameter_order = Policy::kReport});
  ASSERT_TRUE(told.status.ok()) << told.status;
  EXPECT_FALSE(told.report.inferred.empty());
  EXPECT_TRUE(MomentumOf(sgd, net->head->bias).eq(8).all().item<bool>());
  EXPECT_TRUE(MomentumOf(sgd, net->embed->bias).eq(6).all().item<bool>());
}

TEST_F(StoredSgdTest, ShapesOfAllGroupsTogetherReportAnOrder) {
  TiedPieces net(/*tied=*/false);
  const torch::Tensor w = torch::full({4, 3}, 5.0), b = torch::full({4}, 6.0);
  SaveTree(*net, SgdTree({{0, w}, {1, w + 1}, {2, b}, {3, b + 1}},
                         {{{0, 1}, {}}, {{2, 3}, {}}}));
  torch::optim::SGD sgd = SgdOf(
      {{net->embed->weight, net->head->weight}, {net->embed->bias, net->head->bias}});
  EXPECT_THAT(Refusal({.module = net.get(), .optimizer = &sgd}),
              HasSubstr("could be mistaken for"));
  // One of a shape in each group; in the other group there is its like.
  SaveTree(*net, SgdTree({{0, w}, {1, b}, {2, w + 1}, {3, b + 1}},
                         {{{0, 1}, {}}, {{2, 3}, {}}}));
  torch::optim::SGD pairs = SgdOf({net->head->parameters(), net->embed->parameters()});
  EXPECT_THAT(Refusal({.module = net.get(), .optimizer = &pairs}),
              HasSubstr("could be mistaken for parameter 1 of group 1"));
  // With names each finds its own, whatever the order within its group.
  SaveTree(*net, SgdTree({{0, w}, {1, w + 1}, {2, b}, {3, b + 1}},
                         {{{0, 1}, {"embed.weight", "head.weight"}},
                          {{2, 3}, {"head.bias", "embed.bias"}}}));
  const LoadResult named = Load({.module = net.get(), .optimizer = &sgd});
  ASSERT_TRUE(named.status.ok()) << named.status;
  EXPECT_TRUE(MomentumOf(sgd, net->head->weight).eq(6).all().item<bool>());
  EXPECT_TRUE(MomentumOf(sgd, net->embed->bias).eq(7).all().item<bool>());
  EXPECT_TRUE(MomentumOf(sgd, net->head->bias).eq(6).all().item<bool>());
}

TEST_F(StoredSgdTest, WithoutStateAnyOrderIsTheSame) {
  TiedPieces net(/*tied=*/false);
  SaveTree(*net, SgdTree({}, {{{0, 1, 2, 3}, {}}}));
  torch::optim::SGD sgd = SgdOver(net->parameters());
  EXPECT_TRUE(Load({.module = net.get(), .optimizer = &sgd}).status.ok());
}

// No state that a shape could tell, and a learning rate for each group.
TEST_F(StoredSgdTest, WithoutNamesAndStateGroupsWithOtherOptionsCouldBeMistaken) {
  TiedPieces net(/*tied=*/false);
  ValueTree tree = SgdTree({}, {{{0, 1}, {}}, {{2, 3}, {}}});
  SaveTree(*net, tree);
  torch::optim::SGD sgd = SgdOf({net->head->parameters(), net->embed->parameters()});
  EXPECT_TRUE(Load({.module = net.get(), .optimizer = &sgd}).status.ok());
  Value groups = *tree.value.Find("param_groups");
  std::get<Value::Sequence>(groups.variant()).values.at(1).Set("lr", 0.01);
  tree.value.Set("param_groups", groups);
  SaveTree(*net, tree);
  EXPECT_THAT(Refusal({.module = net.get(), .optimizer = &sgd}),
              HasSubstr("parameter 0 of group 0 (Float [4, 3]) could be mistaken for "
                        "parameter 0 of group 1 (Float [4, 3])"));
  const LoadResult told =
      Load({.module = net.get(), .optimizer = &sgd, .parameter_order = Policy::kReport});
  ASSERT_TRUE(told.status.ok()) << told.status;
  EXPECT_FALSE(told.report.inferred.empty());
  EXPECT_EQ(static_cast<torch::optim::SGDOptions&>(sgd.param_groups()[1].options()).lr(),
            0.01);
}

TEST_F(StoredSgdTest, NamesThatAreStoredNeedNamesHere) {
  SaveTree(*net_, SgdTree({{0, torch::full({2}, 6.0)}}, {{{0}, {"bias"}}}));
  torch::optim::SGD sgd = SgdOver({scale_});
  EXPECT_THAT(
      Refusal({.optimizer = &sgd}),
      HasSubstr("holds [bias], and the optimizer's parameters have no names here"));
  EXPECT_THAT(
      Refusal(
          {.module = net_.get(), .optimizer = &sgd, .parameter_order = Policy::kReport}),
      HasSubstr("none of the module's"));
  EXPECT_TRUE(sgd.state().empty());
  const LoadResult told = Load({.optimizer = &sgd, .parameter_order = Policy::kReport});
  ASSERT_TRUE(told.status.ok()) << told.status;
  EXPECT_FALSE(told.report.inferred.empty());
  EXPECT_TRUE(MomentumOf(sgd, scale_).eq(6).all().item<bool>());
}

TEST_F(StoredSgdTest, NamesThatAreNotOneForEachParameterAreRefused) {
  SaveTree(*net_, SgdTree({}, {{{0, 1}, {"bias"}}}));
  torch::optim::SGD sgd = SgdOver(net_->parameters());
  EXPECT_THAT(Refusal({.module = net_.get(), .optimizer = &sgd}),
              HasSubstr("`param_names` that are not one for each of its `params`"));
}

}  // namespace
}  // namespace modelstore
