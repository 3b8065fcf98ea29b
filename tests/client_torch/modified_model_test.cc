// A model that was changed on the server runs and trains on in a program that knows
// its name alone: the standard changes of a VGG16, of few channels and 1000 classes.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "client/examples/vgg16.h"
#include "modelstore/architecture.h"
#include "modelstore/modify.h"
#include "modelstore/torch.h"
#include "tests/client_torch/server_fixture.h"
#include "tests/client_torch/tensors.h"

namespace modelstore {
namespace {

namespace modified_model_tests {

using support::ExpectSameBits;
using support::ServerFixture;
using ::testing::HasSubstr;

constexpr char kVgg[] = "models/vgg/checkpoints/latest";
constexpr int64_t kImages = 2;

struct Change {
  std::string name;
  EditList edits;
  int64_t outputs;    // per image
  std::string print;  // what the changed model's print shows
  bool output_unchanged;
};

EditList::NewModule InForward() { return {.in_forward = true}; }

std::vector<Change> Changes() {
  return {
      {"OnlyRegistered", EditList().AddModule("add_linear", "Linear(1000, 10)"), 1000,
       "\n  (add_linear): Linear(in_features=1000, out_features=10, bias=True)\n)", true},
      {"AtTheTopAndInForward",
       EditList().AddModule("add_linear", "Linear(1000, 10)", InForward()), 10,
       "\n  (add_linear): Linear(in_features=1000, out_features=10, bias=True)\n)",
       false},
      {"InsideTheClassifier",
       EditList().AddModule("classifier.add_linear", "Linear(1000, 10)"), 10,
       "\n    (add_linear): Linear(in_features=1000, out_features=10, bias=True)\n  )",
       false},
      {"HeadReplaced", EditList().ReplaceModule("classifier.6", "Linear(16, 10)"), 10,
       "\n    (6): Linear(in_features=16, out_features=10, bias=True)\n  )", false},
  };
}

class ChangedVgg : public testing::TestWithParam<Change> {};

TEST_P(ChangedVgg, RunsByNameWithTheOutputsItNowHasAndTrainsOn) {
  const Change& change = GetParam();
  ServerFixture fixture;
  torch::manual_seed(3);
  vgg16::VGG net(
      vgg16::Options{.channels = 2, .hidden = 16, .pooled = 1, .classes = 1000});
  net->eval();
  ASSERT_TRUE(SaveCheckpoint(fixture.client(), "models/vgg",
                             {.module = net.get(), .forward = {{"", vgg16::Forward()}}})
                  .ok());
  const auto made = ModifyCheckpoint(fixture.client(), kVgg, change.edits);
  ASSERT_TRUE(made.ok()) << made.status();
  EXPECT_THAT(made->architecture_after, HasSubstr(change.print));

  const auto model = LoadModel(fixture.client(), kVgg);
  ASSERT_TRUE(model.ok()) << model.status();
  EXPECT_EQ(model->text, made->architecture_after);
  const torch::Tensor images = torch::rand({kImages, 3, 32, 32});
  const torch::Tensor output = model->Forward(images);
  EXPECT_EQ(output.sizes(), torch::IntArrayRef({kImages, change.outputs}));
  if (change.output_unchanged) ExpectSameBits(output, net(images), "the output");

  model->module->train();
  torch::optim::SGD sgd(model->module->parameters(), 0.1);
  model->Forward(images).sum().backward();
  sgd.step();
  ASSERT_TRUE(SaveCheckpoint(fixture.client(), "models/vgg",
                             {.module = model->module.get(), .optimizer = &sgd})
                  .ok());
  const auto trained = LoadModel(fixture.client(), kVgg);
  ASSERT_TRUE(trained.ok()) << trained.status();
  EXPECT_EQ(trained->text, model->text);
  model->module->eval();
  ExpectSameBits(trained->Forward(images), model->Forward(images), "the trained output");
}

INSTANTIATE_TEST_SUITE_P(, ChangedVgg, testing::ValuesIn(Changes()),
                         [](const auto& info) { return info.param.name; });

TEST(ModifiedModel, WhatWasFrozenOnTheServerIsFrozenWhereItIsLoaded) {
  ServerFixture fixture;
  torch::nn::Sequential net{torch::nn::Linear(3, 4), torch::nn::Linear(4, 2)};
  ASSERT_TRUE(
      SaveCheckpoint(fixture.client(), "models/vgg", {.module = net.ptr().get()}).ok());
  ASSERT_TRUE(ModifyCheckpoint(fixture.client(), kVgg,
                               EditList().SetRequiresGrad(false, {R"(0\..*)"}))
                  .ok());
  const auto model = LoadModel(fixture.client(), kVgg);
  ASSERT_TRUE(model.ok()) << model.status();
  for (const auto& parameter : model->module->named_parameters()) {
    EXPECT_EQ(parameter.value().requires_grad(), parameter.key()[0] == '1')
        << parameter.key();
  }
}

}  // namespace modified_model_tests

}  // namespace
}  // namespace modelstore
