// A transfer that breaks off: the report tells of each tensor what it holds.
#include <gmock/gmock.h>

#include <algorithm>

#include "tests/client_torch/server_fixture.h"
#include "tests/client_torch/tensors.h"

namespace modelstore {
namespace {

using support::At;
using support::Bag;
using support::BytesOf;
using support::ServerFixture;
using ::testing::HasSubstr;

// Some of several messages, some that travel together in one.
StateDict Values(float value) {
  StateDict tensors;
  for (int i = 0; i < 6; ++i) {
    tensors.emplace_back("large" + std::to_string(i),
                         torch::full({900'000 + i, 2}, value));
    tensors.emplace_back("small" + std::to_string(i), torch::full({3 + i}, value));
    tensors.emplace_back("strided" + std::to_string(i), torch::full({3, 2}, value).t());
  }
  return tensors;
}

bool All(const torch::Tensor& tensor, float value) {
  return tensor.eq(value).all().item<bool>();
}

class TransferCutTest : public ::testing::TestWithParam<bool> {};

TEST_P(TransferCutTest, AtEveryMessageTheReportIsTrue) {
  const bool atomic = GetParam();
  ServerFixture fixture(ServerFixture::NoRetries());
  const StateDict stored = Values(2);
  ASSERT_TRUE(SaveCheckpoint(fixture.client(), "models/m", {.state_dict = &stored}).ok());
  int cuts = 0, mixed = 0;
  for (int64_t at = 1;; ++at) {
    ASSERT_LT(at, 200) << "the load never succeeds";
    const StateDict live = Values(1);
    Bag bag(live);
    fixture.connection().SetFaults({.cut_at = at, .cut_every = 1});
    LoadResult result = LoadCheckpoint(fixture.client(), "models/m/checkpoints/1",
                                       {.module = bag.get(), .atomic = atomic});
    fixture.connection().SetFaults({});
    if (result.status.ok()) {
      for (const auto& [key, tensor] : live) EXPECT_TRUE(All(tensor, 2)) << key;
      break;
    }
    ++cuts;
    EXPECT_EQ(result.status.code(), absl::StatusCode::kUnavailable) << result.status;
    const LoadReport& report = result.report;
    for (const std::string& key : report.loaded) {
      EXPECT_TRUE(All(At(live, key), 2)) << key << " is not new, cut at " << at;
      EXPECT_GT(At(live, key)._version(), 0) << key;
    }
    for (const std::string& key : report.untouched) {
      EXPECT_TRUE(All(At(live, key), 1)) << key << " is not old, cut at " << at;
      EXPECT_EQ(At(live, key)._version(), 0) << key;
    }
    for (const std::string& key : report.undefined) {
      EXPECT_GT(At(live, key)._version(), 0) << key;
      EXPECT_THAT(std::string(result.status.message()), HasSubstr(key));
    }
    if (atomic) {
      EXPECT_TRUE(report.loaded.empty() && report.undefined.empty());
    }
    const size_t told =
        report.loaded.size() + report.untouched.size() + report.undefined.size();
    // Cut while planning, nothing is known of single tensors and none is touched.
    EXPECT_TRUE(told == live.size() || told == 0) << told << ", cut at " << at;
    if (told == 0) {
      for (const auto& [key, tensor] : live) EXPECT_TRUE(All(tensor, 1)) << key;
    }
    mixed += !report.loaded.empty() && !report.untouched.empty();
  }
  std::printf("loads cut: %d, of them with new and old tensors: %d\n", cuts, mixed);
  EXPECT_GE(cuts, 6);
  if (!atomic) {
    EXPECT_GE(mixed, 4);
  }
}

INSTANTIATE_TEST_SUITE_P(DirectAndAtomic, TransferCutTest, ::testing::Bool());

TEST(TransferCut, WithRetriesACutLoadIsResumedAndEqual) {
  ServerFixture fixture;
  const StateDict stored = Values(2);
  ASSERT_TRUE(SaveCheckpoint(fixture.client(), "models/m", {.state_dict = &stored}).ok());
  for (int64_t at = 1; at <= 12; ++at) {
    const StateDict live = Values(1);
    Bag bag(live);
    fixture.connection().SetFaults({.cut_at = at});
    LoadResult result = LoadCheckpoint(fixture.client(), "models/m/checkpoints/latest",
                                       {.module = bag.get()});
    ASSERT_TRUE(result.status.ok()) << result.status;
    for (const auto& [key, tensor] : live) EXPECT_TRUE(All(tensor, 2)) << key;
  }
}

TEST(TransferCut, AFailedLoadDoesNotChangeOptimizerOrGenerator) {
  ServerFixture fixture(ServerFixture::NoRetries());
  torch::nn::Linear net(400, 800);
  torch::optim::SGD sgd(net->parameters(), torch::optim::SGDOptions(0.1).momentum(0.9));
  net->forward(torch::rand({1, 400})).sum().backward();
  sgd.step();
  ASSERT_TRUE(SaveCheckpoint(fixture.client(), "models/m",
                             {.module = net.get(), .optimizer = &sgd, .rng = true})
                  .ok());
  const auto& state =
      static_cast<torch::optim::SGDParamState&>(*sgd.state().begin()->second);
  const torch::Tensor buffer = state.momentum_buffer();
  const std::string before = BytesOf(buffer), generator = BytesOf(GetCpuRngState());
  int failed = 0;
  for (int64_t at = 1; at < 100; ++at) {
    fixture.connection().SetFaults({.cut_at = at, .cut_every = 1});
    LoadResult result =
        LoadCheckpoint(fixture.client(), "models/m/checkpoints/1",
                       {.module = net.get(), .optimizer = &sgd, .rng = true});
    fixture.connection().SetFaults({});
    if (result.status.ok()) break;
    ++failed;
    const auto& now =
        static_cast<torch::optim::SGDParamState&>(*sgd.state().begin()->second);
    EXPECT_TRUE(now.momentum_buffer().is_same(buffer));
    EXPECT_TRUE(BytesOf(buffer) == before);
    EXPECT_TRUE(BytesOf(GetCpuRngState()) == generator);
  }
  EXPECT_GE(failed, 3);
}

TEST(TransferDeadlineTest, ADeadlineEndsASaveAndALoadAndNothingHasChanged) {
  ServerFixture fixture;
  const StateDict stored = Values(2);
  ASSERT_TRUE(SaveCheckpoint(fixture.client(), "models/m", {.state_dict = &stored}).ok());
  const StateDict live = Values(1);
  Bag bag(live);
  fixture.connection().Pause();
  const auto soon = [] { return After(std::chrono::milliseconds(50)); };
  const absl::Status saved = SaveCheckpoint(fixture.client(), "models/m",
                                            {.state_dict = &live}, {.deadline = soon()})
                                 .status();
  EXPECT_EQ(saved.code(), absl::StatusCode::kDeadlineExceeded) << saved;
  const LoadResult loaded = LoadCheckpoint(fixture.client(), support::kLatest,
                                           {.module = bag.get()}, {.deadline = soon()});
  EXPECT_EQ(loaded.status.code(), absl::StatusCode::kDeadlineExceeded) << loaded.status;
  fixture.connection().Resume();
  for (const auto& [key, tensor] : live) EXPECT_TRUE(All(tensor, 1)) << key;
  EXPECT_EQ(fixture.client().GetCheckpoint(support::kLatest)->version, 1);
}

}  // namespace
}  // namespace modelstore
