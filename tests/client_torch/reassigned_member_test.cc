// Members of LibTorch's modules that were assigned a tensor which is not registered.
#include <gmock/gmock.h>

#include "client/torch/architecture_leaves.h"
#include "client/torch/member_check.h"
#include "modelstore/architecture.h"
#include "tests/client_torch/server_fixture.h"
#include "tests/client_torch/tensors.h"

namespace modelstore {
namespace {

using support::ServerFixture;
using ::testing::HasSubstr;

struct NormedImpl : torch::nn::Module {
  NormedImpl() {
    body = register_module("body", torch::nn::Sequential(torch::nn::Linear(2, 3)));
    bn = register_module("bn", torch::nn::BatchNorm1d(3));
    attention = register_module("attention", torch::nn::MultiheadAttention(4, 2));
  }
  torch::nn::Sequential body{nullptr};
  torch::nn::BatchNorm1d bn{nullptr};
  torch::nn::MultiheadAttention attention{nullptr};
};
TORCH_MODULE(Normed);

TEST(ReassignedMemberTest, ASaveAndALoadAreRefusedAndNameEach) {
  ServerFixture fixture;
  Normed net;
  ASSERT_TRUE(SaveCheckpoint(fixture.client(), "models/m", {.module = net.get()}).ok());
  net->bn->running_mean = torch::full({3}, 7.0);
  net->body->at<torch::nn::LinearImpl>(0).bias = torch::ones({3});
  net->attention->in_proj_weight = torch::ones({12, 4});
  const absl::Status save =
      SaveCheckpoint(fixture.client(), "models/m", {.module = net.get()}).status();
  EXPECT_EQ(save.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(std::string(save.message()),
              HasSubstr("`body.0.bias`, `bn.running_mean`, `attention.in_proj_weight`"));
  const torch::Tensor bias = net->bn->bias.detach().clone();
  const absl::Status load =
      LoadCheckpoint(fixture.client(), support::kLatest, {.module = net.get()}).status;
  EXPECT_EQ(load.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(std::string(load.message()), HasSubstr("`bn.running_mean`"));
}

TEST(ReassignedMemberTest, WhatIsAllowedSavesTheRegisteredTensor) {
  ServerFixture fixture;
  Normed net;
  net->bn->running_mean = torch::full({3}, 7.0);
  ASSERT_TRUE(SaveCheckpoint(fixture.client(), "models/m",
                             {.module = net.get(), .ignore_reassigned_members = true})
                  .ok());
  StateDict stored;
  ASSERT_TRUE(LoadCheckpoint(fixture.client(), support::kLatest, {.state_dict = &stored})
                  .status.ok());
  EXPECT_TRUE(support::At(stored, "bn.running_mean").equal(torch::zeros({3})));
}

TEST(ReassignedMemberTest, AChangedTensorAndAnAliasOfItAreNoReassignment) {
  ServerFixture fixture;
  Normed net;
  const torch::NoGradGuard no_grad;
  net->to(torch::kDouble);
  net->bn->running_mean.copy_(torch::full({3}, 7.0));
  net->bn->running_var.set_data(torch::full({3}, 5.0, torch::kDouble));
  net->bn->weight = net->bn->weight.detach();
  ASSERT_TRUE(SaveCheckpoint(fixture.client(), "models/m", {.module = net.get()}).ok());
  StateDict stored;
  ASSERT_TRUE(LoadCheckpoint(fixture.client(), support::kLatest, {.state_dict = &stored})
                  .status.ok());
  EXPECT_TRUE(support::At(stored, "bn.running_mean")
                  .equal(torch::full({3}, 7.0, torch::kDouble)));
  EXPECT_TRUE(
      support::At(stored, "bn.running_var").equal(torch::full({3}, 5.0, torch::kDouble)));
}

// The only way to tie LibTorch's own layers.
struct TiedLayersImpl : torch::nn::Module {
  explicit TiedLayersImpl(bool tied = true) {
    encoder = register_module("encoder", torch::nn::Linear(3, 3));
    decoder = register_module("decoder", torch::nn::Linear(3, 3));
    if (tied) decoder->weight = encoder->weight;
  }
  torch::Tensor forward(const torch::Tensor& x) {
    return decoder(torch::relu(encoder(x)));
  }
  torch::nn::Linear encoder{nullptr}, decoder{nullptr};
};
TORCH_MODULE(TiedLayers);

void StepTied(TiedLayers& net, torch::optim::Optimizer& optimizer) {
  optimizer.zero_grad();
  net(torch::arange(12, torch::kFloat).view({4, 3}) / 12).pow(2).sum().backward();
  optimizer.step();
}

TEST(ReassignedMemberTest, ALayerTiedByAssignmentIsSavedTiedAndTrainsOnBitForBit) {
  ServerFixture fixture;
  const auto adam_of = [](TiedLayers& net) {
    return torch::optim::Adam(net->parameters(), torch::optim::AdamOptions(0.01));
  };
  TiedLayers net, resumed;
  torch::optim::Adam adam = adam_of(net), other = adam_of(resumed);
  StepTied(net, adam);
  const auto saved = SaveCheckpoint(fixture.client(), "models/m",
                                    {.module = net.get(),
                                     .optimizer = &adam,
                                     .forward = {{"", {"encoder", "relu", "decoder"}}}});
  ASSERT_TRUE(saved.ok()) << saved.status();
  const auto tensors = fixture.client().ListTensors(support::kLatest);
  ASSERT_TRUE(tensors.ok()) << tensors.status();
  for (const TensorInfo& tensor : *tensors) {
    EXPECT_EQ(tensor.tied_to,
              tensor.key == "decoder.weight" ? "model:encoder.weight" : "")
        << tensor.key;
  }
  const LoadResult result = LoadCheckpoint(
      fixture.client(), support::kLatest, {.module = resumed.get(), .optimizer = &other});
  ASSERT_TRUE(result.status.ok()) << result.status;
  EXPECT_TRUE(resumed->decoder->weight.is_same(resumed->encoder->weight));
  const torch::Tensor x = torch::rand({2, 3});
  support::ExpectSameBits(resumed(x), net(x), "the output");
  const auto model = LoadModel(fixture.client(), support::kLatest);
  ASSERT_TRUE(model.ok()) << model.status();
  support::ExpectSameBits(model->Forward(x), net(x), "the output of the built model");
  StepTied(net, adam);
  StepTied(resumed, other);
  support::ExpectSameBits(resumed->encoder->weight, net->encoder->weight, "weight");
  support::ExpectSameBits(resumed->decoder->bias, net->decoder->bias, "bias");
}

TEST(ReassignedMemberTest, ValuesThatDifferAreNotLoadedIntoLayersTiedByAssignment) {
  ServerFixture fixture;
  TiedLayers apart(/*tied=*/false), tied;
  ASSERT_TRUE(SaveCheckpoint(fixture.client(), "models/m", {.module = apart.get()}).ok());
  const torch::Tensor before = tied->encoder->weight.detach().clone();
  const absl::Status refused =
      LoadCheckpoint(fixture.client(), support::kLatest, {.module = tied.get()}).status;
  EXPECT_EQ(refused.code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_THAT(std::string(refused.message()),
              HasSubstr("`encoder.weight` and `decoder.weight` are one tensor"));
  support::ExpectSameBits(tied->encoder->weight, before, "weight");
}

// Which of the two is meant by each name cannot be told.
TEST(ReassignedMemberTest, MembersThatWereExchangedAreRefused) {
  ServerFixture fixture;
  TiedLayers net(/*tied=*/false);
  std::swap(net->encoder->weight, net->decoder->weight);
  const absl::Status refused =
      SaveCheckpoint(fixture.client(), "models/m", {.module = net.get()}).status();
  EXPECT_EQ(refused.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(std::string(refused.message()),
              HasSubstr("`encoder.weight`, `decoder.weight`"));
}

// None of LibTorch's modules is taken for reassigned as it is made.
TEST(ReassignedMemberTest, NoModuleIsTakenForReassignedAsItIsMade) {
  using namespace torch::nn;
  const std::vector<AnyModule> modules = {
      AnyModule(Linear(LinearOptions(2, 3).bias(false))),
      AnyModule(Bilinear(2, 3, 4)),
      AnyModule(Conv1d(Conv1dOptions(2, 3, 1).bias(false))),
      AnyModule(Conv2d(2, 3, 1)),
      AnyModule(ConvTranspose2d(2, 3, 1)),
      AnyModule(BatchNorm2d(BatchNorm2dOptions(2).affine(false))),
      AnyModule(BatchNorm2d(BatchNorm2dOptions(2).track_running_stats(false))),
      AnyModule(InstanceNorm2d(2)),
      AnyModule(InstanceNorm2d(
          InstanceNorm2dOptions(2).affine(true).track_running_stats(true))),
      AnyModule(LayerNorm(LayerNormOptions({2}))),
      AnyModule(LayerNorm(LayerNormOptions({2}).elementwise_affine(false))),
      AnyModule(GroupNorm(GroupNormOptions(1, 2))),
      AnyModule(GroupNorm(GroupNormOptions(1, 2).affine(false))),
      AnyModule(Embedding(3, 2)),
      AnyModule(Embedding::from_pretrained(torch::ones({3, 2}))),
      AnyModule(EmbeddingBag(3, 2)),
      AnyModule(PReLU()),
      AnyModule(RNN(2, 3)),
      AnyModule(LSTM(LSTMOptions(2, 3).bias(false).bidirectional(true))),
      AnyModule(GRU(2, 3)),
      AnyModule(RNNCell(2, 3)),
      AnyModule(LSTMCell(LSTMCellOptions(2, 3).bias(false))),
      AnyModule(GRUCell(2, 3)),
      AnyModule(FractionalMaxPool2d(
          FractionalMaxPool2dOptions(2).output_size(std::vector<int64_t>{2, 2}))),
      AnyModule(MultiheadAttention(4, 2)),
      AnyModule(MultiheadAttention(
          MultiheadAttentionOptions(4, 2).bias(false).add_bias_kv(true).kdim(3).vdim(5))),
      AnyModule(NLLLoss(NLLLossOptions().weight(torch::ones({3})))),
      AnyModule(CrossEntropyLoss()),
      AnyModule(BCEWithLogitsLoss(BCEWithLogitsLossOptions().weight(torch::ones({3})))),
      AnyModule(Transformer(TransformerOptions(4, 2, 1, 1))),
  };
  for (const AnyModule& module : modules) {
    const auto ptr = module.ptr();
    for (const auto& each : {ptr, ptr->clone()}) {
      std::vector<torch_internal::StateEntry> entries = torch_internal::WalkState(*each);
      EXPECT_TRUE(torch_internal::FollowMembers(*each, "saved", entries).ok())
          << each->name();
    }
  }
}

}  // namespace
}  // namespace modelstore
