// Optimizer state as Python's PyTorch writes it.
#include <gmock/gmock.h>

#include "tests/client_torch/optimizers.h"

namespace modelstore {
namespace {

using support::ServerFixture;
using ::testing::Contains;
using ::testing::HasSubstr;

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

TEST(OptimizerPythonTest, StateOfAnIdThatNoGroupListsIsReportedAsSkipped) {
  ServerFixture fixture;
  const torch::Tensor weight = torch::rand({2, 3}).set_requires_grad(true);
  torch::optim::Adam adam({weight}, torch::optim::AdamOptions(0.1));
  SaveArgs args;
  args.sections["optimizer"] = PythonAdam(false, false, /*listed=*/7);
  ASSERT_TRUE(SaveCheckpoint(fixture.client(), "models/m", args).ok());
  const LoadResult result =
      LoadCheckpoint(fixture.client(), support::kLatest, {.optimizer = &adam});
  ASSERT_TRUE(result.status.ok()) << result.status;
  EXPECT_THAT(result.report.skipped, Contains("optimizer:state/0"));
  EXPECT_TRUE(adam.state().empty());
}

// Python computes with True as with 1.
TEST(OptimizerPythonTest, ABoolAsALearningRateIsNotTakenForZero) {
  ServerFixture fixture;
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
  ASSERT_TRUE(SaveCheckpoint(fixture.client(), "models/m", args).ok());
  const LoadResult result =
      LoadCheckpoint(fixture.client(), support::kLatest, {.optimizer = &adam});
  ASSERT_TRUE(result.status.ok()) << result.status;
  const auto& options =
      static_cast<torch::optim::AdamOptions&>(adam.param_groups()[0].options());
  EXPECT_EQ(options.lr(), 1);
  EXPECT_EQ(options.weight_decay(), 0);
  EXPECT_FALSE(options.amsgrad());
}

TEST(OptimizerPythonTest, PythonsStateIsReadAndWhatLibTorchLacksIsReported) {
  ServerFixture fixture;
  const torch::Tensor weight =
      torch::rand({2, 3}, torch::kDouble).set_requires_grad(true);
  torch::optim::Adam adam({weight}, torch::optim::AdamOptions(0.1));
  SaveArgs args;
  args.sections["optimizer"] = PythonAdam(false);
  ASSERT_TRUE(SaveCheckpoint(fixture.client(), "models/m", args).ok());
  LoadResult result =
      LoadCheckpoint(fixture.client(), support::kLatest, {.optimizer = &adam});
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
  ASSERT_TRUE(SaveCheckpoint(fixture.client(), "models/m", args).ok());
  torch::optim::Adam older({weight}, torch::optim::AdamOptions(0.1));
  result = LoadCheckpoint(fixture.client(), support::kLatest, {.optimizer = &older});
  ASSERT_TRUE(result.status.ok()) << result.status;
  EXPECT_EQ(
      static_cast<torch::optim::AdamParamState&>(*older.state().begin()->second).step(),
      41);

  args.sections["optimizer"] = PythonAdam(true);
  ASSERT_TRUE(SaveCheckpoint(fixture.client(), "models/m", args).ok());
  LoadResult refused =
      LoadCheckpoint(fixture.client(), support::kLatest, {.optimizer = &adam});
  EXPECT_EQ(refused.status.code(), absl::StatusCode::kUnimplemented);
  EXPECT_THAT(std::string(refused.status.message()), HasSubstr("`maximize`"));
  EXPECT_EQ(state.step(), 41);
}

}  // namespace
}  // namespace modelstore
