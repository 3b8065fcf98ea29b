// Asynchronous saves: the values are those at the call, failures reach the caller.
#include <gmock/gmock.h>

#include "client/torch/optimizer_table.h"
#include "tests/client_torch/server_fixture.h"
#include "tests/client_torch/tensors.h"

namespace modelstore {
namespace {

using support::ServerFixture;
using ::testing::HasSubstr;

Deadline TestDeadline() { return After(std::chrono::seconds(60)); }

TEST(SaveAsyncTest, ChangesRightAfterStagedAreNotStored) {
  ServerFixture fixture;
  torch::nn::Linear net(700, 700);
  torch::optim::Adam adam(net->parameters(), torch::optim::AdamOptions(0.1));
  for (int round = 1; round <= 5; ++round) {
    net->zero_grad();
    net->forward(torch::rand({2, 700})).sum().backward();
    adam.step();
    StateDict want;
    for (const auto& [key, tensor] : GetStateDict(*net)) {
      want.emplace_back(key, tensor.detach().clone());
    }
    const auto& state = static_cast<torch::optim::AdamParamState&>(
        *adam.state().at(torch_internal::StateKey(net->weight)));
    const torch::Tensor average = state.exp_avg().clone();
    const torch::Tensor generator = GetCpuRngState();
    SaveHandle handle = SaveCheckpointAsync(fixture.client(), "models/m",
                                            {.module = net.get(),
                                             .optimizer = &adam,
                                             .metadata = {.epoch = round},
                                             .rng = true});
    ASSERT_TRUE(handle.Staged(TestDeadline()).ok());
    {
      const torch::NoGradGuard no_grad;
      for (torch::Tensor& p : net->parameters()) p.fill_(-1);
      state.exp_avg().fill_(-1);
      (void)torch::rand({10});
    }
    adam.step();
    auto saved = handle.Durable(TestDeadline());
    ASSERT_TRUE(saved.ok()) << saved.status();
    LoadResult result =
        LoadCheckpoint(fixture.client(), saved->name, {},
                       {.selection = {.sections = {"model", "optimizer", "rng"}}});
    ASSERT_TRUE(result.status.ok()) << result.status;
    for (const auto& [key, tensor] : want) {
      support::ExpectSameBits(result.sections.at("model").tensors.at(key), tensor, key);
    }
    const auto& optimizer = result.sections.at("optimizer").tensors;
    support::ExpectSameBits(optimizer.at("state/0/exp_avg"), average, "exp_avg");
    support::ExpectSameBits(result.sections.at("rng").tensors.at("cpu"), generator,
                            "rng");
    const int steps_before = 2 * (round - 1);
    EXPECT_EQ(optimizer.at("state/0/step").item<float>(), steps_before + 1);
  }
}

TEST(SaveAsyncTest, WhatTheCallerDropsIsStillSaved) {
  ServerFixture fixture;
  SaveHandle handle = [&] {
    torch::nn::Linear net(600, 600);
    const torch::NoGradGuard no_grad;
    net->weight.fill_(3);
    return SaveCheckpointAsync(fixture.client(), "models/m", {.module = net.get()});
  }();
  auto saved = handle.Durable(TestDeadline());
  ASSERT_TRUE(saved.ok()) << saved.status();
  StateDict loaded;
  ASSERT_TRUE(
      LoadCheckpoint(fixture.client(), saved->name, {.state_dict = &loaded}).status.ok());
  EXPECT_TRUE(support::At(loaded, "weight").eq(3).all().item<bool>());
}

TEST(SaveAsyncTest, AFailedBackgroundSaveIsReportedByEveryCall) {
  ServerFixture fixture(ServerFixture::NoRetries());
  torch::nn::Linear net(10, 10);
  fixture.disk().SetFault(
      {.at_call = 1, .for_good = true, .code = absl::StatusCode::kResourceExhausted});
  (void)SaveCheckpointAsync(fixture.client(), "models/m", {.module = net.get()});
  absl::Status drained = fixture.client().Drain(TestDeadline());
  EXPECT_EQ(drained.code(), absl::StatusCode::kResourceExhausted) << drained;
  EXPECT_TRUE(fixture.client().Drain(TestDeadline()).ok()) << "told twice";

  SaveHandle handle =
      SaveCheckpointAsync(fixture.client(), "models/m", {.module = net.get()});
  EXPECT_EQ(handle.Durable(TestDeadline()).status().code(),
            absl::StatusCode::kResourceExhausted);
  fixture.disk().SetFault({});
  EXPECT_TRUE(SaveCheckpoint(fixture.client(), "models/m", {.module = net.get()}).ok());
}

TEST(SaveAsyncTest, ARefusedTensorIsReportedByEveryWait) {
  ServerFixture fixture;
  const StateDict stored = {{"sparse", torch::eye(3).to_sparse()}};
  SaveHandle handle =
      SaveCheckpointAsync(fixture.client(), "models/m", {.state_dict = &stored});
  EXPECT_THAT(std::string(handle.Staged(TestDeadline()).message()),
              HasSubstr("`model:sparse`"));
  EXPECT_EQ(handle.Durable(TestDeadline()).status().code(),
            absl::StatusCode::kInvalidArgument);
}

}  // namespace
}  // namespace modelstore
