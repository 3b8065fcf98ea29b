// Saves and loads while inference mode is on: training can go on outside of it.
#include <gtest/gtest.h>

#include "modelstore/architecture.h"
#include "tests/client_torch/server_fixture.h"
#include "tests/client_torch/tensors.h"

namespace modelstore {
namespace {

using support::ServerFixture;

void Step(torch::nn::Linear& net, torch::optim::Optimizer& optimizer) {
  optimizer.step([&] {
    optimizer.zero_grad();
    torch::Tensor loss = net(torch::ones({1, 3})).pow(2).sum();
    loss.backward();
    return loss;
  });
}

template <typename Optimizer, typename Options>
void SaveAndLoadInInferenceMode(const Options& options) {
  ServerFixture fixture;
  torch::nn::Linear net(3, 2), resumed(3, 2);
  Optimizer optimizer(net->parameters(), options), other(resumed->parameters(), options);
  Step(net, optimizer);
  Step(net, optimizer);
  {
    const c10::InferenceMode inference;
    auto saved =
        SaveCheckpoint(fixture.client(), "models/m",
                       {.module = net.get(), .optimizer = &optimizer, .rng = true});
    ASSERT_TRUE(saved.ok()) << saved.status();
    const LoadResult result =
        LoadCheckpoint(fixture.client(), support::kLatest,
                       {.module = resumed.get(), .optimizer = &other, .rng = true});
    ASSERT_TRUE(result.status.ok()) << result.status;
  }
  for (int i = 0; i < 2; ++i) {
    Step(net, optimizer);
    Step(resumed, other);
  }
  support::ExpectSameBits(resumed->weight, net->weight, "weight");
}

TEST(InferenceModeTest, AnOptimizerLoadedInItTakesTheNextStepOutsideOfIt) {
  using namespace torch::optim;
  SaveAndLoadInInferenceMode<SGD>(SGDOptions(0.1).momentum(0.9));
  SaveAndLoadInInferenceMode<Adam>(AdamOptions(0.1).amsgrad(true));
  SaveAndLoadInInferenceMode<AdamW>(AdamWOptions(0.1));
  SaveAndLoadInInferenceMode<Adagrad>(AdagradOptions(0.1));
  SaveAndLoadInInferenceMode<RMSprop>(RMSpropOptions(0.1).centered(true).momentum(0.5));
  SaveAndLoadInInferenceMode<LBFGS>(LBFGSOptions(0.1).max_iter(3));
}

TEST(InferenceModeTest, FreshTensorsLoadedInItCanBeTrained) {
  ServerFixture fixture;
  torch::nn::Linear net(3, 2);
  SaveArgs args = {.module = net.get()};
  args.sections["extra"] = {Value::Dict({{"t", Value::Tensor("t")}}),
                            {{"t", torch::ones({2})}}};
  ASSERT_TRUE(SaveCheckpoint(fixture.client(), "models/m", args).ok());
  StateDict loaded;
  LoadResult result;
  torch::Tensor target;
  {
    const c10::InferenceMode inference;
    result = LoadCheckpoint(fixture.client(), support::kLatest, {.state_dict = &loaded},
                            {.selection = {.sections = {"extra"}}});
  }
  ASSERT_TRUE(result.status.ok()) << result.status;
  const torch::Tensor weight = support::At(loaded, "weight");
  EXPECT_FALSE(weight.is_inference());
  EXPECT_TRUE(weight.requires_grad());
  weight.pow(2).sum().backward();
  EXPECT_TRUE(weight.grad().defined());
  result.sections.at("extra").tensors.at("t").add_(1);
}

TEST(InferenceModeTest, AModelBuiltByNameInItCanBeTrained) {
  ServerFixture fixture;
  torch::nn::Sequential net(torch::nn::Linear(3, 2), torch::nn::BatchNorm1d(2));
  ASSERT_TRUE(SaveCheckpoint(fixture.client(), "models/m", {.module = net.get()}).ok());
  absl::StatusOr<LoadedModel> model = absl::UnknownError("not loaded");
  {
    const c10::InferenceMode inference;
    model = LoadModel(fixture.client(), support::kLatest);
  }
  ASSERT_TRUE(model.ok()) << model.status();
  model->module->train();
  model->Forward(torch::ones({4, 3})).pow(2).sum().backward();
  for (const torch::Tensor& p : model->module->parameters()) {
    EXPECT_FALSE(p.is_inference());
    EXPECT_TRUE(p.grad().defined());
  }
}

TEST(InferenceModeTest, AModuleMadeInItIsFilledInItAndRefusedOutsideOfIt) {
  ServerFixture fixture;
  torch::nn::Linear net(3, 2);
  ASSERT_TRUE(SaveCheckpoint(fixture.client(), "models/m", {.module = net.get()}).ok());
  torch::nn::Linear frozen{nullptr};
  {
    const c10::InferenceMode inference;
    frozen = torch::nn::Linear(3, 2);
    for (const bool atomic : {false, true}) {
      const LoadResult result = LoadCheckpoint(
          fixture.client(), support::kLatest, {.module = frozen.get(), .atomic = atomic});
      ASSERT_TRUE(result.status.ok()) << result.status;
      EXPECT_TRUE(frozen->weight.equal(net->weight));
    }
    ASSERT_TRUE(
        SaveCheckpoint(fixture.client(), "models/m", {.module = frozen.get()}).ok());
  }
  EXPECT_TRUE(
      SaveCheckpoint(fixture.client(), "models/m", {.module = frozen.get()}).ok());
  EXPECT_EQ(LoadCheckpoint(fixture.client(), support::kLatest, {.module = frozen.get()})
                .status.code(),
            absl::StatusCode::kFailedPrecondition);
}

}  // namespace
}  // namespace modelstore
