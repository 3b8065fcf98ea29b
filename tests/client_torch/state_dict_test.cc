// Keys, order and strictness are PyTorch's. The lists were taken from PyTorch 1.13
// with the same modules.
#include <gmock/gmock.h>

#include "tests/client_torch/server_fixture.h"
#include "tests/client_torch/tensors.h"

namespace modelstore {
namespace {

using support::At;
using support::BytesOf;
using support::ServerFixture;
using support::Tree;
using ::testing::ElementsAre;
using ::testing::ElementsAreArray;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

// What is stored where a checkpoint fits the Tree in part only.
StateDict PartlyFitting() {
  StateDict stored;
  for (const char* key :
       {"zz", "child.deep.more", "bn.unknown.x", "other.weight", "child.extra", "aa"}) {
    stored.emplace_back(key, torch::zeros({1}));
  }
  stored.emplace_back("fc.weight", torch::full({3, 2}, 5.0));
  stored.emplace_back("child.w", torch::full({2}, 6.0));
  stored.emplace_back("bn.running_mean", torch::full({3}, 7.0));
  return stored;
}

TEST(StateDictTest, KeysComeInPyTorchsOrder) {
  Tree tree;
  EXPECT_THAT(
      support::KeysOf(GetStateDict(*tree)),
      ElementsAre("scale", "steps", "child.w", "child.table", "child.deep.weight",
                  "child.deep.bias", "fc.weight", "fc.bias", "bn.weight", "bn.bias",
                  "bn.running_mean", "bn.running_var", "bn.num_batches_tracked"));
}

TEST(StateDictTest, TheStoredTableKeepsOrderRolesAndRequiresGrad) {
  ServerFixture fixture;
  Tree tree;
  tree->fc->weight.set_requires_grad(false);
  auto saved = SaveCheckpoint(fixture.client(), "models/m", {.module = tree.get()});
  ASSERT_TRUE(saved.ok()) << saved.status();
  auto tensors = fixture.client().ListTensors(saved->name);
  ASSERT_TRUE(tensors.ok()) << tensors.status();
  std::vector<std::string> keys;
  for (const TensorInfo& info : *tensors) {
    keys.push_back(info.key);
    const bool buffer = info.key == "steps" || info.key == "child.table" ||
                        info.key.rfind("bn.running", 0) == 0 ||
                        info.key == "bn.num_batches_tracked";
    EXPECT_EQ(info.role, buffer ? TensorRole::kBuffer : TensorRole::kParameter)
        << info.key;
    EXPECT_EQ(info.requires_grad, !buffer && info.key != "fc.weight") << info.key;
  }
  EXPECT_THAT(keys, ElementsAreArray(support::KeysOf(GetStateDict(*tree))));
}

TEST(StateDictTest, MetadataReportsPyTorchsModuleVersions) {
  ServerFixture fixture;
  Tree tree;
  auto saved = SaveCheckpoint(fixture.client(), "models/m", {.module = tree.get()});
  ASSERT_TRUE(saved.ok()) << saved.status();
  auto plan = fixture.client().PlanLoad(saved->name);
  ASSERT_TRUE(plan.ok()) << plan.status();
  ASSERT_EQ(plan->sections().size(), 1u);
  const auto version = [](int n) { return Value::Dict({{"version", n}}); };
  EXPECT_EQ(plan->sections()[0].metadata, Value::Dict({{"", version(1)},
                                                       {"child", version(1)},
                                                       {"child.deep", version(1)},
                                                       {"fc", version(1)},
                                                       {"bn", version(2)}}))
      << plan->sections()[0].metadata.ToString();
}

TEST(StateDictTest, StrictRefusesAndListsKeysInPyTorchsOrder) {
  ServerFixture fixture;
  const StateDict stored = PartlyFitting();
  ASSERT_TRUE(SaveCheckpoint(fixture.client(), "models/m", {.state_dict = &stored}).ok());
  Tree tree;
  const StateDict live = GetStateDict(*tree);
  std::vector<std::string> before;
  std::vector<int64_t> versions;
  for (const auto& [key, tensor] : live) {
    before.push_back(BytesOf(tensor));
    versions.push_back(tensor._version());
  }

  LoadResult result = LoadCheckpoint(fixture.client(), "models/m/checkpoints/latest",
                                     {.module = tree.get()});
  EXPECT_EQ(result.status.code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_THAT(std::string(result.status.message()), HasSubstr("\"child.extra\""));
  EXPECT_THAT(
      result.report.missing,
      ElementsAre("scale", "steps", "child.table", "child.deep.weight", "child.deep.bias",
                  "fc.bias", "bn.weight", "bn.bias", "bn.running_var"));
  // A state dict without `_metadata` may be of a time before this buffer.
  EXPECT_THAT(result.report.skipped, ElementsAre("bn.num_batches_tracked"));
  EXPECT_THAT(result.report.unexpected,
              ElementsAre("zz", "other.weight", "aa", "child.extra", "child.deep.more",
                          "bn.unknown.x"));
  for (size_t i = 0; i < live.size(); ++i) {
    EXPECT_TRUE(BytesOf(live[i].second) == before[i]) << live[i].first << " changed";
    EXPECT_EQ(live[i].second._version(), versions[i]) << live[i].first;
  }
}

TEST(StateDictTest, WithoutStrictWhatFitsIsLoadedAndTheRestReported) {
  ServerFixture fixture;
  const StateDict stored = PartlyFitting();
  ASSERT_TRUE(SaveCheckpoint(fixture.client(), "models/m", {.state_dict = &stored}).ok());
  Tree tree;
  const torch::Tensor bias = tree->fc->bias.detach().clone();
  LoadResult result = LoadCheckpoint(fixture.client(), "models/m/checkpoints/latest",
                                     {.module = tree.get(), .strict = false});
  ASSERT_TRUE(result.status.ok()) << result.status;
  EXPECT_EQ(result.report.missing.size(), 9u);
  EXPECT_EQ(result.report.unexpected.size(), 6u);
  EXPECT_TRUE(tree->fc->weight.eq(5).all().item<bool>());
  EXPECT_TRUE(tree->child->w.eq(6).all().item<bool>());
  EXPECT_TRUE(tree->fc->bias.equal(bias));
}

TEST(StateDictTest, EachKindHasAPolicyOfItsOwn) {
  ServerFixture fixture;
  const StateDict stored = PartlyFitting();
  ASSERT_TRUE(SaveCheckpoint(fixture.client(), "models/m", {.state_dict = &stored}).ok());
  const std::string name = "models/m/checkpoints/1";
  Tree tree;
  LoadResult fails = LoadCheckpoint(fixture.client(), name,
                                    {.module = tree.get(), .missing = Policy::kIgnore});
  EXPECT_FALSE(fails.status.ok());
  EXPECT_THAT(fails.report.missing, IsEmpty());
  LoadResult passes = LoadCheckpoint(
      fixture.client(), name,
      {.module = tree.get(), .missing = Policy::kIgnore, .unexpected = Policy::kReport});
  EXPECT_TRUE(passes.status.ok()) << passes.status;
  EXPECT_EQ(passes.report.unexpected.size(), 6u);
}

TEST(StateDictTest, KeysBelowATensorsNameAreUnexpected) {
  ServerFixture fixture;
  const StateDict stored = {{"weight", torch::zeros({1, 1})},
                            {"weight.old", torch::zeros({1})}};
  ASSERT_TRUE(SaveCheckpoint(fixture.client(), "models/m", {.state_dict = &stored}).ok());
  torch::nn::Linear linear(torch::nn::LinearOptions(1, 1).bias(false));
  LoadResult result = LoadCheckpoint(fixture.client(), "models/m/checkpoints/latest",
                                     {.module = linear.get()});
  EXPECT_THAT(result.report.unexpected, ElementsAre("weight.old"));
  EXPECT_FALSE(result.status.ok());
}

TEST(StateDictTest, FilteredKeysAreSkippedNotMissing) {
  ServerFixture fixture;
  Tree source, target;
  ASSERT_TRUE(
      SaveCheckpoint(fixture.client(), "models/m", {.module = source.get()}).ok());
  LoadResult result = LoadCheckpoint(fixture.client(), "models/m/checkpoints/latest",
                                     {.module = target.get()},
                                     {.selection = {.exclude = {"model:fc\\..*"}}});
  ASSERT_TRUE(result.status.ok()) << result.status;
  EXPECT_THAT(result.report.skipped, ElementsAre("fc.weight", "fc.bias"));
  EXPECT_TRUE(target->child->w.equal(source->child->w));
  EXPECT_FALSE(target->fc->weight.equal(source->fc->weight));
}

}  // namespace
}  // namespace modelstore
