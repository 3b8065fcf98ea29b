// A checkpoint whose model was modified on the server: its optimizer loads, and
// trains on as if nothing had happened to the parameters that were not touched.
#include <gtest/gtest.h>

#include <functional>

#include "modelstore/modify.h"
#include "tests/client_torch/server_fixture.h"
#include "tests/client_torch/tensors.h"

namespace modelstore {
namespace {

using support::BytesOf;
using support::ServerFixture;

// `first` under a name of choice, and a head of choice.
struct LayersImpl : torch::nn::Module {
  LayersImpl(const std::string& name, int64_t outputs) {
    torch::manual_seed(1);
    first = register_module(name, torch::nn::Linear(6, 8));
    head = register_module("head", torch::nn::Linear(8, outputs));
  }
  torch::nn::Linear first{nullptr}, head{nullptr};
};
TORCH_MODULE(Layers);

// Gradients that depend on the parameter alone, so that other layers do not matter.
void Step(Layers& net, torch::optim::Optimizer& optimizer) {
  optimizer.step([&] {
    optimizer.zero_grad();
    torch::Tensor loss = torch::zeros({});
    for (const torch::Tensor& parameter : net->parameters()) {
      loss = loss + (parameter - 0.5).pow(2).sum();
    }
    loss.backward();
    return loss;
  });
}

using MakeForLayers = std::function<std::unique_ptr<torch::optim::Optimizer>(Layers&)>;

std::vector<std::pair<std::string, MakeForLayers>> LayerOptimizers() {
  using namespace torch::optim;
  return {
      {"SGD",
       [](Layers& net) {
         return std::make_unique<SGD>(net->parameters(), SGDOptions(0.1).momentum(0.9));
       }},
      {"Adam",
       [](Layers& net) {
         return std::make_unique<Adam>(net->parameters(),
                                       AdamOptions(0.01).amsgrad(true));
       }},
      {"AdamW",
       [](Layers& net) {
         return std::make_unique<AdamW>(net->parameters(), AdamWOptions(0.01));
       }},
      {"Adagrad",
       [](Layers& net) {
         return std::make_unique<Adagrad>(
             net->parameters(), AdagradOptions(0.1).initial_accumulator_value(0.5));
       }},
      {"RMSprop",
       [](Layers& net) {
         return std::make_unique<RMSprop>(
             net->parameters(), RMSpropOptions(0.01).momentum(0.8).centered(true));
       }},
      {"LBFGS", [](Layers& net) {
         return std::make_unique<LBFGS>(net->parameters(), LBFGSOptions(0.1).max_iter(3));
       }}};
}

// Trains, saves, edits, loads into `modified` and trains both on.
void TrainOn(const MakeForLayers& make, const EditList& edits, Layers& trained,
             Layers& modified, const ModifyOptions& options = {}) {
  ServerFixture fixture;
  auto optimizer = make(trained);
  for (int i = 0; i < 3; ++i) Step(trained, *optimizer);
  auto saved = SaveCheckpoint(fixture.client(), "models/m",
                              {.module = trained.get(), .optimizer = optimizer.get()});
  ASSERT_TRUE(saved.ok()) << saved.status();
  auto made = ModifyCheckpoint(fixture.client(), support::kLatest, edits, options);
  ASSERT_TRUE(made.ok()) << made.status();
  auto resumed = make(modified);
  const LoadResult loaded =
      LoadCheckpoint(fixture.client(), support::kLatest,
                     {.module = modified.get(), .optimizer = resumed.get()});
  ASSERT_TRUE(loaded.status.ok()) << loaded.status;
  for (int i = 0; i < 3; ++i) {
    Step(trained, *optimizer);
    Step(modified, *resumed);
  }
}

TEST(ModifiedOptimizerTest, ARenamedModuleTrainsOnBitForBit) {
  for (const auto& [name, make] : LayerOptimizers()) {
    SCOPED_TRACE(name);
    Layers trained("first", 3), modified("renamed", 3);
    TrainOn(make, EditList().RenameModule("first", "renamed"), trained, modified);
    EXPECT_TRUE(BytesOf(modified->first->weight) == BytesOf(trained->first->weight));
    EXPECT_TRUE(BytesOf(modified->head->bias) == BytesOf(trained->head->bias));
  }
}

TEST(ModifiedOptimizerTest, RenamedKeysTrainOnBitForBit) {
  for (const auto& [name, make] : LayerOptimizers()) {
    SCOPED_TRACE(name);
    Layers trained("first", 3), modified("second", 3);
    TrainOn(make, EditList().RenameKeys("first\\.(.*)", "second.\\1"), trained, modified);
    EXPECT_TRUE(BytesOf(modified->first->weight) == BytesOf(trained->first->weight));
  }
}

TEST(ModifiedOptimizerTest, AReplacedHeadLeavesTheMomentumOfTheRest) {
  for (const auto& [name, make] : LayerOptimizers()) {
    SCOPED_TRACE(name);
    Layers trained("first", 3), modified("first", 5);
    TrainOn(make, EditList().ReplaceModule("head", "Linear(8, 5)"), trained, modified);
    EXPECT_EQ(modified->head->weight.size(0), 5);
    // The state of LBFGS spans all parameters, and begins anew.
    if (name == "LBFGS") continue;
    EXPECT_TRUE(BytesOf(modified->first->weight) == BytesOf(trained->first->weight));
    EXPECT_TRUE(BytesOf(modified->first->bias) == BytesOf(trained->first->bias));
  }
}

TEST(ModifiedOptimizerTest, RowsThatAreKeptTrainOnBitForBit) {
  for (const auto& [name, make] : LayerOptimizers()) {
    if (name == "LBFGS") continue;
    SCOPED_TRACE(name);
    Layers trained("first", 3), modified("first", 4);
    TrainOn(make, EditList().ResizeOutput("head", 4, {2, 0}, EditList::NewRows::kZeros),
            trained, modified);
    EXPECT_TRUE(BytesOf(modified->head->weight[0]) == BytesOf(trained->head->weight[2]));
    EXPECT_TRUE(BytesOf(modified->head->weight[1]) == BytesOf(trained->head->weight[0]));
  }
}

TEST(ModifiedOptimizerTest, AfterAResetItStartsOver) {
  for (const auto& [name, make] : LayerOptimizers()) {
    SCOPED_TRACE(name);
    Layers trained("first", 3), modified("renamed", 3);
    TrainOn(make, EditList().RenameModule("first", "renamed"), trained, modified,
            {.optimizer_policy = OptimizerPolicy::kReset});
    EXPECT_FALSE(BytesOf(modified->first->weight) == BytesOf(trained->first->weight));
  }
}

}  // namespace
}  // namespace modelstore
