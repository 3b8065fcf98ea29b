// A run that is stopped at any epoch and resumed from its checkpoint goes on bit for
// bit: weights, running statistics, optimizer, learning rates, dropout.
#include <functional>

#include "tests/client_torch/server_fixture.h"
#include "tests/client_torch/tensors.h"

namespace modelstore {
namespace {

using support::BytesOf;
using support::ServerFixture;

constexpr int kEpochs = 5;

struct DropNetImpl : torch::nn::Module {
  DropNetImpl() {
    first = register_module("first", torch::nn::Linear(6, 8));
    norm = register_module("norm", torch::nn::BatchNorm1d(8));
    drop = register_module("drop", torch::nn::Dropout(0.3));
    second = register_module("second", torch::nn::Linear(8, 3));
  }
  torch::Tensor forward(const torch::Tensor& x) {
    return second(drop(torch::relu(norm(first(x)))));
  }
  torch::nn::Linear first{nullptr}, second{nullptr};
  torch::nn::BatchNorm1d norm{nullptr};
  torch::nn::Dropout drop{nullptr};
};
TORCH_MODULE(DropNet);

using MakeFor = std::function<std::unique_ptr<torch::optim::Optimizer>(DropNet&)>;

struct Case {
  const char* name;
  MakeFor make;
};

std::string CaseName(const ::testing::TestParamInfo<Case>& info) {
  return info.param.name;
}

// The classifier learns with `head`, the rest with `body`.
template <typename Optimizer, typename Options>
MakeFor TwoGroups(const Options& head, const Options& body) {
  return [head, body](DropNet& net) {
    std::vector<torch::Tensor> rest = net->first->parameters();
    for (const torch::Tensor& p : net->norm->parameters()) rest.push_back(p);
    std::vector<torch::optim::OptimizerParamGroup> groups;
    groups.emplace_back(net->second->parameters(), std::make_unique<Options>(head));
    groups.emplace_back(std::move(rest), std::make_unique<Options>(body));
    return std::make_unique<Optimizer>(std::move(groups), Options(1e-3));
  };
}

std::vector<Case> Cases() {
  using namespace torch::optim;  // NOLINT
  return {
      {"SgdMomentum", TwoGroups<SGD>(SGDOptions(0.2).momentum(0.9),
                                     SGDOptions(0.05).momentum(0.5).dampening(0.1))},
      {"SgdNesterov", TwoGroups<SGD>(SGDOptions(0.2).momentum(0.9).nesterov(true),
                                     SGDOptions(0.05).weight_decay(0.1))},
      {"Adam", TwoGroups<Adam>(AdamOptions(0.05),
                               AdamOptions(0.01).amsgrad(true).weight_decay(0.1))},
      {"AdamW", TwoGroups<AdamW>(AdamWOptions(0.05).amsgrad(true),
                                 AdamWOptions(0.01).betas({0.8, 0.9}))},
      {"Adagrad", TwoGroups<Adagrad>(AdagradOptions(0.1).lr_decay(0.1),
                                     AdagradOptions(0.05).weight_decay(0.1))},
      {"RMSprop", TwoGroups<RMSprop>(RMSpropOptions(0.02).momentum(0.5),
                                     RMSpropOptions(0.01).centered(true))},
      // It takes one group.
      {"Lbfgs",
       [](DropNet& net) {
         return std::make_unique<LBFGS>(net->parameters(),
                                        LBFGSOptions(0.5).max_iter(3).history_size(4));
       }},
  };
}

// A training run, as its own process would hold it.
struct Training {
  explicit Training(const MakeFor& make)
      : optimizer(make(net)), schedule(*optimizer, /*step_size=*/2, /*gamma=*/0.5) {}

  // One epoch of three steps on data that the generator draws.
  void Epoch() {
    for (int i = 0; i < 3; ++i) {
      const torch::Tensor data = torch::randn({5, 6});
      optimizer->step([&] {
        optimizer->zero_grad();
        torch::Tensor loss = net(data).pow(2).mean();
        loss.backward();
        losses.push_back(loss.item<float>());
        return loss;
      });
    }
    schedule.step();
  }
  SaveArgs State(int epoch) {
    return {.module = net.get(),
            .optimizer = optimizer.get(),
            .metadata = {.epoch = epoch},
            .rng = true,
            .scheduler = &schedule};
  }
  std::vector<double> Rates() {
    std::vector<double> rates;
    for (auto& group : optimizer->param_groups()) {
      rates.push_back(group.options().get_lr());
    }
    return rates;
  }

  DropNet net;
  std::unique_ptr<torch::optim::Optimizer> optimizer;
  torch::optim::StepLR schedule;
  std::vector<float> losses;
};

class ResumeTest : public ::testing::TestWithParam<Case> {};

TEST_P(ResumeTest, StoppedAtAnyEpochTheRunContinuesBitForBit) {
  ServerFixture fixture;
  torch::manual_seed(7);
  Training whole(GetParam().make);
  std::vector<size_t> losses_before;
  for (int epoch = 0; epoch <= kEpochs; ++epoch) {
    losses_before.push_back(whole.losses.size());
    auto saved = SaveCheckpoint(fixture.client(), "models/m", whole.State(epoch));
    ASSERT_TRUE(saved.ok()) << saved.status();
    if (epoch < kEpochs) whole.Epoch();
  }
  const std::string generator = BytesOf(GetCpuRngState());
  const StateDict wanted = GetStateDict(*whole.net);

  for (int stop = 0; stop <= kEpochs; ++stop) {
    SCOPED_TRACE(stop);
    torch::manual_seed(100 + stop);
    Training resumed(GetParam().make);
    resumed.Epoch();  // state that the load has to replace
    resumed.losses.clear();
    LoadResult result = LoadCheckpoint(fixture.client(),
                                       "models/m/checkpoints/" + std::to_string(stop + 1),
                                       {.module = resumed.net.get(),
                                        .optimizer = resumed.optimizer.get(),
                                        .rng = true,
                                        .scheduler = &resumed.schedule});
    ASSERT_TRUE(result.status.ok()) << result.status;
    EXPECT_TRUE(result.report.inferred.empty());
    ASSERT_EQ(result.checkpoint.epoch, stop);
    for (int epoch = stop; epoch < kEpochs; ++epoch) resumed.Epoch();
    const std::vector<float> tail(whole.losses.begin() + losses_before[stop],
                                  whole.losses.end());
    EXPECT_EQ(resumed.losses, tail);
    EXPECT_EQ(resumed.Rates(), whole.Rates());
    for (const auto& [key, tensor] : GetStateDict(*resumed.net)) {
      support::ExpectSameBits(tensor, support::At(wanted, key), key);
    }
    EXPECT_TRUE(BytesOf(GetCpuRngState()) == generator);
    // The optimizer's state too: what it would save is what is stored already.
    auto again = SaveCheckpoint(fixture.client(), "models/m", resumed.State(kEpochs));
    ASSERT_TRUE(again.ok()) << again.status();
    auto end = fixture.client().GetCheckpoint("models/m/checkpoints/" +
                                              std::to_string(kEpochs + 1));
    ASSERT_TRUE(end.ok()) << end.status();
    EXPECT_EQ(again->manifest_digest, end->manifest_digest);
  }
}

INSTANTIATE_TEST_SUITE_P(Optimizers, ResumeTest, ::testing::ValuesIn(Cases()), CaseName);

// PyTorch's notes: eval() and train() after loading are the caller's.
TEST(ResumeModeTest, LoadingKeepsTrainAndEvalMode) {
  ServerFixture fixture;
  DropNet net;
  ASSERT_TRUE(SaveCheckpoint(fixture.client(), "models/m", {.module = net.get()}).ok());
  for (const bool training : {true, false}) {
    DropNet other;
    other->train(training);
    other->drop->train(!training);  // a part of it may differ
    ASSERT_TRUE(
        LoadCheckpoint(fixture.client(), support::kLatest, {.module = other.get()})
            .status.ok());
    EXPECT_EQ(other->is_training(), training);
    EXPECT_EQ(other->norm->is_training(), training);
    EXPECT_EQ(other->drop->is_training(), !training);
  }
}

}  // namespace
}  // namespace modelstore
