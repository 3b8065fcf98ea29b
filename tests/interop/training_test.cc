// State dicts of Python's optimizers and schedulers: kept as they are, and taken over
// by LibTorch's optimizers, which go on with the same numbers.
#include <gmock/gmock.h>

#include "absl/strings/str_cat.h"
#include "absl/strings/strip.h"
#include "tests/client_torch/tensors.h"
#include "tests/client_torch/world.h"
#include "tests/interop/cases.h"

namespace modelstore::interop {
namespace {

using support::At;
using support::World;

// The tree of that name with its tensors.
ValueTree TreeOf(const Case& c, const std::string& name) {
  ValueTree tree;
  tree.value = c.trees.at(name);
  for (const auto& [key, tensor] : c.tensors) {
    absl::string_view path = key;
    if (absl::ConsumePrefix(&path, absl::StrCat(name, ":"))) {
      tree.tensors[std::string(path)] = tensor;
    }
  }
  return tree;
}

void SaveTraining(World& world, const Case& c) {
  const StateDict model = {{"weight", At(c.tensors, "model:weight")},
                           {"bias", At(c.tensors, "model:bias")}};
  SaveArgs args = {.state_dict = &model};
  for (const auto& [name, value] : c.trees) args.sections[name] = TreeOf(c, name);
  auto saved = SaveCheckpoint(world.client(), "models/m", args);
  ASSERT_TRUE(saved.ok()) << saved.status();
}

std::unique_ptr<torch::optim::Optimizer> Make(const std::string& name,
                                              const std::vector<torch::Tensor>& of) {
  using namespace torch::optim;  // NOLINT
  if (name == "SGD") return std::make_unique<SGD>(of, SGDOptions(7));
  if (name == "Adam") return std::make_unique<Adam>(of);
  if (name == "AdamW") return std::make_unique<AdamW>(of);
  if (name == "Adagrad") return std::make_unique<Adagrad>(of);
  if (name == "RMSprop") return std::make_unique<RMSprop>(of);
  if (name == "LBFGS") return std::make_unique<LBFGS>(of);
  return nullptr;
}

class PythonsTrainingTest : public ::testing::Test {
 protected:
  static void SetUpTestSuite() { cases_ = AskPython("training"); }
  static std::vector<Case> cases_;
};
std::vector<Case> PythonsTrainingTest::cases_;

TEST_F(PythonsTrainingTest, OptimizersAndSchedulersComeBackAsTheyWere) {
  ASSERT_EQ(cases_.size(), 6u);
  for (const Case& c : cases_) {
    World world;
    SaveTraining(world, c);
    const LoadResult result =
        LoadCheckpoint(world.client(), support::kLatest,
                       {.sections = {"optimizer", "scheduler", "plateau"}});
    ASSERT_TRUE(result.status.ok()) << result.status;
    for (const auto& [name, tree] : result.sections) {
      SCOPED_TRACE(absl::StrCat(c.name, " ", name));
      const ValueTree stored = TreeOf(c, name);
      EXPECT_EQ(tree.value, stored.value) << tree.value.ToString();
      ASSERT_EQ(tree.tensors.size(), stored.tensors.size());
      for (const auto& [key, tensor] : stored.tensors) {
        support::ExpectSameBits(tree.tensors.at(key), tensor, key);
      }
    }
  }
}

TEST_F(PythonsTrainingTest, LibTorchsOptimizersTakeTheNextStepAsPythonDoes) {
  for (const Case& c : cases_) {
    SCOPED_TRACE(c.name);
    World world;
    SaveTraining(world, c);
    torch::nn::Linear net(3, 4);
    auto optimizer = Make(c.module, net->parameters());
    ASSERT_NE(optimizer, nullptr);
    const LoadResult result =
        LoadCheckpoint(world.client(), support::kLatest,
                       {.module = net.get(), .optimizer = optimizer.get()});
    ASSERT_TRUE(result.status.ok()) << result.status;
    EXPECT_TRUE(result.report.inferred) << "Python's state_dict has no names";
    net->weight.mutable_grad() = At(c.tensors, "grad:weight");
    net->bias.mutable_grad() = At(c.tensors, "grad:bias");
    optimizer->step([] { return torch::ones({}); });
    support::ExpectSameBits(net->weight, At(c.after, "weight"), "weight");
    support::ExpectSameBits(net->bias, At(c.after, "bias"), "bias");
  }
}

}  // namespace
}  // namespace modelstore::interop
