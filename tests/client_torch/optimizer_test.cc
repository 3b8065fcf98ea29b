// Optimizers: stopped and resumed they go on bit for bit; state of other
// parameters is refused by name.
#include <gmock/gmock.h>

#include <functional>

#include "tests/client_torch/tensors.h"
#include "tests/client_torch/world.h"

namespace modelstore {
namespace {

using support::BytesOf;
using support::World;
using ::testing::Contains;
using ::testing::ElementsAre;
using ::testing::HasSubstr;

struct NetImpl : torch::nn::Module {
  NetImpl() {
    first = register_module("first", torch::nn::Linear(6, 8));
    second = register_module("second", torch::nn::Linear(8, 3));
  }
  torch::Tensor forward(const torch::Tensor& x) {
    return second(torch::dropout(torch::relu(first(x)), 0.3, is_training()));
  }
  torch::nn::Linear first{nullptr}, second{nullptr};
};
TORCH_MODULE(Net);

using MakeOptimizer = std::function<std::unique_ptr<torch::optim::Optimizer>(Net&)>;

// A step on data of its own; LBFGS evaluates it several times.
void Step(Net& net, torch::optim::Optimizer& optimizer) {
  const torch::Tensor data = torch::randn({5, 6});
  optimizer.step([&] {
    optimizer.zero_grad();
    torch::Tensor loss = net(data).pow(2).mean();
    loss.backward();
    return loss;
  });
}

template <typename Optimizer, typename Options>
MakeOptimizer Make(const Options& options) {
  return [options](Net& net) {
    return std::make_unique<Optimizer>(net->parameters(), options);
  };
}

std::vector<std::pair<std::string, MakeOptimizer>> Optimizers() {
  using namespace torch::optim;
  return {
      {"plain SGD", Make<SGD>(SGDOptions(0.1))},
      {"SGD with all",
       Make<SGD>(SGDOptions(0.1).momentum(0.9).weight_decay(0.01).nesterov(true))},
      {"SGD damped", Make<SGD>(SGDOptions(0.1).momentum(0.9).dampening(0.3))},
      {"Adam", Make<Adam>(AdamOptions(0.01))},
      {"Adam with all", Make<Adam>(AdamOptions(0.01)
                                       .betas({0.8, 0.99})
                                       .eps(1e-6)
                                       .weight_decay(0.1)
                                       .amsgrad(true))},
      {"AdamW", Make<AdamW>(AdamWOptions(0.01))},
      {"AdamW with all", Make<AdamW>(AdamWOptions(0.01)
                                         .betas({0.8, 0.99})
                                         .eps(1e-6)
                                         .weight_decay(0.1)
                                         .amsgrad(true))},
      {"Adagrad", Make<Adagrad>(AdagradOptions(0.1))},
      {"Adagrad with all", Make<Adagrad>(AdagradOptions(0.1)
                                             .lr_decay(0.01)
                                             .weight_decay(0.1)
                                             .initial_accumulator_value(0.5)
                                             .eps(1e-6))},
      {"RMSprop", Make<RMSprop>(RMSpropOptions(0.01))},
      {"RMSprop with all", Make<RMSprop>(RMSpropOptions(0.01)
                                             .alpha(0.9)
                                             .eps(1e-6)
                                             .weight_decay(0.1)
                                             .momentum(0.8)
                                             .centered(true))},
      {"LBFGS", Make<LBFGS>(LBFGSOptions(0.1).max_iter(4))},
      {"LBFGS with all", Make<LBFGS>(LBFGSOptions(0.5)
                                         .max_iter(3)
                                         .max_eval(6)
                                         .tolerance_grad(1e-9)
                                         .tolerance_change(1e-12)
                                         .history_size(5)
                                         .line_search_fn("strong_wolfe"))},
      {"two groups",
       [](Net& net) {
         std::vector<OptimizerParamGroup> groups;
         groups.emplace_back(net->second->parameters(),
                             std::make_unique<SGDOptions>(SGDOptions(0.5).momentum(0.1)));
         groups.emplace_back(net->first->parameters(),
                             std::make_unique<SGDOptions>(SGDOptions(0.05)));
         return std::make_unique<SGD>(std::move(groups), SGDOptions(1).momentum(0.7));
       }},
      {"two groups of RMSprop",
       [](Net& net) {
         std::vector<OptimizerParamGroup> groups;
         groups.emplace_back(
             net->second->parameters(),
             std::make_unique<RMSpropOptions>(RMSpropOptions(0.02).momentum(0.5)));
         groups.emplace_back(
             net->first->parameters(),
             std::make_unique<RMSpropOptions>(RMSpropOptions(0.01).centered(true)));
         return std::make_unique<RMSprop>(std::move(groups), RMSpropOptions(1));
       }},
  };
}

void StopAndResume(const MakeOptimizer& make, int steps_before) {
  World world;
  torch::manual_seed(7);
  Net net;
  auto optimizer = make(net);
  for (int i = 0; i < steps_before; ++i) Step(net, *optimizer);
  auto saved =
      SaveCheckpoint(world.client(), "models/m",
                     {.module = net.get(), .optimizer = optimizer.get(), .rng = true});
  ASSERT_TRUE(saved.ok()) << saved.status();
  for (int i = 0; i < 5; ++i) Step(net, *optimizer);

  torch::manual_seed(8);
  Net resumed;
  auto other = make(resumed);
  Step(resumed, *other);  // state that the load has to replace
  LoadResult result =
      LoadCheckpoint(world.client(), support::kLatest,
                     {.module = resumed.get(), .optimizer = other.get(), .rng = true});
  ASSERT_TRUE(result.status.ok()) << result.status;
  EXPECT_FALSE(result.report.inferred);
  EXPECT_THAT(result.report.skipped, ElementsAre());
  for (int i = 0; i < 5; ++i) Step(resumed, *other);
  for (const auto& p : net->named_parameters()) {
    support::ExpectSameBits(resumed->named_parameters()[p.key()], p.value(), p.key());
  }
}

TEST(OptimizerTest, StoppedAndResumedTrainingGoesOnBitForBit) {
  for (const auto& [name, make] : Optimizers()) {
    for (const int steps_before : {0, 1, 2, 7}) {
      SCOPED_TRACE(name + " after " + std::to_string(steps_before));
      StopAndResume(make, steps_before);
    }
  }
}

TEST(OptimizerTest, TheStoredTreeIsPythons) {
  World world;
  Net net;
  torch::optim::Adam adam(net->parameters(),
                          torch::optim::AdamOptions(0.01).amsgrad(true));
  Step(net, adam);
  ASSERT_TRUE(SaveCheckpoint(world.client(), "models/m",
                             {.module = net.get(), .optimizer = &adam})
                  .ok());
  LoadResult result =
      LoadCheckpoint(world.client(), support::kLatest, {.sections = {"optimizer"}});
  ASSERT_TRUE(result.status.ok()) << result.status;
  const ValueTree& tree = result.sections.at("optimizer");
  EXPECT_EQ(
      tree.value.Find("param_groups")->ToString(),
      "[{'lr': 0.01, 'betas': (0.9, 0.999), 'eps': 1e-08, 'weight_decay': 0.0, "
      "'amsgrad': True, 'maximize': False, 'foreach': None, 'capturable': False, "
      "'differentiable': False, 'fused': False, 'params': [0, 1, 2, 3], 'param_names': "
      "['first.weight', 'first.bias', 'second.weight', 'second.bias']}]");
  EXPECT_EQ(tree.tensors.size(), 16u);
  const torch::Tensor step = tree.tensors.at("state/3/step");
  EXPECT_EQ(step.scalar_type(), torch::kFloat);
  EXPECT_EQ(step.dim(), 0);
  EXPECT_EQ(step.item<float>(), 1);
  EXPECT_EQ(tree.tensors.at("state/0/max_exp_avg_sq").sizes(),
            net->first->weight.sizes());
  EXPECT_TRUE(
      std::holds_alternative<Value::DictEntries>(tree.value.Find("state")->variant()));
}

TEST(OptimizerTest, TheStoredTreeOfLbfgsIsPythons) {
  World world;
  Net net;
  torch::optim::LBFGS lbfgs(net->parameters(), torch::optim::LBFGSOptions(0.1).max_iter(8));
  Step(net, lbfgs);
  ASSERT_TRUE(SaveCheckpoint(world.client(), "models/m",
                             {.module = net.get(), .optimizer = &lbfgs})
                  .ok());
  LoadResult result =
      LoadCheckpoint(world.client(), support::kLatest, {.sections = {"optimizer"}});
  ASSERT_TRUE(result.status.ok()) << result.status;
  const ValueTree& tree = result.sections.at("optimizer");
  EXPECT_EQ(tree.value.Find("param_groups")->ToString(),
            "[{'lr': 0.1, 'max_iter': 8, 'max_eval': 10, 'tolerance_grad': 1e-07, "
            "'tolerance_change': 1e-09, 'history_size': 100, 'line_search_fn': None, "
            "'params': [0, 1, 2, 3], 'param_names': ['first.weight', 'first.bias', "
            "'second.weight', 'second.bias']}]");
  const auto& states =
      std::get<Value::DictEntries>(tree.value.Find("state")->variant()).entries;
  ASSERT_EQ(states.size(), 1u) << "the state of all hangs on the first";
  EXPECT_EQ(states[0].first.ToString(), "0");
  EXPECT_EQ(states[0].second.Find("n_iter")->ToString(), "8");
  int64_t elements = 0;
  for (const torch::Tensor& p : net->parameters()) elements += p.numel();
  EXPECT_EQ(tree.tensors.at("state/0/d").sizes(), c10::IntArrayRef({elements}));
  EXPECT_EQ(tree.tensors.at("state/0/old_dirs/1").sizes(), c10::IntArrayRef({elements}));
  EXPECT_EQ(tree.tensors.at("state/0/ro/1").dim(), 0);
}

TEST(OptimizerTest, StateFollowsItsParameterByNameWhateverTheOrder) {
  World world;
  Net net;
  torch::optim::SGD saved(net->parameters(), torch::optim::SGDOptions(0.1).momentum(0.9));
  Step(net, saved);
  ASSERT_TRUE(SaveCheckpoint(world.client(), "models/m",
                             {.module = net.get(), .optimizer = &saved})
                  .ok());
  auto reversed = net->parameters();
  std::reverse(reversed.begin(), reversed.end());
  torch::optim::SGD other(reversed, torch::optim::SGDOptions(0.2).momentum(0.5));
  LoadResult result = LoadCheckpoint(world.client(), support::kLatest,
                                     {.module = net.get(), .optimizer = &other});
  ASSERT_TRUE(result.status.ok()) << result.status;
  ASSERT_EQ(other.state().size(), 4u);
  for (const auto& [key, state] : saved.state()) {
    using State = torch::optim::SGDParamState;
    support::ExpectSameBits(
        static_cast<const State&>(*other.state().at(key)).momentum_buffer(),
        static_cast<const State&>(*state).momentum_buffer(), "momentum_buffer");
  }
  EXPECT_EQ(static_cast<torch::optim::SGDOptions&>(other.param_groups()[0].options())
                .momentum(),
            0.9);
}

TEST(OptimizerTest, OtherParametersAreRefusedByNameAndNothingChanges) {
  World world;
  Net net;
  torch::optim::SGD all(net->parameters(), torch::optim::SGDOptions(0.1).momentum(0.9));
  Step(net, all);
  ASSERT_TRUE(
      SaveCheckpoint(world.client(), "models/m", {.module = net.get(), .optimizer = &all})
          .ok());
  const std::string weight = BytesOf(net->first->weight);
  Step(net, all);
  const std::string moved = BytesOf(net->first->weight);
  ASSERT_TRUE(weight != moved);
  torch::optim::SGD some(net->first->parameters(), torch::optim::SGDOptions(0.3));
  LoadResult result = LoadCheckpoint(world.client(), support::kLatest,
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

torch::optim::SGD SgdOf(const std::vector<std::vector<torch::Tensor>>& groups) {
  const auto options = torch::optim::SGDOptions(0.1).momentum(0.9);
  std::vector<torch::optim::OptimizerParamGroup> made;
  for (const auto& group : groups) {
    made.emplace_back(group, std::make_unique<torch::optim::SGDOptions>(options));
  }
  return torch::optim::SGD(std::move(made), options);
}

class TwinsTest : public ::testing::Test {
 protected:
  TwinsTest() {
    for (torch::Tensor& p : net_->parameters()) p.mutable_grad() = torch::rand_like(p);
  }
  void Save(torch::optim::SGD& sgd) {
    sgd.step();
    auto saved = SaveCheckpoint(world_.client(), "models/m",
                                {.module = net_.get(), .optimizer = &sgd});
    ASSERT_TRUE(saved.ok()) << saved.status();
  }
  // What refuses to load into it, and leaves it without state.
  std::string Refusal(torch::optim::SGD& sgd) {
    LoadResult result = LoadCheckpoint(world_.client(), support::kLatest,
                                       {.module = net_.get(), .optimizer = &sgd});
    EXPECT_EQ(result.status.code(), absl::StatusCode::kFailedPrecondition);
    EXPECT_FALSE(result.report.inferred);
    EXPECT_TRUE(sgd.state().empty());
    return std::string(result.status.message());
  }
  World world_;
  Twins net_;
};

TEST_F(TwinsTest, MomentaOfEqualShapeThatChangedGroupsAreRefusedByName) {
  torch::optim::SGD saved = SgdOf({{net_->left->weight}, {net_->right->weight}});
  Save(saved);
  torch::optim::SGD swapped = SgdOf({{net_->right->weight}, {net_->left->weight}});
  EXPECT_THAT(Refusal(swapped),
              HasSubstr("group 0 holds other parameters: not stored: [right.weight]; not "
                        "in the optimizer: [left.weight]"));
}

TEST_F(TwinsTest, MomentaOfEqualShapeThatChangedPlacesFollowTheirNames) {
  torch::optim::SGD saved = SgdOf({{net_->left->weight, net_->right->weight}});
  Save(saved);
  torch::optim::SGD swapped = SgdOf({{net_->right->weight, net_->left->weight}});
  LoadResult result = LoadCheckpoint(world_.client(), support::kLatest,
                                     {.module = net_.get(), .optimizer = &swapped});
  ASSERT_TRUE(result.status.ok()) << result.status;
  EXPECT_FALSE(result.report.inferred);
  for (const auto& [key, state] : saved.state()) {
    using State = torch::optim::SGDParamState;
    support::ExpectSameBits(
        static_cast<const State&>(*swapped.state().at(key)).momentum_buffer(),
        static_cast<const State&>(*state).momentum_buffer(), "momentum_buffer");
  }
}

TEST_F(TwinsTest, AParameterThatIsNoneOfTheModulesIsNotGivenAnothersMomentum) {
  torch::optim::SGD saved = SgdOf({{net_->left->weight, net_->right->weight}});
  Save(saved);
  const torch::Tensor stranger = torch::zeros({3, 3}).set_requires_grad(true);
  torch::optim::SGD other = SgdOf({{net_->left->weight, stranger}});
  EXPECT_THAT(Refusal(other),
              HasSubstr("group 0 holds [left.weight, right.weight], and parameter(s) 1 "
                        "of the optimizer's are none of the module's"));
}

TEST(OptimizerTest, WithoutNamesOrderDecidesIfCountAndShapesFit) {
  World world;
  Net net;
  torch::optim::Adam saved(net->parameters(), torch::optim::AdamOptions(0.1));
  Step(net, saved);
  ASSERT_TRUE(SaveCheckpoint(world.client(), "models/m", {.optimizer = &saved}).ok());
  Net twin;
  torch::optim::Adam other(twin->parameters(), torch::optim::AdamOptions(0.2));
  LoadResult result =
      LoadCheckpoint(world.client(), support::kLatest, {.optimizer = &other});
  ASSERT_TRUE(result.status.ok()) << result.status;
  EXPECT_TRUE(result.report.inferred);
  EXPECT_EQ(other.state().size(), 4u);

  auto swapped = twin->parameters();
  std::swap(swapped[0], swapped[1]);
  torch::optim::Adam wrong(swapped, torch::optim::AdamOptions(0.2));
  LoadResult shape =
      LoadCheckpoint(world.client(), support::kLatest, {.optimizer = &wrong});
  EXPECT_EQ(shape.status.code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_THAT(std::string(shape.status.message()), HasSubstr("state/0/"));
  swapped.pop_back();
  torch::optim::Adam fewer(swapped, torch::optim::AdamOptions(0.2));
  EXPECT_THAT(
      std::string(LoadCheckpoint(world.client(), support::kLatest, {.optimizer = &fewer})
                      .status.message()),
      HasSubstr("4 parameter(s), the optimizer's has 3"));
}

TEST(OptimizerTest, StateOfAnotherOptimizerIsRefused) {
  World world;
  Net net;
  torch::optim::SGD sgd(net->parameters(), torch::optim::SGDOptions(0.1).momentum(0.9));
  torch::optim::Adam adam(net->parameters(), torch::optim::AdamOptions(0.1));
  Step(net, sgd);
  ASSERT_TRUE(
      SaveCheckpoint(world.client(), "models/m", {.module = net.get(), .optimizer = &sgd})
          .ok());
  LoadResult result = LoadCheckpoint(world.client(), support::kLatest,
                                     {.module = net.get(), .optimizer = &adam});
  EXPECT_THAT(std::string(result.status.message()),
              HasSubstr("`optimizer` is SGD in the checkpoint and Adam here"));
  result = LoadCheckpoint(
      world.client(), support::kLatest,
      {.module = net.get(), .optimizer = &adam, .settings = Policy::kReport});
  EXPECT_THAT(std::string(result.status.message()), HasSubstr("no `betas` as Adam"));
}

// An optimizer of the user's own.
struct Own : torch::optim::Optimizer {
  explicit Own(std::vector<torch::Tensor> parameters)
      : Optimizer({torch::optim::OptimizerParamGroup(std::move(parameters))},
                  std::make_unique<torch::optim::SGDOptions>(0.1)) {}
  torch::Tensor step(LossClosure = nullptr) override { return {}; }
};

TEST(OptimizerTest, AnOptimizerOfAnotherMakeIsRefusedByName) {
  World world;
  Net net;
  Own own(net->parameters());
  const absl::Status unknown = SaveCheckpoint(world.client(), "models/m",
                                              {.module = net.get(), .optimizer = &own})
                                   .status();
  EXPECT_EQ(unknown.code(), absl::StatusCode::kUnimplemented);
  EXPECT_THAT(std::string(unknown.message()), HasSubstr("Own"));
}

// Its directions run over all parameters in a row: another order is another state.
TEST(OptimizerTest, StateOfLbfgsIsRefusedForAnotherOrder) {
  World world;
  Net net;
  torch::optim::LBFGS saved(net->parameters(), torch::optim::LBFGSOptions(0.1));
  Step(net, saved);
  ASSERT_TRUE(SaveCheckpoint(world.client(), "models/m",
                             {.module = net.get(), .optimizer = &saved})
                  .ok());
  auto reversed = net->parameters();
  std::reverse(reversed.begin(), reversed.end());
  torch::optim::LBFGS other(reversed, torch::optim::LBFGSOptions(0.1));
  LoadResult result = LoadCheckpoint(world.client(), support::kLatest,
                                     {.module = net.get(), .optimizer = &other});
  EXPECT_EQ(result.status.code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_THAT(std::string(result.status.message()),
              HasSubstr("the optimizer holds [second.bias, second.weight, first.bias, "
                        "first.weight]"));
  EXPECT_TRUE(other.state().empty());
}

TEST(OptimizerTest, StateWithoutWhatItsOptionsNeedIsRefused) {
  World world;
  Net net;
  torch::optim::RMSprop plain(net->parameters(), torch::optim::RMSpropOptions(0.1));
  Step(net, plain);
  // The options were changed after the last step.
  static_cast<torch::optim::RMSpropOptions&>(plain.param_groups()[0].options())
      .centered(true);
  ASSERT_TRUE(SaveCheckpoint(world.client(), "models/m",
                             {.module = net.get(), .optimizer = &plain})
                  .ok());
  torch::optim::RMSprop other(net->parameters(), torch::optim::RMSpropOptions(0.1));
  LoadResult result = LoadCheckpoint(world.client(), support::kLatest,
                                     {.module = net.get(), .optimizer = &other});
  EXPECT_EQ(result.status.code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_THAT(std::string(result.status.message()), HasSubstr("`grad_avg` as RMSprop"));
}

TEST(OptimizerTest, AStepThatFloat32CannotCountIsKept) {
  World world;
  Net net;
  torch::optim::Adam adam(net->parameters(), torch::optim::AdamOptions(0.1));
  Step(net, adam);
  constexpr int64_t kStep = (int64_t{1} << 24) + 1;
  for (auto& [key, state] : adam.state()) {
    static_cast<torch::optim::AdamParamState&>(*state).step(kStep);
  }
  const SaveArgs args = {.module = net.get(), .optimizer = &adam};
  ASSERT_TRUE(SaveCheckpoint(world.client(), "models/m", args).ok());
  torch::optim::Adam other(net->parameters(), torch::optim::AdamOptions(0.1));
  LoadResult result = LoadCheckpoint(world.client(), support::kLatest,
                                     {.module = net.get(), .optimizer = &other});
  ASSERT_TRUE(result.status.ok()) << result.status;
  for (const auto& [key, state] : other.state()) {
    EXPECT_EQ(static_cast<torch::optim::AdamParamState&>(*state).step(), kStep);
  }
}

TEST(OptimizerTest, StateLeftOutByAFilterIsRefused) {
  World world;
  Net net;
  torch::optim::Adam adam(net->parameters(), torch::optim::AdamOptions(0.1));
  Step(net, adam);
  ASSERT_TRUE(SaveCheckpoint(world.client(), "models/m",
                             {.module = net.get(), .optimizer = &adam})
                  .ok());
  LoadArgs args = {.module = net.get(), .optimizer = &adam};
  args.options.exclude = {"optimizer:state/2/.*"};
  LoadResult result = LoadCheckpoint(world.client(), support::kLatest, args);
  EXPECT_EQ(result.status.code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_THAT(std::string(result.status.message()), HasSubstr("`optimizer:state/2/"));
}

// Every optimizer that has it in Python: LibTorch would climb down, not up.
TEST(OptimizerTest, MaximizeIsRefusedByNameAndNothingChanges) {
  for (const auto& [name, make] : Optimizers()) {
    if (name.rfind("LBFGS", 0) == 0) continue;
    SCOPED_TRACE(name);
    World world;
    Net net;
    auto optimizer = make(net);
    Step(net, *optimizer);
    const SaveArgs saved = {.module = net.get(), .optimizer = optimizer.get()};
    ASSERT_TRUE(SaveCheckpoint(world.client(), "models/m", saved).ok());
    LoadResult stored =
        LoadCheckpoint(world.client(), support::kLatest, {.sections = {"optimizer"}});
    ASSERT_TRUE(stored.status.ok()) << stored.status;
    ValueTree& tree = stored.sections.at("optimizer");
    Value groups = *tree.value.Find("param_groups");
    std::vector<Value>& list = std::get<Value::Sequence>(groups.variant()).values;
    list.back().Set("maximize", true);
    tree.value.Set("param_groups", groups);
    SaveArgs climbing = {.module = net.get()};
    climbing.sections["optimizer"] = tree;
    ASSERT_TRUE(SaveCheckpoint(world.client(), "models/m", climbing).ok());
    auto other = make(net);
    const size_t states = other->state().size();  // Adagrad's begins at once
    const LoadResult result =
        LoadCheckpoint(world.client(), support::kLatest,
                       {.module = net.get(), .optimizer = other.get()});
    EXPECT_EQ(result.status.code(), absl::StatusCode::kUnimplemented);
    EXPECT_THAT(std::string(result.status.message()),
                HasSubstr("has no `maximize`, which group " +
                          std::to_string(list.size() - 1)));
    EXPECT_EQ(other->state().size(), states);
  }
}

// A section as Python's torch.optim.Adam would have made it.
ValueTree PythonAdam(Value maximize, bool integer_step = false, Value listed = 0) {
  ValueTree tree;
  const auto field = [&](const char* name, torch::Tensor tensor) {
    const std::string key = std::string("state/0/") + name;
    tree.tensors[key] = std::move(tensor);
    return std::pair<Value, Value>(name, Value::Tensor(key));
  };
  // Before PyTorch 1.12 the step was an integer.
  Value state = Value::Dict({integer_step ? std::pair<Value, Value>("step", 41)
                                          : field("step", torch::full({}, 41.0)),
                             field("exp_avg", torch::rand({2, 3})),
                             field("exp_avg_sq", torch::rand({2, 3}))});
  Value group = Value::Dict({{"lr", 0.25},
                             {"betas", Value::Tuple({0.5, 0.75})},
                             {"eps", 1e-7},
                             {"weight_decay", 0},
                             {"amsgrad", false},
                             {"maximize", std::move(maximize)},
                             {"foreach", true},
                             {"initial_lr", 0.5},
                             {"params", Value::List({std::move(listed)})}});
  tree.value = Value::Dict({{"state", Value::Dict({{Value(0), std::move(state)}})},
                            {"param_groups", Value::List({std::move(group)})}});
  return tree;
}

TEST(OptimizerTest, StateOfAnIdThatNoGroupListsIsToldAsSkipped) {
  World world;
  const torch::Tensor weight = torch::rand({2, 3}).set_requires_grad(true);
  torch::optim::Adam adam({weight}, torch::optim::AdamOptions(0.1));
  SaveArgs args;
  args.sections["optimizer"] = PythonAdam(false, false, /*listed=*/7);
  ASSERT_TRUE(SaveCheckpoint(world.client(), "models/m", args).ok());
  const LoadResult result =
      LoadCheckpoint(world.client(), support::kLatest, {.optimizer = &adam});
  ASSERT_TRUE(result.status.ok()) << result.status;
  EXPECT_THAT(result.report.skipped, Contains("optimizer:state/0"));
  EXPECT_TRUE(adam.state().empty());
}

// Python computes with True as with 1.
TEST(OptimizerTest, ABoolAsALearningRateIsNotTakenForZero) {
  World world;
  const torch::Tensor weight = torch::rand({2, 3}).set_requires_grad(true);
  torch::optim::Adam adam({weight}, torch::optim::AdamOptions(0.1));
  SaveArgs args;
  ValueTree tree = PythonAdam(false);
  Value groups = *tree.value.Find("param_groups");
  Value& group = std::get<Value::Sequence>(groups.variant()).values[0];
  group.Set("lr", true);
  group.Set("weight_decay", false);
  group.Set("amsgrad", 0);
  tree.value.Set("param_groups", groups);
  args.sections["optimizer"] = tree;
  ASSERT_TRUE(SaveCheckpoint(world.client(), "models/m", args).ok());
  const LoadResult result =
      LoadCheckpoint(world.client(), support::kLatest, {.optimizer = &adam});
  ASSERT_TRUE(result.status.ok()) << result.status;
  const auto& options =
      static_cast<torch::optim::AdamOptions&>(adam.param_groups()[0].options());
  EXPECT_EQ(options.lr(), 1);
  EXPECT_EQ(options.weight_decay(), 0);
  EXPECT_FALSE(options.amsgrad());
}

TEST(OptimizerTest, PythonsStateIsReadAndWhatLibTorchLacksIsTold) {
  World world;
  const torch::Tensor weight =
      torch::rand({2, 3}, torch::kDouble).set_requires_grad(true);
  torch::optim::Adam adam({weight}, torch::optim::AdamOptions(0.1));
  SaveArgs args;
  args.sections["optimizer"] = PythonAdam(false);
  ASSERT_TRUE(SaveCheckpoint(world.client(), "models/m", args).ok());
  LoadResult result =
      LoadCheckpoint(world.client(), support::kLatest, {.optimizer = &adam});
  ASSERT_TRUE(result.status.ok()) << result.status;
  EXPECT_THAT(result.report.skipped, Contains("optimizer:param_groups/0/initial_lr"));
  EXPECT_EQ(result.report.dtype_change.size(), 2u) << "float32 state, float64 parameter";
  const auto& state =
      static_cast<torch::optim::AdamParamState&>(*adam.state().begin()->second);
  EXPECT_EQ(state.step(), 41);
  EXPECT_EQ(state.exp_avg().scalar_type(), torch::kDouble);
  const auto& options =
      static_cast<torch::optim::AdamOptions&>(adam.param_groups()[0].options());
  EXPECT_EQ(options.lr(), 0.25);
  EXPECT_EQ(std::get<1>(options.betas()), 0.75);

  args.sections["optimizer"] = PythonAdam(false, /*integer_step=*/true);
  ASSERT_TRUE(SaveCheckpoint(world.client(), "models/m", args).ok());
  torch::optim::Adam older({weight}, torch::optim::AdamOptions(0.1));
  result = LoadCheckpoint(world.client(), support::kLatest, {.optimizer = &older});
  ASSERT_TRUE(result.status.ok()) << result.status;
  EXPECT_EQ(static_cast<torch::optim::AdamParamState&>(*older.state().begin()->second)
                .step(),
            41);

  args.sections["optimizer"] = PythonAdam(true);
  ASSERT_TRUE(SaveCheckpoint(world.client(), "models/m", args).ok());
  LoadResult refused =
      LoadCheckpoint(world.client(), support::kLatest, {.optimizer = &adam});
  EXPECT_EQ(refused.status.code(), absl::StatusCode::kUnimplemented);
  EXPECT_THAT(std::string(refused.status.message()), HasSubstr("`maximize`"));
  EXPECT_EQ(state.step(), 41);
}

}  // namespace
}  // namespace modelstore
