// Architectures of live modules: read at a save, built by a program that does not
// know the class, run, saved again.
#include "modelstore/architecture.h"

#include <gmock/gmock.h>

#include "client/examples/vgg16.h"
#include "client/torch/architecture_build.h"
#include "client/torch/architecture_read.h"
#include "client/torch/element_type.h"
#include "client/torch/state_dict.h"
#include "proto/contract/architecture/architecture.h"
#include "proto/contract/architecture/tensors.h"
#include "proto/contract/architecture/text.h"
#include "tests/client_torch/server_fixture.h"
#include "tests/client_torch/tensors.h"

namespace modelstore {
namespace {

namespace architecture_tests {

using support::At;
using support::ExpectSameBits;
using support::kLatest;
using support::ServerFixture;
using testing::ElementsAre;
using testing::HasSubstr;
namespace nn = torch::nn;
using torch_internal::ReadArchitecture;

v1::Architecture Parsed(const std::string& text) {
  v1::Architecture architecture;
  auto module = ParseModule("module", text);
  EXPECT_TRUE(module.ok()) << module.status();
  if (module.ok()) *architecture.mutable_root() = *module;
  return architecture;
}

// As every module of LibTorch that has no children prints where its arguments can be
// known: pools with an integer, adaptive ones with a tuple.
const char* const kLeaves[] = {
    "Linear(3, 2, bias=False)",
    "Bilinear(2, 3, 4)",
    "Conv1d(4, 6, 3)",
    "Conv2d(4, 8, (3, 5), stride=2, padding=(1, 2), dilation=2, groups=4, bias=False)",
    "Conv2d(3, 4, 3, padding='same', padding_mode='reflect')",
    "Conv3d(2, 2, 3, padding='valid', padding_mode='replicate')",
    "Conv2d(3, 4, 3, padding=1, padding_mode='circular')",
    "ConvTranspose1d(4, 2, 3, stride=2, output_padding=1)",
    "ConvTranspose2d(4, 6, 3, 2, 1, 1, 2, False)",
    "ConvTranspose3d(2, 4, (1, 2, 3))",
    "BatchNorm1d(10)",
    "BatchNorm2d(4, eps=0.001, momentum=None)",
    "BatchNorm3d(2, affine=False, track_running_stats=False)",
    "InstanceNorm1d(4)",
    "InstanceNorm2d(4, affine=True, track_running_stats=True)",
    "InstanceNorm3d(4, momentum=0.2)",
    "GroupNorm(2, 8)",
    "LayerNorm((3, 4), eps=1e-06)",
    "LocalResponseNorm(2, k=2.5)",
    "CrossMapLRN2d(5, alpha=0.001)",
    "Embedding(10, 3, padding_idx=1, max_norm=1.5)",
    "EmbeddingBag(10, 3, mode='sum', padding_idx=1)",
    "EmbeddingBag(10, 3, mode='max')",
    "RNN(3, 5, 2, nonlinearity='relu', bias=False)",
    "LSTM(3, 5, num_layers=2, batch_first=True, dropout=0.5, bidirectional=True)",
    "LSTM(3, 5, proj_size=2)",
    "GRU(3, 5, 2)",
    "RNNCell(3, 5, nonlinearity='relu')",
    "LSTMCell(3, 5, bias=False)",
    "GRUCell(3, 5)",
    "Dropout(0.25, inplace=True)",
    "Dropout2d()",
    "Dropout3d(0.1)",
    "AlphaDropout()",
    "FeatureAlphaDropout()",
    "ReLU(True)",
    "ReLU6()",
    "SELU()",
    "SiLU()",
    "Mish()",
    "ELU(0.5)",
    "CELU(2.0)",
    "Hardshrink(0.25)",
    "Softshrink()",
    "LeakyReLU(0.2)",
    "RReLU()",
    "Hardtanh(-2.5, 2.5)",
    "Threshold(0.5, 20.5)",
    "PReLU(4)",
    "Softplus()",
    "Softplus(2.5)",
    "GELU('tanh')",
    "GLU()",
    "Softmax(1)",
    "Softmin(-1)",
    "LogSoftmax(1)",
    "Softmax2d()",
    "Sigmoid()",
    "LogSigmoid()",
    "Softsign()",
    "Tanh()",
    "Tanhshrink()",
    "MaxPool1d(2)",
    "MaxPool2d((3, 2), stride=(2, 1), ceil_mode=True)",
    "MaxPool3d(2)",
    "AvgPool1d(3)",
    "AvgPool2d(3, divisor_override=2)",
    "AvgPool3d(2, 1)",
    "LPPool1d(2.0, 3, 3)",
    "LPPool2d(1.5, (3, 2), (2, 1))",
    "AdaptiveAvgPool1d((5,))",
    "AdaptiveAvgPool2d((7, None))",
    "AdaptiveAvgPool3d((1, 2, 3))",
    "AdaptiveMaxPool1d((5,))",
    "AdaptiveMaxPool2d((7, 7))",
    "AdaptiveMaxPool3d((1, 2, 3))",
    "ReflectionPad1d(2)",
    "ReflectionPad2d((1, 1, 2, 0))",
    "ReflectionPad3d(1)",
    "ReplicationPad1d((3, 1))",
    "ReplicationPad2d(2)",
    "ReplicationPad3d(1)",
    "ZeroPad2d((1, 1, -1, 2))",
    "ConstantPad1d(2, 3.5)",
    "ConstantPad2d(1, 0.5)",
    "ConstantPad3d(1, 0.5)",
    "Flatten()",
    "Unflatten(1, (2, 5))",
    "PixelShuffle(3)",
    "PixelUnshuffle(2)",
    "Upsample(scale_factor=2)",
    "Upsample(4, mode='nearest')",
    "Upsample(size=(4, 5), mode='bilinear', align_corners=True)",
    "Fold((4, 5), 2)",
    "Unfold((2, 3))",
    "Identity()"};

TEST(Architecture, WhatIsBuiltOfAModulesTextReadsBackAsTheSameModule) {
  for (const char* text : kLeaves) {
    const v1::Architecture stored = Parsed(text);
    const auto built = torch_internal::BuildArchitecture(stored);
    ASSERT_TRUE(built.ok()) << text << built.status();
    EXPECT_NE(torch_internal::FindLeaf(*built->module), nullptr) << text;
    EXPECT_EQ(!built->forward, std::string(text).rfind("Bilinear", 0) == 0) << text;
    const auto read = ReadArchitecture(*built->module, {});
    ASSERT_TRUE(read.ok()) << text << read.status();
    EXPECT_EQ(read->DebugString(), stored.DebugString()) << text;
  }
}

TEST(Architecture, LibTorchsModulesHaveTheTensorsThatTheContractSays) {
  for (const char* text : kLeaves) {
    const v1::Architecture stored = Parsed(text);
    const auto built = torch_internal::BuildArchitecture(stored);
    const auto wanted = ModuleTensors(stored.root());
    ASSERT_TRUE(built.ok() && wanted.ok()) << text;
    std::vector<std::string> want, got;
    for (const TensorSpec& t : *wanted) {
      want.push_back(t.key + (t.buffer ? " buffer" : " parameter") +
                     torch_internal::ShapeText(t.shape));
    }
    for (const auto& entry : torch_internal::WalkState(*built->module)) {
      got.push_back(entry.key +
                    (entry.role == TensorRole::kBuffer ? " buffer" : " parameter") +
                    torch_internal::ShapeText(entry.tensor.sizes()));
    }
    EXPECT_EQ(got, want) << text;
  }
}

TEST(Architecture, LibTorchsModulesThatHoldOthersPrintAsPythons) {
  const auto printed = [](const nn::Module& module) {
    const auto read = ReadArchitecture(module, {});
    EXPECT_TRUE(read.ok()) << read.status();
    return read.ok() ? PrintModule(read->root()) : "";
  };
  const auto of_text = [](const char* text) { return PrintModule(Parsed(text).root()); };
  nn::TransformerEncoderLayer layer(nn::TransformerEncoderLayerOptions(8, 2));
  EXPECT_EQ(printed(*layer), of_text("TransformerEncoderLayer(8, 2)"));
  EXPECT_EQ(
      printed(*nn::TransformerDecoderLayer(nn::TransformerDecoderLayerOptions(8, 2))),
      of_text("TransformerDecoderLayer(8, 2)"));
  EXPECT_EQ(printed(*nn::MultiheadAttention(8, 2)), of_text("MultiheadAttention(8, 2)"));
  EXPECT_EQ(printed(*nn::TransformerEncoder(nn::TransformerEncoderOptions(layer, 2))),
            of_text("TransformerEncoder(TransformerEncoderLayer(8, 2), 2)"));
  EXPECT_EQ(printed(*nn::ModuleList(nn::Linear(1, 2), nn::ReLU())),
            of_text("ModuleList([Linear(1, 2), ReLU()])"));
  nn::ModuleDict dict;
  dict->update({{"a", nn::Tanh().ptr()}});
  EXPECT_EQ(printed(*dict), of_text("ModuleDict({'a': Tanh()})"));
}

// A class of a user's, with a tensor of its own and a function-valued activation.
struct OddImpl : nn::Module {
  OddImpl() {
    scale = register_parameter("scale", torch::rand({2, 3}));
    register_buffer("count", torch::tensor({int64_t{7}}));
    fc = register_module("fc", nn::Linear(3, 3));
    functional = register_module("functional", nn::Functional(torch::relu));
    auto options = nn::TransformerEncoderLayerOptions(4, 2);
    options.activation([](const torch::Tensor& x) { return x.tanh(); });
    layer = register_module("layer", nn::TransformerEncoderLayer(options));
  }
  torch::Tensor forward(torch::Tensor x) { return fc(x); }
  torch::Tensor scale;
  nn::Linear fc{nullptr};
  nn::Functional functional{nullptr};
  nn::TransformerEncoderLayer layer{nullptr};
};
TORCH_MODULE(Odd);

TEST(Architecture, WhatCannotBeReadIsKeptByItsTypeAndMarkedIncomplete) {
  Odd odd;
  const auto read = ReadArchitecture(*odd, {});
  ASSERT_TRUE(read.ok()) << read.status();
  const ModuleTree& root = read->root();
  EXPECT_EQ(root.type(), "Odd");
  EXPECT_TRUE(root.incomplete());
  EXPECT_FALSE(root.children(0).incomplete());
  EXPECT_EQ(root.children(1).type(), "Functional");
  EXPECT_TRUE(root.children(1).incomplete());
  EXPECT_EQ(root.children(2).type(), "TransformerEncoderLayer");
  EXPECT_TRUE(root.children(2).incomplete());
}

TEST(LoadModel, AProgramThatDoesNotKnowTheClassGetsTheSameOutputBitForBit) {
  ServerFixture fixture;
  torch::manual_seed(3);
  vgg16::VGG net(vgg16::Options{.channels = 4, .hidden = 16, .pooled = 2, .classes = 10});
  const auto saved =
      SaveCheckpoint(fixture.client(), "models/m",
                     {.module = net.get(), .forward = {{"", vgg16::Forward()}}});
  ASSERT_TRUE(saved.ok()) << saved.status();
  net->eval();
  const torch::Tensor images = torch::rand({2, 3, 40, 40}), state = GetCpuRngState();
  const auto model = LoadModel(fixture.client(), kLatest);
  ASSERT_TRUE(model.ok()) << model.status();
  EXPECT_FALSE(model->module->is_training());
  ExpectSameBits(GetCpuRngState(), state, "the generator");
  ExpectSameBits(model->Forward(images), net(images), "the output");
  EXPECT_THAT(model->text,
              HasSubstr("  (avgpool): AdaptiveAvgPool2d(output_size=(2, 2))"));
  EXPECT_THAT(model->text,
              HasSubstr("    (4): MaxPool2d(kernel_size=2, stride=2, padding=0, "
                        "dilation=1, ceil_mode=False)"));
  EXPECT_EQ(*PrintArchitecture(fixture.client(), kLatest), model->text);
  EXPECT_EQ(model->checkpoint.version, 1);
}

TEST(LoadModel, ALoadedModelTrainsOnAndIsStoredAsWhatItWas) {
  ServerFixture fixture;
  vgg16::VGG net(vgg16::Options{.channels = 2, .hidden = 4, .pooled = 1, .classes = 3});
  ASSERT_TRUE(SaveCheckpoint(fixture.client(), "models/m",
                             {.module = net.get(), .forward = {{"", vgg16::Forward()}}})
                  .ok());
  const auto model = LoadModel(fixture.client(), kLatest);
  ASSERT_TRUE(model.ok()) << model.status();
  model->module->train();
  torch::optim::SGD sgd(model->module->parameters(), 0.1);
  model->Forward(torch::rand({2, 3, 32, 32})).sum().backward();
  sgd.step();
  const auto again = SaveCheckpoint(fixture.client(), "models/m",
                                    {.module = model->module.get(), .optimizer = &sgd});
  ASSERT_TRUE(again.ok()) << again.status();
  const auto reloaded = LoadModel(fixture.client(), kLatest);
  ASSERT_TRUE(reloaded.ok()) << reloaded.status();
  EXPECT_EQ(reloaded->text, model->text);
  model->module->eval();
  const torch::Tensor images = torch::rand({1, 3, 32, 32});
  ExpectSameBits(reloaded->Forward(images), model->Forward(images), "the output");
  // The class itself still loads it.
  EXPECT_TRUE(
      LoadCheckpoint(fixture.client(), kLatest, {.module = net.get()}).status.ok());
}

struct BlockImpl : nn::Module {
  BlockImpl() {
    conv = register_module("conv", nn::Conv2d(nn::Conv2dOptions(3, 3, 3).padding(1)));
    bn = register_module("bn", nn::BatchNorm2d(3));
    shortcut = register_module("shortcut", nn::Sequential(nn::Conv2d(3, 3, 1)));
  }
  torch::Tensor forward(torch::Tensor x) {
    return torch::relu(bn(conv(x)) + shortcut->forward(x));
  }
  nn::Conv2d conv{nullptr};
  nn::BatchNorm2d bn{nullptr};
  nn::Sequential shortcut{nullptr};
};
TORCH_MODULE(Block);

TEST(LoadModel, ResidualBlocksRunWithTheirShortcut) {
  ServerFixture fixture;
  nn::Sequential net{Block(), Block(), nn::Flatten()};
  const std::vector<std::string> steps = {"conv", "bn", "add(shortcut)", "relu"};
  net->train();
  net->forward(torch::rand({4, 3, 5, 5}));  // Running statistics that are not 0 and 1.
  const auto saved = SaveCheckpoint(
      fixture.client(), "models/m",
      {.module = net.ptr().get(), .forward = {{"0", steps}, {"1", steps}}});
  ASSERT_TRUE(saved.ok()) << saved.status();
  const auto model = LoadModel(fixture.client(), kLatest);
  ASSERT_TRUE(model.ok()) << model.status();
  net->eval();
  const torch::Tensor x = torch::rand({2, 3, 5, 5});
  ExpectSameBits(model->Forward(x), net->forward(x), "the output");
}

TEST(LoadModel, AnEncoderRunsItsLayersInOrderAndThenItsNorm) {
  ServerFixture fixture;
  torch::manual_seed(3);
  nn::TransformerEncoderLayer layer(nn::TransformerEncoderLayerOptions(8, 2).dropout(0));
  nn::TransformerEncoder encoder(nn::TransformerEncoderOptions(layer, 3).norm(
      nn::AnyModule(nn::LayerNorm(nn::LayerNormOptions({8})))));
  for (torch::Tensor& p : encoder->parameters()) p.data().normal_();
  encoder->eval();
  ASSERT_TRUE(
      SaveCheckpoint(fixture.client(), "models/m", {.module = encoder.get()}).ok());
  const auto model = LoadModel(fixture.client(), kLatest);
  ASSERT_TRUE(model.ok()) << model.status();
  const torch::Tensor words = torch::rand({5, 2, 8});
  ExpectSameBits(model->Forward(words), encoder(words), "the output");
}

TEST(LoadModel, UpsampleTakesOneSizeForAllDimensionsAsPythonDoes) {
  const torch::Tensor image = torch::rand({1, 2, 3, 5});
  const auto output = [&](const char* text) {
    const auto built = torch_internal::BuildArchitecture(Parsed(text));
    EXPECT_TRUE(built.ok() && built->forward) << text;
    return built.ok() && built->forward ? built->forward(image) : torch::Tensor();
  };
  ExpectSameBits(output("Upsample(scale_factor=2)"),
                 image.repeat_interleave(2, 2).repeat_interleave(2, 3), "by a factor");
  EXPECT_EQ(output("Upsample(4, mode='bilinear', align_corners=True)").sizes(),
            torch::IntArrayRef({1, 2, 4, 4}));
  EXPECT_EQ(output("Upsample((6, 7))").sizes(), torch::IntArrayRef({1, 2, 6, 7}));
}

TEST(LoadModel, TheRefusalNamesTheModuleAndWhatToDo) {
  ServerFixture fixture;
  const auto refusal = [&](const SaveArgs& args) {
    const auto saved = SaveCheckpoint(fixture.client(), "models/m", args);
    EXPECT_TRUE(saved.ok()) << saved.status();
    const auto model = LoadModel(fixture.client(), kLatest);
    EXPECT_EQ(model.status().code(), absl::StatusCode::kFailedPrecondition);
    return std::string(model.status().message());
  };
  Odd odd;
  EXPECT_THAT(refusal({.module = odd.get()}),
              HasSubstr("`` (Odd) has no forward: save it with SaveArgs.forward"));
  EXPECT_THAT(refusal({.module = odd.get(), .forward = {{"", {"fc", "functional"}}}}),
              HasSubstr("`functional` (Functional) has no forward"));
  EXPECT_THAT(refusal({.module = odd.get(), .forward = {{"", {"layer"}}}}),
              HasSubstr("`layer` (TransformerEncoderLayer) cannot be built"));
  EXPECT_THAT(refusal({.module = odd.get(), .architecture = false}),
              HasSubstr("has no architecture"));
  EXPECT_FALSE(PrintArchitecture(fixture.client(), kLatest).ok());
}

TEST(LoadModel, TensorsOfAUsersClassItselfAreKept) {
  ServerFixture fixture;
  Odd odd;
  ASSERT_TRUE(SaveCheckpoint(fixture.client(), "models/m",
                             {.module = odd.get(), .forward = {{"", {"fc"}}}})
                  .ok());
  const auto model = LoadModel(fixture.client(), kLatest);
  ASSERT_TRUE(model.ok()) << model.status();
  const StateDict state = GetStateDict(*model->module);
  for (const auto& [key, tensor] : GetStateDict(*odd)) {
    ExpectSameBits(At(state, key), tensor, key);
  }
  const torch::Tensor x = torch::rand({2, 3});
  ExpectSameBits(model->Forward(x), odd(x), "the output");
}

TEST(LoadModel, ATensorThatAFilterLeavesOutIsZeroAndReportedAsSkipped) {
  ServerFixture fixture;
  Odd odd;
  ASSERT_TRUE(SaveCheckpoint(fixture.client(), "models/m",
                             {.module = odd.get(), .forward = {{"", {"fc"}}}})
                  .ok());
  // What torch's allocator gives out again.
  for (int i = 0; i < 8; ++i) (void)torch::full({2, 3}, 7.0);
  const auto model =
      LoadModel(fixture.client(), kLatest, {.selection = {.exclude = {"scale"}}});
  ASSERT_TRUE(model.ok()) << model.status();
  EXPECT_THAT(model->report.skipped, ElementsAre("scale"));
  EXPECT_TRUE(At(GetStateDict(*model->module), "scale").equal(torch::zeros({2, 3})));
}

TEST(LoadModel, ASectionBesideTheModelIsRefusedByItsField) {
  ServerFixture fixture;
  const absl::Status refused =
      LoadModel(fixture.client(), kLatest, {.selection = {.sections = {"optimizer"}}})
          .status();
  EXPECT_EQ(refused.code(), absl::StatusCode::kInvalidArgument) << refused;
  EXPECT_THAT(std::string(refused.message()), HasSubstr("selection.sections"));
}

TEST(LoadModel, TensorsOfASecondNetworkAreLeftOutAndReported) {
  ServerFixture fixture;
  nn::Sequential actor{nn::Linear(3, 2)};
  nn::Linear critic(3, 1);
  SaveArgs args = {.module = actor.ptr().get(),
                   .extra_tensors = {{"temperature", torch::full({2}, 0.5)}}};
  for (auto& [key, tensor] : GetStateDict(*critic)) {
    args.extra_tensors.emplace_back("critic." + key, tensor);
  }
  ASSERT_TRUE(SaveCheckpoint(fixture.client(), "models/m", args).ok());
  const auto model = LoadModel(fixture.client(), kLatest);
  ASSERT_TRUE(model.ok()) << model.status();
  EXPECT_THAT(model->report.unexpected, ElementsAre("critic.weight", "critic.bias"));
  const torch::Tensor x = torch::rand({4, 3});
  ExpectSameBits(model->Forward(x), actor->forward(x), "the output");
  ExpectSameBits(At(GetStateDict(*model->module), "temperature"), torch::full({2}, 0.5),
                 "temperature");

  args.extra_tensors.emplace_back("0.extra", torch::ones({1}));
  ASSERT_TRUE(SaveCheckpoint(fixture.client(), "models/m", args).ok());
  const absl::Status refused = LoadModel(fixture.client(), kLatest).status();
  EXPECT_EQ(refused.code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_THAT(std::string(refused.message()),
              HasSubstr("module `0` has no place for tensor `0.extra`"));
}

TEST(SaveForward, StepsThatDoNotFitAreRefusedBeforeAnythingIsSent) {
  ServerFixture fixture;
  Odd odd;
  const auto refusal = [&](const SaveArgs& args) {
    const auto saved = SaveCheckpoint(fixture.client(), "models/m", args);
    EXPECT_EQ(saved.status().code(), absl::StatusCode::kInvalidArgument);
    return std::string(saved.status().message());
  };
  EXPECT_THAT(refusal({.module = odd.get(), .forward = {{"", {"fd"}}}}),
              HasSubstr("`fd` is neither a child nor a known function"));
  EXPECT_THAT(refusal({.module = odd.get(), .forward = {{"x", {"fc"}}}}),
              HasSubstr("forward[`x`]: no such module"));
  StateDict dict = GetStateDict(*odd);
  EXPECT_THAT(refusal({.state_dict = &dict, .forward = {{"", {"fc"}}}}),
              HasSubstr("needs a module"));
  EXPECT_EQ(fixture.client().GetModel("models/m").status().code(),
            absl::StatusCode::kNotFound);
}

TEST(ForwardFunctions, EachRunsAsTorchsOwn) {
  const torch::Tensor x = torch::randn({2, 3, 8, 8});
  const std::map<std::string, torch::Tensor> wanted = {
      {"relu", x.relu()},
      {"relu6", torch::relu6(x)},
      {"gelu", torch::gelu(x)},
      {"elu(0.5)", torch::elu(x, 0.5)},
      {"silu", torch::silu(x)},
      {"selu", torch::selu(x)},
      {"mish", torch::mish(x)},
      {"leaky_relu(0.2)", torch::leaky_relu(x, 0.2)},
      {"hardswish", torch::hardswish(x)},
      {"sigmoid", x.sigmoid()},
      {"logsigmoid", torch::log_sigmoid(x)},
      {"tanh", x.tanh()},
      {"softplus", torch::softplus(x)},
      {"softmax(1)", x.softmax(1)},
      {"log_softmax(-1)", x.log_softmax(-1)},
      {"dropout(0.9)", x},
      {"flatten(1)", x.flatten(1)},
      {"view(2, -1)", x.view({2, -1})},
      {"squeeze(0)", x.squeeze(0)},
      {"unsqueeze(1)", x.unsqueeze(1)},
      {"transpose(1, 2)", x.transpose(1, 2)},
      {"select(1, -1)", x.select(1, -1)},
      {"mean(2, 3)", x.mean({2, 3})},
      {"max_pool2d(2)", torch::max_pool2d(x, 2)},
      {"avg_pool2d(3, 2, 1)", torch::avg_pool2d(x, 3, 2, 1)},
      {"adaptive_avg_pool2d(2)", torch::adaptive_avg_pool2d(x, {2, 2})},
      {"add", x + x},
      {"mul", x * x}};
  std::set<std::string> tried;
  for (const auto& [step, want] : wanted) {
    v1::Architecture architecture;
    architecture.mutable_root()->set_type("Net");
    architecture.mutable_root()->add_forward(step);
    const auto built = torch_internal::BuildArchitecture(architecture);
    ASSERT_TRUE(built.ok() && built->forward) << step;
    built->module->eval();
    ExpectSameBits(built->forward(x), want, step);
    tried.insert(step.substr(0, step.find('(')));
  }
  for (const ForwardFunction& function : ForwardFunctions()) {
    EXPECT_TRUE(tried.contains(function.name)) << function.name;
  }
}

}  // namespace architecture_tests
}  // namespace
}  // namespace modelstore
