// load_state_dict(strict=False) on the same state dicts: the lists that PyTorch
// returns, in its order, and the values that it leaves in the module.
#include <gmock/gmock.h>

#include <functional>

#include "client/torch/tensor_views.h"
#include "tests/client_torch/server_fixture.h"
#include "tests/client_torch/tensors.h"
#include "tests/interop/cases.h"

namespace modelstore::interop {
namespace {

using support::ServerFixture;
using ::testing::ElementsAreArray;
using ::testing::UnorderedElementsAreArray;

// The modules of state_dicts.py.
struct ChildImpl : torch::nn::Module {
  ChildImpl() {
    register_module("deep", torch::nn::Linear(2, 2));
    register_buffer("table", torch::zeros({2}));
    register_parameter("w", torch::zeros({2}));
  }
};
TORCH_MODULE(Child);

struct Tree : torch::nn::Module {
  Tree() {
    register_module("child", Child());
    register_module("fc", torch::nn::Linear(2, 3));
    register_module("bn", torch::nn::BatchNorm1d(3));
    register_parameter("scale", torch::zeros({}));
    register_buffer("steps", torch::tensor(int64_t{7}));
    register_buffer("scratch", torch::zeros({2}));
  }
};

struct Norms : torch::nn::Module {
  Norms() {
    using namespace torch::nn;  // NOLINT
    register_module("bn", BatchNorm2d(2));
    register_module("plain", BatchNorm1d(BatchNorm1dOptions(2).affine(false)));
    register_module("untracked",
                    BatchNorm1d(BatchNorm1dOptions(2).track_running_stats(false)));
    register_module(
        "instance",
        InstanceNorm1d(InstanceNorm1dOptions(2).affine(true).track_running_stats(true)));
  }
};

struct HeadImpl : torch::nn::Module {
  explicit HeadImpl(const torch::Tensor& shared) { register_parameter("weight", shared); }
};
TORCH_MODULE(Head);

struct Tied : torch::nn::Module {
  Tied() {
    torch::nn::Linear linear(2, 3);
    torch::nn::Embedding embed(3, 2);
    register_module("encoder", linear);
    register_module("decoder", linear);
    register_module("embed", embed);
    register_module("head", Head(embed->weight));
  }
};

std::shared_ptr<torch::nn::Module> Make(const std::string& name) {
  if (name == "Tree") return std::make_shared<Tree>();
  if (name == "Norms") return std::make_shared<Norms>();
  if (name == "Tied") return std::make_shared<Tied>();
  return nullptr;
}

void Save(ServerFixture& fixture, const Case& c) {
  torch_internal::ViewBuilder views(/*at_rest=*/true);
  for (const auto& [key, tensor] : c.tensors) {
    ASSERT_TRUE(views.Add("model", key, tensor).ok()) << key;
  }
  SaveContent content;
  content.tensors = views.Take();
  content.sections.push_back({"model", Value(), c.metadata});
  auto saved = fixture.client()
                   .SaveAsync("models/m", std::move(content))
                   .Durable(After(std::chrono::seconds(30)));
  ASSERT_TRUE(saved.ok()) << saved.status();
}

std::vector<std::string> Mismatched(const LoadReport& report) {
  std::vector<std::string> keys;
  for (const LoadReport::ShapeMismatch& m : report.shape_mismatch) keys.push_back(m.key);
  return keys;
}

TEST(StrictTest, ListsAndValuesAreThoseOfPyTorchOnTheSameStateDicts) {
  const std::vector<Case> cases = AskPython("strict");
  ASSERT_GE(cases.size(), 70u);
  for (const Case& c : cases) {
    SCOPED_TRACE(c.name);
    ServerFixture fixture;
    Save(fixture, c);
    const std::shared_ptr<torch::nn::Module> module = Make(c.module);
    ASSERT_NE(module, nullptr) << c.module;
    Blank(*module);
    const LoadResult result = LoadCheckpoint(
        fixture.client(), support::kLatest,
        {.module = module.get(), .non_persistent = {"scratch"}, .strict = false});
    EXPECT_THAT(Mismatched(result.report), UnorderedElementsAreArray(c.mismatch));
    EXPECT_EQ(result.status.ok(), c.mismatch.empty()) << result.status;
    if (!c.mismatch.empty()) continue;
    EXPECT_THAT(result.report.missing, ElementsAreArray(c.missing));
    EXPECT_THAT(result.report.unexpected, ElementsAreArray(c.unexpected));
    const StateDict state = GetStateDict(*module);
    for (const auto& [key, tensor] : c.after) {
      support::ExpectSameBits(support::At(state, key), tensor, key);
    }
  }
}

// The same with strict: what PyTorch refuses is refused.
TEST(StrictTest, StrictRefusesWhatPyTorchRefuses) {
  for (const Case& c : AskPython("strict")) {
    SCOPED_TRACE(c.name);
    ServerFixture fixture;
    Save(fixture, c);
    const std::shared_ptr<torch::nn::Module> module = Make(c.module);
    const LoadResult result =
        LoadCheckpoint(fixture.client(), support::kLatest,
                       {.module = module.get(), .non_persistent = {"scratch"}});
    const bool fits = c.missing.empty() && c.unexpected.empty() && c.mismatch.empty();
    EXPECT_EQ(result.status.ok(), fits) << result.status;
  }
}

}  // namespace
}  // namespace modelstore::interop
