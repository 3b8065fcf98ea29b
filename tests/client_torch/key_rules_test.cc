// Checkpoints whose names are not those of the module at hand: of DataParallel, of a
// model since renamed; and buffers that are no part of the state.
#include <gmock/gmock.h>

#include "tests/client_torch/server_fixture.h"
#include "tests/client_torch/tensors.h"

namespace modelstore {
namespace {

using support::At;
using support::BytesOf;
using support::ServerFixture;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::Pair;

struct BlockImpl : torch::nn::Module {
  BlockImpl() {
    fc = register_module("fc", torch::nn::Linear(2, 3));
    bn = register_module("bn", torch::nn::BatchNorm1d(3));
  }
  torch::nn::Linear fc{nullptr};
  torch::nn::BatchNorm1d bn{nullptr};
};
TORCH_MODULE(Block);

// What DataParallel's state_dict() is: that of the model it holds as `module`.
struct ParallelImpl : torch::nn::Module {
  ParallelImpl() { module = register_module("module", Block()); }
  Block module{nullptr};
};
TORCH_MODULE(Parallel);

void Fill(torch::nn::Module& module, double value) {
  const torch::NoGradGuard no_grad;
  for (auto& p : module.parameters()) p.fill_(value++);
}

std::string Message(const LoadResult& result) {
  return std::string(result.status.message());
}

TEST(KeyRulesTest, ACheckpointOfDataParallelGoesIntoABareModule) {
  ServerFixture fixture;
  Parallel parallel;
  Fill(*parallel, 1);
  ASSERT_TRUE(
      SaveCheckpoint(fixture.client(), "models/m", {.module = parallel.get()}).ok());
  Block bare;
  LoadResult refused =
      LoadCheckpoint(fixture.client(), support::kLatest, {.module = bare.get()});
  EXPECT_EQ(refused.status.code(), absl::StatusCode::kFailedPrecondition);
  LoadResult result = LoadCheckpoint(fixture.client(), support::kLatest,
                                     {.module = bare.get(), .strip_prefix = "module."});
  ASSERT_TRUE(result.status.ok()) << result.status;
  EXPECT_THAT(result.report.missing, IsEmpty());
  EXPECT_THAT(result.report.unexpected, IsEmpty());
  EXPECT_EQ(result.report.renamed.size(), 7u);
  EXPECT_THAT(result.report.renamed[0], Pair("module.fc.weight", "fc.weight"));
  EXPECT_THAT(result.report.ToString(),
              HasSubstr("renamed: module.fc.weight is fc.weight here"));
  EXPECT_EQ(BytesOf(bare->fc->bias), BytesOf(parallel->module->fc->bias));
}

TEST(KeyRulesTest, ACheckpointOfABareModuleGoesIntoDataParallel) {
  ServerFixture fixture;
  Block bare;
  Fill(*bare, 1);
  ASSERT_TRUE(SaveCheckpoint(fixture.client(), "models/m", {.module = bare.get()}).ok());
  Parallel parallel;
  LoadResult result = LoadCheckpoint(fixture.client(), support::kLatest,
                                     {.module = parallel.get(), .add_prefix = "module."});
  ASSERT_TRUE(result.status.ok()) << result.status;
  EXPECT_EQ(BytesOf(bare->fc->bias), BytesOf(parallel->module->fc->bias));
}

TEST(KeyRulesTest, TheOptimizerFollowsTheNewNames) {
  ServerFixture fixture;
  Parallel parallel;
  torch::optim::SGD saved(parallel->parameters(),
                          torch::optim::SGDOptions(0.1).momentum(0.9));
  parallel->module
      ->bn(parallel->module->fc(torch::ones({4, 2}) * torch::arange(4).view({4, 1})))
      .pow(3)
      .sum()
      .backward();
  saved.step();
  ASSERT_TRUE(SaveCheckpoint(fixture.client(), "models/m",
                             {.module = parallel.get(), .optimizer = &saved})
                  .ok());
  Block bare;
  torch::optim::SGD other(bare->parameters(), torch::optim::SGDOptions(0.2));
  LoadResult result = LoadCheckpoint(
      fixture.client(), support::kLatest,
      {.module = bare.get(), .optimizer = &other, .strip_prefix = "module."});
  ASSERT_TRUE(result.status.ok()) << result.status;
  EXPECT_TRUE(result.report.inferred.empty());
  EXPECT_EQ(other.state().size(), saved.state().size());
}

TEST(KeyRulesTest, APrefixThatOnlySomeKeysBearIsAnErrorThatNamesTheOthers) {
  ServerFixture fixture;
  StateDict stored = {{"module.a", torch::zeros({1})}, {"b", torch::zeros({1})}};
  ASSERT_TRUE(SaveCheckpoint(fixture.client(), "models/m", {.state_dict = &stored}).ok());
  StateDict fresh;
  LoadArgs args = {.state_dict = &fresh, .strip_prefix = "module."};
  LoadResult refused = LoadCheckpoint(fixture.client(), support::kLatest, args);
  EXPECT_EQ(refused.status.code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_THAT(Message(refused), HasSubstr("not that of every stored key: \"b\""));
  // As it says: without those.
  LoadResult result = LoadCheckpoint(fixture.client(), support::kLatest, args,
                                     {.selection = {.exclude = {"b"}}});
  ASSERT_TRUE(result.status.ok()) << result.status;
  EXPECT_THAT(support::KeysOf(fresh), ElementsAre("a"));
}

TEST(KeyRulesTest, TheFirstRuleThatMatchesTheWholeKeyRenamesIt) {
  ServerFixture fixture;
  StateDict stored = {{"gamma", torch::full({1}, 1.0)},
                      {"layer.0.gamma", torch::full({1}, 2.0)},
                      {"layer.1.gamma", torch::full({1}, 3.0)},
                      {"head", torch::full({1}, 4.0)}};
  ASSERT_TRUE(SaveCheckpoint(fixture.client(), "models/m", {.state_dict = &stored}).ok());
  StateDict fresh;
  LoadArgs args = {.state_dict = &fresh,
                   .renames = {{R"(layer\.(\d+)\.(gamma|g))", R"(blocks.\1.weight)"},
                               {R"(layer\..*)", "never"},
                               {"hea", "part of a key is no match"},
                               {"a|head", "classifier"}}};
  LoadResult result = LoadCheckpoint(fixture.client(), support::kLatest, args);
  ASSERT_TRUE(result.status.ok()) << result.status;
  EXPECT_THAT(support::KeysOf(fresh),
              ElementsAre("gamma", "blocks.0.weight", "blocks.1.weight", "classifier"));
  EXPECT_EQ(At(fresh, "blocks.1.weight").item<float>(), 3);
  EXPECT_THAT(result.report.renamed, ElementsAre(Pair("layer.0.gamma", "blocks.0.weight"),
                                                 Pair("layer.1.gamma", "blocks.1.weight"),
                                                 Pair("head", "classifier")));
}

TEST(KeyRulesTest, TwoKeysThatWouldBeOneAreRefusedByName) {
  ServerFixture fixture;
  StateDict stored = {{"a.w", torch::zeros({1})}, {"b.w", torch::zeros({1})}};
  ASSERT_TRUE(SaveCheckpoint(fixture.client(), "models/m", {.state_dict = &stored}).ok());
  StateDict fresh;
  LoadResult result =
      LoadCheckpoint(fixture.client(), support::kLatest,
                     {.state_dict = &fresh, .renames = {{R"([ab]\.w)", "c.w"}}});
  EXPECT_EQ(result.status.code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_THAT(Message(result), HasSubstr("\"a.w\" and \"b.w\" would both be \"c.w\""));
  EXPECT_THAT(fresh, IsEmpty());
}

TEST(KeyRulesTest, ARuleThatDoesNotCompileIsRefusedByItsField) {
  ServerFixture fixture;
  StateDict fresh;
  const auto refusal = [&](LoadArgs args) {
    args.state_dict = &fresh;
    const LoadResult result = LoadCheckpoint(fixture.client(), "models/m", args);
    EXPECT_EQ(result.status.code(), absl::StatusCode::kInvalidArgument);
    return Message(result);
  };
  EXPECT_THAT(refusal({.renames = {{"a", "b"}, {"(", "b"}}}), HasSubstr("renames[1]"));
  EXPECT_THAT(refusal({.renames = {{"a)(b", "b"}}}), HasSubstr("renames[0]"));
  EXPECT_THAT(refusal({.renames = {{"(a)", R"(\2)"}}}), HasSubstr("renames[0]"));
  EXPECT_THAT(refusal({.non_persistent = {"["}}), HasSubstr("non_persistent[0]"));
  Block net;
  EXPECT_THAT(std::string(SaveCheckpoint(fixture.client(), "models/m",
                                         {.module = net.get(), .non_persistent = {"["}})
                              .status()
                              .message()),
              HasSubstr("non_persistent[0]"));
}

TEST(KeyRulesTest, ABufferThatIsNotPersistentIsNeitherStoredNorMissing) {
  ServerFixture fixture;
  Block net;
  const std::vector<std::string> counts = {R"(.*\.num_batches_tracked)"};
  auto saved = SaveCheckpoint(fixture.client(), "models/m",
                              {.module = net.get(), .non_persistent = counts});
  ASSERT_TRUE(saved.ok()) << saved.status();
  std::vector<std::string> keys;
  const auto tensors = fixture.client().ListTensors(saved->name);
  ASSERT_TRUE(tensors.ok()) << tensors.status();
  for (const TensorInfo& info : *tensors) keys.push_back(info.key);
  EXPECT_THAT(keys, ElementsAre("fc.weight", "fc.bias", "bn.weight", "bn.bias",
                                "bn.running_mean", "bn.running_var"));
  Block other;
  other->bn->num_batches_tracked.fill_(7);
  LoadResult result = LoadCheckpoint(fixture.client(), support::kLatest,
                                     {.module = other.get(), .non_persistent = counts});
  ASSERT_TRUE(result.status.ok()) << result.status;
  EXPECT_THAT(result.report.missing, IsEmpty());
  EXPECT_EQ(other->bn->num_batches_tracked.item<int64_t>(), 7);
  // Python's, where such a buffer is stored after all: unexpected.
  ASSERT_TRUE(SaveCheckpoint(fixture.client(), "models/m", {.module = net.get()}).ok());
  LoadResult strict = LoadCheckpoint(fixture.client(), support::kLatest,
                                     {.module = other.get(), .non_persistent = counts});
  EXPECT_EQ(strict.status.code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_THAT(strict.report.unexpected, ElementsAre("bn.num_batches_tracked"));
  EXPECT_EQ(other->bn->num_batches_tracked.item<int64_t>(), 7);
}

TEST(KeyRulesTest, AParameterIsStateWhateverThePatternSays) {
  ServerFixture fixture;
  Block net;
  auto saved = SaveCheckpoint(fixture.client(), "models/m",
                              {.module = net.get(), .non_persistent = {".*"}});
  ASSERT_TRUE(saved.ok()) << saved.status();
  EXPECT_EQ(fixture.client().ListTensors(saved->name)->size(), 4u);
}

}  // namespace
}  // namespace modelstore
