// Loads of a part: only its bytes cross the wire, and what is asked for wrongly is
// told by its field.
#include <gmock/gmock.h>

#include <atomic>

#include "tests/client_torch/server_fixture.h"
#include "tests/client_torch/tensors.h"

namespace modelstore {
namespace {

using support::At;
using support::ServerFixture;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

constexpr int64_t kRows = 1000, kColumns = 1024;
constexpr int64_t kTable = kRows * kColumns * 4;

// 4 MiB of embedding, 4 MiB and a little of a layer, twice that of momentum and as
// much of another section.
class PartialLoadTest : public ::testing::Test {
 protected:
  PartialLoadTest()
      : embed_(torch::nn::EmbeddingOptions(kRows, kColumns)), fc_(kColumns, kRows) {
    net_->register_module("embed", embed_);
    net_->register_module("fc", fc_);
    for (torch::Tensor& p : net_->parameters()) p.mutable_grad() = torch::rand_like(p);
    torch::optim::SGD sgd(net_->parameters(),
                          torch::optim::SGDOptions(0.1).momentum(0.9));
    sgd.step();
    SaveArgs args = {.module = net_.get(), .optimizer = &sgd};
    args.sections["extra"] = {Value::Dict({{"table", Value::Tensor("table")}}),
                              {{"table", torch::rand({kRows, kColumns})}}};
    auto saved = SaveCheckpoint(fixture_.client(), "models/m", args);
    EXPECT_TRUE(saved.ok()) << saved.status();
  }

  // What the client received from streams while loading.
  int64_t BytesOfLoad(const LoadArgs& args, const LoadOptions& options = {}) {
    std::atomic<int64_t> received{0};
    fixture_.connection().SetFaults({.tamper = [&](std::string* message) {
      received += static_cast<int64_t>(message->size());
    }});
    const LoadResult result =
        LoadCheckpoint(fixture_.client(), support::kLatest, args, options);
    fixture_.connection().SetFaults({});
    EXPECT_TRUE(result.status.ok()) << result.status;
    return received;
  }
  // Five per cent above what was asked for, and room for the plan.
  static void ExpectNoMoreThan(int64_t asked, int64_t received) {
    EXPECT_GE(received, asked);
    EXPECT_LE(received, asked + asked / 20 + 4096) << "asked for " << asked;
  }

  ServerFixture fixture_;
  std::shared_ptr<torch::nn::Module> net_ = std::make_shared<torch::nn::Module>();
  torch::nn::Embedding embed_;
  torch::nn::Linear fc_;
};

TEST_F(PartialLoadTest, LoadingOnlyTheModelKeepsTheOptimizer) {
  StateDict fresh;
  ExpectNoMoreThan(2 * kTable + kRows * 4, BytesOfLoad({.state_dict = &fresh}));
  EXPECT_THAT(support::KeysOf(fresh),
              ElementsAre("embed.weight", "fc.weight", "fc.bias"));
}

TEST_F(PartialLoadTest, OfASectionOnlyIt) {
  ExpectNoMoreThan(kTable, BytesOfLoad({}, {.selection = {.sections = {"extra"}}}));
}

TEST_F(PartialLoadTest, OfPatternsOnlyWhatTheyTake) {
  StateDict fresh;
  const LoadArgs args = {.state_dict = &fresh};
  LoadOptions options = {.selection = {.include = {"fc\\..*"}}};
  ExpectNoMoreThan(kTable + kRows * 4, BytesOfLoad(args, options));
  EXPECT_THAT(support::KeysOf(fresh), ElementsAre("fc.weight", "fc.bias"));
  options.selection.exclude = {".*\\.weight"};
  ExpectNoMoreThan(kRows * 4, BytesOfLoad(args, options));
  EXPECT_THAT(support::KeysOf(fresh), ElementsAre("fc.bias"));
}

TEST_F(PartialLoadTest, OfKeysOnlyThose) {
  StateDict fresh;
  const LoadArgs args = {.state_dict = &fresh};
  LoadOptions options = {.selection = {.keys = {"fc.weight", "model:fc.bias"}}};
  ExpectNoMoreThan(kTable + kRows * 4, BytesOfLoad(args, options));
  EXPECT_THAT(support::KeysOf(fresh), ElementsAre("fc.weight", "fc.bias"));
  options.selection.keys = {"fc.*"};
  const LoadResult refused =
      LoadCheckpoint(fixture_.client(), support::kLatest, args, options);
  EXPECT_EQ(refused.status.code(), absl::StatusCode::kNotFound) << refused.status;
  EXPECT_THAT(std::string(refused.status.message()), HasSubstr("model:fc.*"));
}

TEST_F(PartialLoadTest, OfAModuleWhatTheKeysLeaveOutIsSkippedAndStays) {
  auto net = std::make_shared<torch::nn::Module>();
  torch::nn::Linear fc(kColumns, kRows);
  net->register_module(
      "embed", torch::nn::Embedding(torch::nn::EmbeddingOptions(kRows, kColumns)));
  net->register_module("fc", fc);
  const torch::Tensor bias = fc->bias.detach().clone();
  const LoadResult result =
      LoadCheckpoint(fixture_.client(), support::kLatest, {.module = net.get()},
                     {.selection = {.keys = {"fc.weight"}}});
  ASSERT_TRUE(result.status.ok()) << result.status;
  EXPECT_THAT(result.report.skipped, ElementsAre("embed.weight", "fc.bias"));
  EXPECT_TRUE(fc->weight.equal(fc_->weight));
  EXPECT_TRUE(fc->bias.equal(bias));
}

TEST_F(PartialLoadTest, OfRowsOnlyThose) {
  StateDict fresh;
  const LoadArgs args = {.state_dict = &fresh};
  const LoadOptions options = {.selection = {.keys = {"embed.weight"}},
                               .slices = {{"embed.weight", 450, 550}}};
  ExpectNoMoreThan(kTable / 10, BytesOfLoad(args, options));
  support::ExpectSameBits(At(fresh, "embed.weight"), embed_->weight.slice(0, 450, 550),
                          "rows");
}

// A module that has no place for them: unexpected keys are listed and not fetched.
TEST_F(PartialLoadTest, WhatTheModuleHasNoPlaceForIsNotFetched) {
  auto headless = std::make_shared<torch::nn::Module>();
  headless->register_module(
      "embed", torch::nn::Embedding(torch::nn::EmbeddingOptions(kRows, kColumns)));
  ExpectNoMoreThan(kTable, BytesOfLoad({.module = headless.get(), .strict = false}));
}

TEST_F(PartialLoadTest, WhatIsAskedForWronglyIsReportedByItsField) {
  const auto refusal = [&](absl::StatusCode code, auto change) {
    StateDict fresh;
    LoadOptions options;
    change(options);
    const LoadResult result = LoadCheckpoint(fixture_.client(), support::kLatest,
                                             {.state_dict = &fresh}, options);
    EXPECT_EQ(result.status.code(), code) << result.status;
    EXPECT_THAT(fresh, IsEmpty());
    return std::string(result.status.message());
  };
  const auto invalid = absl::StatusCode::kInvalidArgument;
  const auto range = absl::StatusCode::kOutOfRange;
  EXPECT_THAT(refusal(invalid,
                      [](LoadOptions& o) {
                        o.selection.include = {"a", "("};
                      }),
              HasSubstr("include_patterns[1]"));
  EXPECT_THAT(refusal(invalid, [](LoadOptions& o) { o.selection.exclude = {"*"}; }),
              HasSubstr("exclude_patterns[0]"));
  EXPECT_THAT(refusal(invalid, [](LoadOptions& o) { o.device = "tpu:0"; }),
              HasSubstr("device: `tpu:0`"));
  EXPECT_THAT(refusal(invalid, [](LoadOptions& o) { o.device = "cuda:-1"; }),
              HasSubstr("device: `cuda:-1`"));
  EXPECT_THAT(refusal(invalid,
                      [](LoadOptions& o) {
                        o.slices = {{"fc.bias", -1, 3}};
                      }),
              HasSubstr("slices[0]"));
  EXPECT_THAT(refusal(invalid,
                      [](LoadOptions& o) {
                        o.slices = {{"fc.bias", 3, 2}};
                      }),
              HasSubstr("slices[0]"));
  EXPECT_THAT(
      refusal(range,
              [](LoadOptions& o) {
                o.slices = {{"fc.bias", 0, 1}, {"embed.weight", 0, kRows + 1}};
              }),
      HasSubstr("slices[1]: rows [0, 1001) of tensor model:embed.weight, which has "
                "1000"));
  EXPECT_THAT(refusal(invalid,
                      [](LoadOptions& o) {
                        o.selection.include = {"fc.bias"};
                        o.slices = {{"fc.weight", 0, 1}};
                      }),
              HasSubstr("slices: model:fc.weight is not among the selected"));
  EXPECT_THAT(refusal(absl::StatusCode::kNotFound,
                      [](LoadOptions& o) { o.selection.sections = {"optimiser"}; }),
              HasSubstr("has no section `optimiser`"));
  EXPECT_THAT(refusal(invalid, [](LoadOptions& o) { o.target_dtype = DType::kInt32; }),
              HasSubstr("target_dtype"));
}

}  // namespace
}  // namespace modelstore
