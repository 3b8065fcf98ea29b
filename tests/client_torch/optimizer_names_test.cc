// Whose state it is: names of parameters outside of the module, of tied ones, and of
// none.
#include <gmock/gmock.h>

#include "tests/client_torch/tensors.h"
#include "tests/client_torch/world.h"

namespace modelstore {
namespace {

using support::World;
using ::testing::Contains;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::Not;

// The momentum of a parameter; undefined if it has none.
torch::Tensor MomentumOf(const torch::optim::SGD& sgd, const torch::Tensor& parameter) {
  for (const auto& [key, state] : sgd.state()) {
    std::ostringstream address;
    address << parameter.unsafeGetTensorImpl();
    if (key != address.str()) continue;
    return static_cast<const torch::optim::SGDParamState&>(*state).momentum_buffer();
  }
  return {};
}

torch::optim::SGD SgdOver(std::vector<torch::Tensor> parameters) {
  return torch::optim::SGD(std::move(parameters),
                           torch::optim::SGDOptions(0.1).momentum(0.9));
}

// A step that makes the momentum of each parameter its gradient.
void StepWith(torch::optim::Optimizer& optimizer,
              const std::vector<std::pair<torch::Tensor, double>>& gradients) {
  for (const auto& [parameter, value] : gradients) {
    torch::Tensor tensor = parameter;
    tensor.mutable_grad() = torch::full_like(parameter, value);
  }
  optimizer.step();
}

class OptimizerNamesTest : public ::testing::Test {
 protected:
  absl::Status Save(const SaveArgs& args) {
    return SaveCheckpoint(world_.client(), "models/m", args).status();
  }
  LoadResult Load(const LoadArgs& args) {
    return LoadCheckpoint(world_.client(), support::kLatest, args);
  }
  World world_;
  torch::nn::Linear net_{2, 2};
  torch::Tensor scale_ = torch::full({2}, 0.5).set_requires_grad(true);
};

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
  EXPECT_FALSE(result.report.inferred);
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

// An embedding whose table is the head's weight too.
struct PieceImpl : torch::nn::Module {
  explicit PieceImpl(const torch::Tensor& shared) {
    weight = register_parameter("weight", shared);
    bias = register_parameter("bias", torch::zeros({4}));
  }
  torch::Tensor weight, bias;
};
TORCH_MODULE(Piece);

struct TiedPiecesImpl : torch::nn::Module {
  explicit TiedPiecesImpl(bool tied = true) {
    embed = register_module("embed", Piece(torch::rand({4, 3})));
    head = register_module("head", Piece(tied ? embed->weight : torch::rand({4, 3})));
  }
  torch::Tensor Loss() {
    return (embed->weight.pow(2).sum() + head->weight.sum() + embed->bias.sum() +
            (head->bias - 1).pow(2).sum());
  }
  Piece embed{nullptr}, head{nullptr};
};
TORCH_MODULE(TiedPieces);

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
    EXPECT_FALSE(result.report.inferred);
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
  const LoadResult result = Load({.sections = {"optimizer"}});
  const Value& tree = result.sections.at("optimizer").value;
  const Value& group =
      std::get<Value::Sequence>(tree.Find("param_groups")->variant()).values.at(0);
  EXPECT_EQ(group.Find("params")->ToString(), "[0, 1, 2]");
  EXPECT_EQ(group.Find("param_names")->ToString(),
            "['embed.weight', 'embed.bias', 'head.bias']");
  EXPECT_EQ(result.sections.at("optimizer").tensors.size(), 3u);
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

class StoredSgdTest : public OptimizerNamesTest {
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
  EXPECT_TRUE(result.report.inferred);
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
  EXPECT_TRUE(told.report.inferred);
  EXPECT_TRUE(MomentumOf(sgd, net->head->bias).eq(8).all().item<bool>());
  EXPECT_TRUE(MomentumOf(sgd, net->embed->bias).eq(6).all().item<bool>());
}

TEST_F(StoredSgdTest, ShapesOfAllGroupsTogetherTellAnOrder) {
  TiedPieces net(/*tied=*/false);
  const torch::Tensor w = torch::full({4, 3}, 5.0), b = torch::full({4}, 6.0);
  SaveTree(*net, SgdTree({{0, w}, {1, w + 1}, {2, b}, {3, b + 1}},
                         {{{0, 1}, {}}, {{2, 3}, {}}}));
  const auto options = torch::optim::SGDOptions(0.1).momentum(0.9);
  const auto sgd_of = [&](std::vector<torch::Tensor> first,
                          std::vector<torch::Tensor> second) {
    std::vector<torch::optim::OptimizerParamGroup> groups;
    groups.emplace_back(first, std::make_unique<torch::optim::SGDOptions>(options));
    groups.emplace_back(second, std::make_unique<torch::optim::SGDOptions>(options));
    return torch::optim::SGD(std::move(groups), options);
  };
  torch::optim::SGD sgd = sgd_of({net->embed->weight, net->head->weight},
                                 {net->embed->bias, net->head->bias});
  EXPECT_THAT(Refusal({.module = net.get(), .optimizer = &sgd}),
              HasSubstr("could be mistaken for"));
  // One of a shape in each group; in the other group there is its like.
  SaveTree(*net, SgdTree({{0, w}, {1, b}, {2, w + 1}, {3, b + 1}},
                         {{{0, 1}, {}}, {{2, 3}, {}}}));
  torch::optim::SGD pairs = sgd_of(net->head->parameters(), net->embed->parameters());
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
  EXPECT_TRUE(told.report.inferred);
  EXPECT_TRUE(MomentumOf(sgd, scale_).eq(6).all().item<bool>());
}

TEST_F(StoredSgdTest, NamesThatAreNotOneForEachParameterAreRefused) {
  SaveTree(*net_, SgdTree({}, {{{0, 1}, {"bias"}}}));
  torch::optim::SGD sgd = SgdOver(net_->parameters());
  EXPECT_THAT(Refusal({.module = net_.get(), .optimizer = &sgd}),
              HasSubstr("`param_names` that are not one for each of its `params`"));
}

// None of the optimizer's parameters is in the state dict, which holds copies.
TEST_F(OptimizerNamesTest, AStateDictOfCopiesTellsNoNames) {
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
  EXPECT_TRUE(result.report.inferred);
  EXPECT_TRUE(MomentumOf(resumed, net_->bias).eq(1).all().item<bool>());
}

}  // namespace
}  // namespace modelstore
