// Optimizers: stopped and resumed they go on bit for bit; what cannot be kept or restored
// is refused by name.
#include <gmock/gmock.h>

#include <functional>

#include "tests/client_torch/optimizers.h"

namespace modelstore {
namespace {

using support::ServerFixture;
using support::Step;
using support::TwoLayers;
using ::testing::ElementsAre;
using ::testing::HasSubstr;

using MakeOptimizer = std::function<std::unique_ptr<torch::optim::Optimizer>(TwoLayers&)>;

template <typename Optimizer, typename Options>
MakeOptimizer Make(const Options& options) {
  return [options](TwoLayers& net) {
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
       [](TwoLayers& net) {
         std::vector<OptimizerParamGroup> groups;
         groups.emplace_back(net->second->parameters(),
                             std::make_unique<SGDOptions>(SGDOptions(0.5).momentum(0.1)));
         groups.emplace_back(net->first->parameters(),
                             std::make_unique<SGDOptions>(SGDOptions(0.05)));
         return std::make_unique<SGD>(std::move(groups), SGDOptions(1).momentum(0.7));
       }},
      {"two groups of RMSprop",
       [](TwoLayers& net) {
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
  ServerFixture fixture;
  torch::manual_seed(7);
  TwoLayers net;
  auto optimizer = make(net);
  for (int i = 0; i < steps_before; ++i) Step(net, *optimizer);
  auto saved =
      SaveCheckpoint(fixture.client(), "models/m",
                     {.module = net.get(), .optimizer = optimizer.get(), .rng = true});
  ASSERT_TRUE(saved.ok()) << saved.status();
  for (int i = 0; i < 5; ++i) Step(net, *optimizer);

  torch::manual_seed(8);
  TwoLayers resumed;
  auto other = make(resumed);
  Step(resumed, *other);  // state that the load has to replace
  LoadResult result =
      LoadCheckpoint(fixture.client(), support::kLatest,
                     {.module = resumed.get(), .optimizer = other.get(), .rng = true});
  ASSERT_TRUE(result.status.ok()) << result.status;
  EXPECT_TRUE(result.report.inferred.empty());
  EXPECT_THAT(result.report.skipped, ElementsAre());
  for (int i = 0; i < 5; ++i) Step(resumed, *other);
  for (const auto& p : net->named_parameters()) {
    support::ExpectSameBits(resumed->named_parameters()[p.key()], p.value(), p.key());
  }
}

TEST(OptimizerTest, StoppedAndResumedTrainingContinuesBitForBit) {
  for (const auto& [name, make] : Optimizers()) {
    for (const int steps_before : {0, 1, 2, 7}) {
      SCOPED_TRACE(name + " after " + std::to_string(steps_before));
      StopAndResume(make, steps_before);
    }
  }
}

TEST(OptimizerTest, TheStoredTreeIsPythons) {
  ServerFixture fixture;
  TwoLayers net;
  torch::optim::Adam adam(net->parameters(),
                          torch::optim::AdamOptions(0.01).amsgrad(true));
  Step(net, adam);
  ASSERT_TRUE(SaveCheckpoint(fixture.client(), "models/m",
                             {.module = net.get(), .optimizer = &adam})
                  .ok());
  LoadResult result = LoadCheckpoint(fixture.client(), support::kLatest, {},
                                     {.selection = {.sections = {"optimizer"}}});
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
  ServerFixture fixture;
  TwoLayers net;
  torch::optim::LBFGS lbfgs(net->parameters(),
                            torch::optim::LBFGSOptions(0.1).max_iter(8));
  Step(net, lbfgs);
  ASSERT_TRUE(SaveCheckpoint(fixture.client(), "models/m",
                             {.module = net.get(), .optimizer = &lbfgs})
                  .ok());
  LoadResult result = LoadCheckpoint(fixture.client(), support::kLatest, {},
                                     {.selection = {.sections = {"optimizer"}}});
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

// An optimizer of the user's own.
struct Own : torch::optim::Optimizer {
  explicit Own(std::vector<torch::Tensor> parameters)
      : Optimizer({torch::optim::OptimizerParamGroup(std::move(parameters))},
                  std::make_unique<torch::optim::SGDOptions>(0.1)) {}
  torch::Tensor step(LossClosure = nullptr) override { return {}; }
};

TEST(OptimizerTest, AnOptimizerOfAnotherMakeIsRefusedByName) {
  ServerFixture fixture;
  TwoLayers net;
  Own own(net->parameters());
  const absl::Status unknown = SaveCheckpoint(fixture.client(), "models/m",
                                              {.module = net.get(), .optimizer = &own})
                                   .status();
  EXPECT_EQ(unknown.code(), absl::StatusCode::kUnimplemented);
  EXPECT_THAT(std::string(unknown.message()), HasSubstr("Own"));
}

TEST(OptimizerTest, StateWithoutWhatItsOptionsNeedIsRefused) {
  ServerFixture fixture;
  TwoLayers net;
  torch::optim::RMSprop plain(net->parameters(), torch::optim::RMSpropOptions(0.1));
  Step(net, plain);
  // The options were changed after the last step.
  static_cast<torch::optim::RMSpropOptions&>(plain.param_groups()[0].options())
      .centered(true);
  ASSERT_TRUE(SaveCheckpoint(fixture.client(), "models/m",
                             {.module = net.get(), .optimizer = &plain})
                  .ok());
  torch::optim::RMSprop other(net->parameters(), torch::optim::RMSpropOptions(0.1));
  LoadResult result = LoadCheckpoint(fixture.client(), support::kLatest,
                                     {.module = net.get(), .optimizer = &other});
  EXPECT_EQ(result.status.code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_THAT(std::string(result.status.message()), HasSubstr("`grad_avg` as RMSprop"));
}

TEST(OptimizerTest, AStepThatFloat32CannotCountIsKept) {
  ServerFixture fixture;
  TwoLayers net;
  torch::optim::Adam adam(net->parameters(), torch::optim::AdamOptions(0.1));
  Step(net, adam);
  constexpr int64_t kStep = (int64_t{1} << 24) + 1;
  for (auto& [key, state] : adam.state()) {
    static_cast<torch::optim::AdamParamState&>(*state).step(kStep);
  }
  const SaveArgs args = {.module = net.get(), .optimizer = &adam};
  ASSERT_TRUE(SaveCheckpoint(fixture.client(), "models/m", args).ok());
  torch::optim::Adam other(net->parameters(), torch::optim::AdamOptions(0.1));
  LoadResult result = LoadCheckpoint(fixture.client(), support::kLatest,
                                     {.module = net.get(), .optimizer = &other});
  ASSERT_TRUE(result.status.ok()) << result.status;
  for (const auto& [key, state] : other.state()) {
    EXPECT_EQ(static_cast<torch::optim::AdamParamState&>(*state).step(), kStep);
  }
}

TEST(OptimizerTest, StateLeftOutByAFilterIsRefused) {
  ServerFixture fixture;
  TwoLayers net;
  torch::optim::Adam adam(net->parameters(), torch::optim::AdamOptions(0.1));
  Step(net, adam);
  ASSERT_TRUE(SaveCheckpoint(fixture.client(), "models/m",
                             {.module = net.get(), .optimizer = &adam})
                  .ok());
  LoadResult result = LoadCheckpoint(
      fixture.client(), support::kLatest, {.module = net.get(), .optimizer = &adam},
      {.selection = {.exclude = {"optimizer:state/2/.*"}}});
  EXPECT_EQ(result.status.code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_THAT(std::string(result.status.message()), HasSubstr("`optimizer:state/2/"));
}

// Every optimizer that has it in Python: LibTorch would climb down, not up.
TEST(OptimizerTest, MaximizeIsRefusedByNameAndNothingChanges) {
  for (const auto& [name, make] : Optimizers()) {
    if (name.rfind("LBFGS", 0) == 0) continue;
    SCOPED_TRACE(name);
    ServerFixture fixture;
    TwoLayers net;
    auto optimizer = make(net);
    Step(net, *optimizer);
    const SaveArgs saved = {.module = net.get(), .optimizer = optimizer.get()};
    ASSERT_TRUE(SaveCheckpoint(fixture.client(), "models/m", saved).ok());
    LoadResult stored = LoadCheckpoint(fixture.client(), support::kLatest, {},
                                       {.selection = {.sections = {"optimizer"}}});
    ASSERT_TRUE(stored.status.ok()) << stored.status;
    ValueTree& tree = stored.sections.at("optimizer");
    Value groups = *tree.value.Find("param_groups");
    std::vector<Value>& list = std::get<Value::Sequence>(groups.variant()).values;
    list.back().Set("maximize", true);
    tree.value.Set("param_groups", groups);
    SaveArgs climbing = {.module = net.get()};
    climbing.sections["optimizer"] = tree;
    ASSERT_TRUE(SaveCheckpoint(fixture.client(), "models/m", climbing).ok());
    auto other = make(net);
    const size_t states = other->state().size();  // Adagrad's begins at once
    const LoadResult result =
        LoadCheckpoint(fixture.client(), support::kLatest,
                       {.module = net.get(), .optimizer = other.get()});
    EXPECT_EQ(result.status.code(), absl::StatusCode::kUnimplemented);
    EXPECT_THAT(
        std::string(result.status.message()),
        HasSubstr("has no `maximize`, which group " + std::to_string(list.size() - 1)));
    EXPECT_EQ(other->state().size(), states);
  }
}

}  // namespace
}  // namespace modelstore
