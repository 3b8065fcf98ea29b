// State dicts of Python's optimizers and schedulers: kept as they are, and taken over
// by LibTorch's optimizers, which go on with the same numbers.
#include <gmock/gmock.h>

#include <algorithm>
#include <map>
#include <memory>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "tests/client_torch/server_fixture.h"
#include "tests/client_torch/tensors.h"
#include "tests/interop/cases.h"

namespace modelstore::interop {
namespace {

using support::At;
using support::ServerFixture;

void SaveTraining(ServerFixture& fixture, const Case& c) {
  const StateDict model = {{"weight", At(c.tensors, "model:weight")},
                           {"bias", At(c.tensors, "model:bias")}};
  SaveArgs args = {.state_dict = &model};
  for (const auto& [name, value] : c.trees) args.sections[name] = TreeOf(c, name);
  auto saved = SaveCheckpoint(fixture.client(), "models/m", args);
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
    ServerFixture fixture;
    SaveTraining(fixture, c);
    const LoadResult result = LoadCheckpoint(
        fixture.client(), support::kLatest, {},
        {.selection = {.sections = {"optimizer", "scheduler", "plateau"}}});
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
    ServerFixture fixture;
    SaveTraining(fixture, c);
    torch::nn::Linear net(3, 4);
    auto optimizer = Make(c.module, net->parameters());
    ASSERT_NE(optimizer, nullptr);
    LoadArgs args = {.module = net.get(), .optimizer = optimizer.get()};
    // Its state is of all parameters together: no shape tells their order.
    if (c.module == "LBFGS") {
      EXPECT_EQ(LoadCheckpoint(fixture.client(), support::kLatest, args).status.code(),
                absl::StatusCode::kFailedPrecondition);
      args.parameter_order = Policy::kReport;
    }
    const LoadResult result = LoadCheckpoint(fixture.client(), support::kLatest, args);
    ASSERT_TRUE(result.status.ok()) << result.status;
    EXPECT_THAT(result.report.inferred, ::testing::ElementsAre("optimizer"))
        << "Python's state_dict has no names";
    net->weight.mutable_grad() = At(c.tensors, "grad:weight");
    net->bias.mutable_grad() = At(c.tensors, "grad:bias");
    optimizer->step([] { return torch::ones({}); });
    support::ExpectSameBits(net->weight, At(c.after, "weight"), "weight");
    support::ExpectSameBits(net->bias, At(c.after, "bias"), "bias");
  }
}

// A dict of state dicts, as Python's training of several networks keeps: a section each.
TEST_F(PythonsTrainingTest, TwoOptimizersOfOneCheckpointBothTakePythonsNextStep) {
  ServerFixture fixture;
  StateDict model;
  SaveArgs save = {.state_dict = &model};
  torch::nn::Sequential net;
  std::map<std::string, std::unique_ptr<torch::optim::Optimizer>> optimizers;
  LoadArgs load = {.module = net.get()};
  for (const char* name : {"SGD", "AdamW"}) {
    const auto c = std::find_if(cases_.begin(), cases_.end(),
                                [&](const Case& found) { return found.name == name; });
    ASSERT_NE(c, cases_.end());
    for (const char* key : {"weight", "bias"}) {
      model.emplace_back(absl::StrCat(name, ".", key),
                         At(c->tensors, absl::StrCat("model:", key)));
    }
    save.sections[absl::StrCat("optimizer.", name)] = TreeOf(*c, "optimizer");
    const torch::nn::Linear part(3, 4);
    net->push_back(name, part);
    optimizers[name] = Make(c->module, part->parameters());
    load.optimizers[name] = optimizers[name].get();
  }
  auto saved = SaveCheckpoint(fixture.client(), "models/m", save);
  ASSERT_TRUE(saved.ok()) << saved.status();
  const LoadResult result = LoadCheckpoint(fixture.client(), support::kLatest, load);
  ASSERT_TRUE(result.status.ok()) << result.status;
  EXPECT_THAT(result.report.inferred,
              ::testing::ElementsAre("optimizer.AdamW", "optimizer.SGD"));
  for (const Case& c : cases_) {
    const auto optimizer = optimizers.find(c.name);
    if (optimizer == optimizers.end()) continue;
    for (const char* key : {"weight", "bias"}) {
      torch::Tensor parameter =
          *net->named_parameters().find(absl::StrCat(c.name, ".", key));
      parameter.mutable_grad() = At(c.tensors, absl::StrCat("grad:", key));
    }
    optimizer->second->step();
    for (const auto& [key, tensor] : c.after) {
      support::ExpectSameBits(*net->named_parameters().find(c.name + "." + key), tensor,
                              c.name + "." + key);
    }
  }
}

// As TiedHead of state_dicts.py: LibTorch's Linear cannot be given another weight.
struct TiedHead : torch::nn::Module {
  TiedHead() {
    embed = register_module("embed", torch::nn::Embedding(4, 3));
    head = register_module("head", std::make_shared<Head>(embed->weight));
  }
  struct Head : torch::nn::Module {
    explicit Head(const torch::Tensor& weight) {
      register_parameter("weight", weight);
      register_parameter("bias", torch::zeros({4}));
    }
  };
  torch::nn::Embedding embed{nullptr};
  std::shared_ptr<Head> head;
};

class PythonsGroupsTest : public ::testing::Test {
 protected:
  static void SetUpTestSuite() { cases_ = AskPython("groups"); }
  // Groups are of what ends in each of `endings`; one of all parameters without any.
  static torch::optim::AdamW Make(const torch::nn::Module& net,
                                  const std::vector<std::string>& endings) {
    std::vector<torch::optim::OptimizerParamGroup> groups;
    if (endings.empty()) groups.emplace_back(net.parameters());
    for (const std::string& ending : endings) {
      std::vector<torch::Tensor> of;
      for (const auto& p : net.named_parameters()) {
        if (absl::EndsWith(p.key(), ending)) of.push_back(p.value());
      }
      // In another order than Python's.
      std::reverse(of.begin(), of.end());
      groups.emplace_back(std::move(of));
    }
    return torch::optim::AdamW(std::move(groups), torch::optim::AdamWOptions(7));
  }
  // Loads the case; if that is refused nothing changes, else the next step is Python's.
  absl::Status Run(const std::string& name, torch::nn::Module& net,
                   torch::optim::AdamW& adamw) {
    const auto found = std::find_if(cases_.begin(), cases_.end(),
                                    [&](const Case& c) { return c.name == name; });
    if (found == cases_.end()) return absl::NotFoundError(name);
    ServerFixture fixture;
    StateDict model;
    for (const auto& [key, tensor] : GetStateDict(net)) {
      const torch::Tensor stored = At(found->tensors, "model:" + key);
      // Python's named_parameters() leaves out the second name of a tied one.
      model.emplace_back(key, stored.defined() ? stored : At(model, "embed.weight"));
    }
    SaveArgs args = {.state_dict = &model};
    args.sections["optimizer"] = TreeOf(*found, "optimizer");
    auto saved = SaveCheckpoint(fixture.client(), "models/m", args);
    if (!saved.ok()) return saved.status();
    const LoadResult result = LoadCheckpoint(fixture.client(), support::kLatest,
                                             {.module = &net, .optimizer = &adamw});
    if (!result.status.ok()) {
      EXPECT_TRUE(adamw.state().empty());
      return result.status;
    }
    EXPECT_EQ(result.report.inferred.empty(), absl::EndsWith(name, "_named"));
    for (auto& p : net.named_parameters()) {
      const torch::Tensor grad = At(found->tensors, "grad:" + p.key());
      if (grad.defined()) p.value().mutable_grad() = grad;
    }
    adamw.step();
    return absl::OkStatus();
  }
  void ExpectPythons(const std::string& name, const torch::nn::Module& net) {
    for (const Case& c : cases_) {
      if (c.name != name) continue;
      for (const auto& [key, tensor] : c.after) {
        support::ExpectSameBits(*net.named_parameters().find(key), tensor, key);
      }
    }
  }
  static std::vector<Case> cases_;
};
std::vector<Case> PythonsGroupsTest::cases_;

TEST_F(PythonsGroupsTest, StateOfTiedWeightsGoesToTheOneParameterThatTheyAre) {
  for (const std::string name : {"tied_named", "tied"}) {
    SCOPED_TRACE(name);
    TiedHead net;
    // LibTorch would take a step for each time that it holds a parameter.
    std::vector<torch::Tensor> once = {net.embed->weight,
                                       *net.named_parameters().find("head.bias")};
    torch::optim::AdamW adamw(once, torch::optim::AdamWOptions(7));
    const absl::Status status = Run(name, net, adamw);
    ASSERT_TRUE(status.ok()) << status;
    ExpectPythons(name, net);
    TiedHead other;
    torch::optim::AdamW twice = Make(other, {});
    ASSERT_EQ(twice.param_groups()[0].params().size(), 3u);
    const absl::Status held_twice = Run(name, other, twice);
    EXPECT_TRUE(held_twice.ok()) << held_twice;
    EXPECT_EQ(twice.state().size(), 2u);
  }
}

TEST_F(PythonsGroupsTest, StateOfTwoGroupsGoesByNameAndIsRefusedWithout) {
  torch::nn::Sequential net({{"a", torch::nn::AnyModule(torch::nn::Linear(2, 2))},
                             {"b", torch::nn::AnyModule(torch::nn::Linear(2, 2))}});
  torch::optim::AdamW unnamed = Make(*net, {"weight", "bias"});
  const absl::Status refused = Run("two", *net, unnamed);
  EXPECT_EQ(refused.code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_THAT(std::string(refused.message()),
              ::testing::HasSubstr("could be mistaken for parameter 1 of group 1"));
  torch::optim::AdamW named = Make(*net, {"weight", "bias"});
  const absl::Status status = Run("two_named", *net, named);
  ASSERT_TRUE(status.ok()) << status;
  ExpectPythons("two_named", *net);
}

}  // namespace
}  // namespace modelstore::interop
