// Members of LibTorch's modules that were assigned a tensor which is not registered.
#include <gmock/gmock.h>

#include "client/torch/architecture_leaves.h"
#include "client/torch/member_check.h"
#include "tests/client_torch/tensors.h"
#include "tests/client_torch/world.h"

namespace modelstore {
namespace {

using support::World;
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
  World world;
  Normed net;
  ASSERT_TRUE(SaveCheckpoint(world.client(), "models/m", {.module = net.get()}).ok());
  net->bn->running_mean = torch::full({3}, 7.0);
  net->body->at<torch::nn::LinearImpl>(0).bias = torch::ones({3});
  net->attention->in_proj_weight = torch::ones({12, 4});
  const absl::Status save =
      SaveCheckpoint(world.client(), "models/m", {.module = net.get()}).status();
  EXPECT_EQ(save.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(std::string(save.message()),
              HasSubstr("`body.0.bias`, `bn.running_mean`, `attention.in_proj_weight`"));
  const torch::Tensor bias = net->bn->bias.detach().clone();
  const absl::Status load =
      LoadCheckpoint(world.client(), support::kLatest, {.module = net.get()}).status;
  EXPECT_EQ(load.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(std::string(load.message()), HasSubstr("`bn.running_mean`"));
}

TEST(ReassignedMemberTest, WhatIsAllowedSavesTheRegisteredTensor) {
  World world;
  Normed net;
  net->bn->running_mean = torch::full({3}, 7.0);
  ASSERT_TRUE(SaveCheckpoint(world.client(), "models/m",
                             {.module = net.get(), .ignore_reassigned_members = true})
                  .ok());
  StateDict stored;
  ASSERT_TRUE(LoadCheckpoint(world.client(), support::kLatest, {.state_dict = &stored})
                  .status.ok());
  EXPECT_TRUE(support::At(stored, "bn.running_mean").equal(torch::zeros({3})));
}

TEST(ReassignedMemberTest, AChangedTensorAndAnAliasOfItAreNoReassignment) {
  World world;
  Normed net;
  const torch::NoGradGuard no_grad;
  net->to(torch::kDouble);
  net->bn->running_mean.copy_(torch::full({3}, 7.0));
  net->bn->running_var.set_data(torch::full({3}, 5.0, torch::kDouble));
  net->bn->weight = net->bn->weight.detach();
  ASSERT_TRUE(SaveCheckpoint(world.client(), "models/m", {.module = net.get()}).ok());
  StateDict stored;
  ASSERT_TRUE(LoadCheckpoint(world.client(), support::kLatest, {.state_dict = &stored})
                  .status.ok());
  EXPECT_TRUE(support::At(stored, "bn.running_mean")
                  .equal(torch::full({3}, 7.0, torch::kDouble)));
  EXPECT_TRUE(
      support::At(stored, "bn.running_var").equal(torch::full({3}, 5.0, torch::kDouble)));
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
    EXPECT_TRUE(torch_internal::CheckMembers(*ptr, "saved").ok()) << ptr->name();
    EXPECT_TRUE(torch_internal::CheckMembers(*ptr->clone(), "saved").ok()) << ptr->name();
  }
}

}  // namespace
}  // namespace modelstore
