// What is saved comes back bit for bit; what cannot be saved is refused by name.
#include <gmock/gmock.h>

#include "client/torch/element_type.h"
#include "client/torch/placement.h"
#include "tests/client_torch/server_fixture.h"
#include "tests/client_torch/tensors.h"

namespace modelstore {
namespace {

using support::At;
using support::ExpectSameBits;
using support::RandomBits;
using support::ServerFixture;
using ::testing::ElementsAreArray;
using ::testing::HasSubstr;

constexpr torch::ScalarType kTypes[] = {
    torch::kBool,
    torch::kByte,
    torch::kChar,
    torch::kShort,
    torch::kInt,
    torch::kLong,
    torch::kHalf,
    torch::kBFloat16,
    torch::kFloat,
    torch::kDouble,
    c10::ScalarType::ComplexHalf,
    c10::ScalarType::ComplexFloat,
    c10::ScalarType::ComplexDouble,
#if MODELSTORE_TORCH_HAS_FLOAT8
    c10::ScalarType::UInt16,
    c10::ScalarType::UInt32,
    c10::ScalarType::UInt64,
    c10::ScalarType::Float8_e4m3fn,
    c10::ScalarType::Float8_e5m2,
    c10::ScalarType::Float8_e4m3fnuz,
    c10::ScalarType::Float8_e5m2fnuz,
#endif
};

class RoundTripTest : public ::testing::Test {
 protected:
  // Saves the dict and loads it into fresh tensors.
  StateDict RoundTrip(const StateDict& stored) {
    auto saved = SaveCheckpoint(fixture_.client(), "models/m", {.state_dict = &stored});
    EXPECT_TRUE(saved.ok()) << saved.status();
    if (!saved.ok()) return {};
    StateDict loaded;
    LoadResult result =
        LoadCheckpoint(fixture_.client(), saved->name, {.state_dict = &loaded});
    EXPECT_TRUE(result.status.ok()) << result.status;
    return loaded;
  }

  // The status of saving one tensor named `layer.t`.
  absl::Status SaveOne(const torch::Tensor& tensor) {
    const StateDict stored = {{"layer.t", tensor}};
    return SaveCheckpoint(fixture_.client(), "models/m", {.state_dict = &stored})
        .status();
  }

  ServerFixture fixture_;
};

TEST_F(RoundTripTest, EveryElementTypeInEveryBitPattern) {
  StateDict stored;
  for (torch::ScalarType type : kTypes) {
    const std::string name = c10::toString(type);
    stored.emplace_back(name + ".scalar", RandomBits({}, type));
    stored.emplace_back(name + ".empty", RandomBits({0}, type));
    stored.emplace_back(name + ".empty3d", RandomBits({3, 0, 5}, type));
    stored.emplace_back(name + ".odd", RandomBits({7, 3, 5}, type));
    stored.emplace_back(name + ".large", RandomBits({1237, 1009}, type));
  }
  const StateDict loaded = RoundTrip(stored);
  EXPECT_THAT(support::KeysOf(loaded), ElementsAreArray(support::KeysOf(stored)));
  for (const auto& [key, tensor] : stored) ExpectSameBits(At(loaded, key), tensor, key);
}

TEST_F(RoundTripTest, StridedTensorsAreStoredContiguous) {
  const torch::Tensor base = torch::rand({2, 3, 4, 5});
  const StateDict stored = {
      {"transposed", base.transpose(0, 3)},
      {"channels_last", base.contiguous(at::MemoryFormat::ChannelsLast)},
      {"step", base.slice(3, 0, 5, 2)},
      {"offset", base.select(0, 1)},
      {"expanded", torch::rand({1, 4}).expand({3, 4})},
      {"conj", torch::rand({4}, torch::kComplexFloat).conj()},
      {"negated", torch::imag(torch::rand({4}, torch::kComplexFloat).conj())},
  };
  const StateDict loaded = RoundTrip(stored);
  for (const auto& [key, tensor] : stored) {
    ExpectSameBits(At(loaded, key), tensor, key);
    EXPECT_TRUE(At(loaded, key).is_contiguous()) << key;
  }
}

TEST_F(RoundTripTest, TiedTensorsAreStoredOnceAndStayTied) {
  const torch::Tensor shared = torch::rand({64, 64});
  const StateDict stored = {{"encoder.weight", shared},
                            {"decoder.weight", shared.view({64, 64})},
                            {"flat", shared.view({-1})},
                            {"copy", shared.clone()}};
  const StateDict loaded = RoundTrip(stored);
  for (const auto& [key, tensor] : stored) ExpectSameBits(At(loaded, key), tensor, key);
  EXPECT_TRUE(At(loaded, "encoder.weight").is_alias_of(At(loaded, "decoder.weight")));
  EXPECT_FALSE(At(loaded, "encoder.weight").is_alias_of(At(loaded, "flat")));
  EXPECT_FALSE(At(loaded, "encoder.weight").is_alias_of(At(loaded, "copy")));
  auto tensors = fixture_.client().ListTensors("models/m/checkpoints/latest");
  ASSERT_TRUE(tensors.ok()) << tensors.status();
  EXPECT_EQ((*tensors)[1].tied_to, "model:encoder.weight");
  EXPECT_EQ((*tensors)[2].tied_to, "");
}

TEST_F(RoundTripTest, RequiresGradComesBack) {
  const StateDict stored = {{"trained", torch::rand({3}).set_requires_grad(true)},
                            {"frozen", torch::rand({3})}};
  const StateDict loaded = RoundTrip(stored);
  EXPECT_TRUE(At(loaded, "trained").requires_grad());
  EXPECT_TRUE(At(loaded, "trained").is_leaf());
  EXPECT_FALSE(At(loaded, "frozen").requires_grad());
}

TEST_F(RoundTripTest, FreshSmallTensorsShareNothing) {
  StateDict stored;
  for (int i = 0; i < 100; ++i) {
    stored.emplace_back("t" + std::to_string(i), torch::rand({i + 1}));
  }
  StateDict loaded = RoundTrip(stored);
  ASSERT_EQ(loaded.size(), stored.size());
  for (int i = 0; i < 100; ++i) {
    EXPECT_EQ(loaded[i].second.storage().nbytes(), loaded[i].second.nbytes());
    EXPECT_EQ(reinterpret_cast<uintptr_t>(loaded[i].second.data_ptr()) % 64, 0u);
  }
  // One grows, one is dropped, one is overwritten: the others are as they were.
  loaded[5].second.resize_({1000}).fill_(1);
  loaded[6].second = torch::Tensor();
  loaded[7].second.fill_(9);
  for (int i = 8; i < 100; ++i) {
    ExpectSameBits(loaded[i].second, stored[i].second, stored[i].first);
  }
}

TEST_F(RoundTripTest, BuffersAndParametersOfAModule) {
  support::Tree source, target;
  source->bn->running_var.fill_(3);
  source->bn->num_batches_tracked.fill_(41);
  ASSERT_TRUE(
      SaveCheckpoint(fixture_.client(), "models/m", {.module = source.get()}).ok());
  target->eval();
  LoadResult result = LoadCheckpoint(fixture_.client(), "models/m/checkpoints/latest",
                                     {.module = target.get()});
  ASSERT_TRUE(result.status.ok()) << result.status;
  const StateDict want = GetStateDict(*source), got = GetStateDict(*target);
  for (size_t i = 0; i < want.size(); ++i) {
    ExpectSameBits(got[i].second, want[i].second, want[i].first);
  }
  EXPECT_FALSE(target->is_training()) << "a load leaves the mode alone";
}

TEST_F(RoundTripTest, SectionsHoldWhateverADictCanHold) {
  SaveArgs args;
  const StateDict none;
  args.state_dict = &none;
  ValueTree tree;
  tree.value = Value::Dict(
      {{"beyond int64",
        Value(Value::Variant(Value::BigInt{"-340282366920938463463374607431768211457"}))},
       {"uint64", Value(uint64_t{18446744073709551615u})},
       {"dots.and/slashes~", Value::Tuple({1, 2.5, "x", Value(), true})},
       {Value(3), Value::Tensor("3")},
       {Value(0.5), Value(Value::Variant(Value::Bytes{std::string("\0\xff", 2)}))},
       {Value(), Value(Value::Variant(Value::Complex{1, -2}))},
       {"a/b", Value::List({Value::Tensor("a~1b/0"),
                            Value(Value::Variant(Value::Size{{2, 3}}))})},
       {"dtype", Value(Value::Variant(Value::DTypeName{"bfloat16"}))},
       {"device", Value(Value::Variant(Value::DeviceName{"cuda:1"}))}});
  tree.tensors = {{"3", torch::rand({3})}, {"a~1b/0", torch::tensor(int64_t{5})}};
  args.sections["extra"] = tree;
  auto saved = SaveCheckpoint(fixture_.client(), "models/m", args);
  ASSERT_TRUE(saved.ok()) << saved.status();
  LoadResult result = LoadCheckpoint(fixture_.client(), saved->name, {},
                                     {.selection = {.sections = {"extra"}}});
  ASSERT_TRUE(result.status.ok()) << result.status;
  const ValueTree& got = result.sections.at("extra");
  EXPECT_EQ(got.value, tree.value) << got.value.ToString();
  ASSERT_EQ(got.tensors.size(), 2u);
  for (const auto& [key, tensor] : tree.tensors) {
    ExpectSameBits(got.tensors.at(key), tensor, key);
  }
}

TEST_F(RoundTripTest, AVersionReportsHowItWasTrained) {
  torch::nn::Linear net(2, 2);
  const Value parameters = Value::Dict({{"lr", 0.1},
                                        {"betas", Value::Tuple({0.9, 0.999})},
                                        {"batch_size", 64},
                                        {"layers", Value::List({2, 2})}});
  SaveArgs args = {.module = net.get(),
                   .metadata = {.labels = {{"dataset", "iris"}},
                                .description = "two layers, no dropout"},
                   .code_commit = "4f2a91",
                   .attachments = {{"card.md", "text/markdown", "# Net"}}};
  args.sections["hyperparameters"] = {parameters, {}};
  ASSERT_TRUE(SaveCheckpoint(fixture_.client(), "models/m", args).ok());
  const LoadResult result =
      LoadCheckpoint(fixture_.client(), support::kLatest, {},
                     {.selection = {.sections = {"hyperparameters"}}});
  ASSERT_TRUE(result.status.ok()) << result.status;
  EXPECT_EQ(result.sections.at("hyperparameters").value, parameters);
  EXPECT_EQ(result.checkpoint.description, "two layers, no dropout");
  EXPECT_EQ(result.checkpoint.labels.at("dataset"), "iris");
  EXPECT_EQ(result.checkpoint.code_commit, "4f2a91");
  ASSERT_EQ(result.checkpoint.attachments.size(), 1u);
  EXPECT_EQ(result.checkpoint.attachments[0].name, "card.md");
  EXPECT_EQ(result.checkpoint.framework, "libtorch " TORCH_VERSION);
}

TEST_F(RoundTripTest, AValueThatNamesNoTensorIsRefused) {
  SaveArgs args;
  args.sections["extra"].value = Value::List({Value::Tensor("absent")});
  absl::Status status = SaveCheckpoint(fixture_.client(), "models/m", args).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(std::string(status.message()), HasSubstr("\"absent\""));
}

TEST_F(RoundTripTest, WhatIsNotDenseIsRefusedByName) {
  const std::vector<std::pair<torch::Tensor, std::string>> cases = {
      {torch::Tensor(), "undefined"},
      {torch::eye(3).to_sparse(), "Sparse"},
      {torch::eye(3).to_sparse_csr(), "SparseCsr"},
      {torch::quantize_per_tensor(torch::rand({4}), 0.1, 0, torch::kQInt8), "quantized"},
      {torch::empty({3}, torch::TensorOptions(torch::kMeta)), "meta"},
      {at::_nested_tensor_from_tensor_list({torch::rand({2}), torch::rand({3})}),
       "nested"}};
  for (const auto& [tensor, word] : cases) {
    absl::Status status = SaveOne(tensor);
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument) << word;
    EXPECT_THAT(std::string(status.message()), HasSubstr("`model:layer.t`")) << word;
    EXPECT_THAT(std::string(status.message()), HasSubstr(word));
  }
  EXPECT_FALSE(fixture_.client().GetModel("models/m").ok())
      << "a refused save made a model";
}

TEST_F(RoundTripTest, ADeviceThatDoesNotExistIsRefusedByName) {
  if (torch::cuda::is_available()) GTEST_SKIP() << "there is a GPU here";
  const StateDict stored = {{"t", torch::rand({2})}};
  StateDict loaded;
  ASSERT_TRUE(
      SaveCheckpoint(fixture_.client(), "models/m", {.state_dict = &stored}).ok());
  const std::string name = "models/m/checkpoints/latest";
  absl::Status none = LoadCheckpoint(fixture_.client(), name, {.state_dict = &loaded},
                                     {.device = "cuda:1"})
                          .status;
  EXPECT_EQ(none.code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_THAT(std::string(none.message()), HasSubstr("cuda:1"));
  for (const char* text : {"gpu", "cuda:", "cuda:x", "cuda:-1", "cuda:01", "cpu:0"}) {
    EXPECT_EQ(
        LoadCheckpoint(fixture_.client(), name, {.state_dict = &loaded}, {.device = text})
            .status.code(),
        absl::StatusCode::kInvalidArgument)
        << text;
  }
}

TEST_F(RoundTripTest, MoreThanTheMemoryThatIsLeftIsRefusedWithBothFigures) {
  EXPECT_TRUE(torch_internal::CheckHostMemory(1 << 20).ok());
  absl::Status status = torch_internal::CheckHostMemory(int64_t{1} << 60);
  EXPECT_EQ(status.code(), absl::StatusCode::kResourceExhausted);
  EXPECT_THAT(std::string(status.message()),
              ::testing::ContainsRegex("needs 1152921504606846976 bytes.* [0-9]+ are"));
}

TEST_F(RoundTripTest, TheGeneratorContinuesWhereItWasSaved) {
  torch::manual_seed(11);
  (void)torch::randn({3});  // odd: leaves half a pair of normal numbers behind
  const StateDict none;
  auto saved =
      SaveCheckpoint(fixture_.client(), "models/m", {.state_dict = &none, .rng = true});
  ASSERT_TRUE(saved.ok()) << saved.status();
  const torch::Tensor want = torch::randn({100});
  torch::manual_seed(12);
  LoadResult result = LoadCheckpoint(fixture_.client(), saved->name, {.rng = true});
  ASSERT_TRUE(result.status.ok()) << result.status;
  EXPECT_TRUE(torch::randn({100}).equal(want));
}

TEST_F(RoundTripTest, AStateOfAnotherGeneratorIsRefusedBeforeAnythingIsTouched) {
  SaveArgs args;
  torch::nn::Linear source(2, 2), target(2, 2);
  args.module = source.get();
  args.sections["rng"].value = Value::Dict({{"cpu", Value::Tensor("cpu")}});
  args.sections["rng"].tensors["cpu"] = torch::zeros({16}, torch::kByte);
  ASSERT_TRUE(SaveCheckpoint(fixture_.client(), "models/m", args).ok());
  const torch::Tensor before = target->weight.detach().clone();
  LoadResult result = LoadCheckpoint(fixture_.client(), "models/m/checkpoints/latest",
                                     {.module = target.get(), .rng = true});
  EXPECT_EQ(result.status.code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_TRUE(target->weight.equal(before));
}

}  // namespace
}  // namespace modelstore
