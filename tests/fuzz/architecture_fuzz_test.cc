// Damaged module strings and damaged architectures: every input is either refused
// with its place, or is a module that prints, has tensors and can be edited.
#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "google/protobuf/stubs/logging.h"
#include "proto/contract/architecture/architecture.h"
#include "proto/contract/architecture/tensors.h"
#include "proto/contract/architecture/text.h"
#include "proto/contract/utf8.h"
#include "tests/fuzz/mutator.h"
#include "tests/support/seed.h"

namespace modelstore {
namespace {

std::vector<std::string> Corpus() {
  return {"Linear(in_features=4096, out_features=10, bias=True)",
          "nn.Conv2d(3, 64, kernel_size=(3, 3), stride=2, padding='same', dilation=1)",
          "Sequential(Linear(10, 10), ReLU(inplace=True), Sequential())",
          "ModuleList([Tanh(), LSTM(3, 5, 2, dropout=0.5)])",
          "ModuleDict({'a': ReLU(), \"b\": Dropout(1e-05)})",
          "TransformerEncoder(TransformerEncoderLayer(8, 2), 3, norm=LayerNorm((8,)))",
          "Transformer(8, 2, 1, 1)",
          "Upsample(scale_factor=(2.0, 3), mode=bilinear, align_corners=None)",
          "AdaptiveAvgPool2d((None, 7))",
          "Hardtanh(-inf, +1.5e-3)",
          "Identity(1, a=[1, 2, 'x'])",
          ""};
}

TEST(FuzzArchitecture, AModuleStringIsRefusedOrMakesAModuleThatIsWhole) {
  Mutator mutator(TestSeed(), Corpus());
  int64_t taken = 0;
  for (int64_t i = FuzzIterations(100'000); i > 0 && !HasFailure(); --i) {
    const std::string text = mutator.Next();
    SCOPED_TRACE(testing::PrintToString(text));
    const auto module =
        ParseModule("field", text,
                    mutator.Below(2) == 0 ? UnknownTypes::kRefuse : UnknownTypes::kKeep);
    if (!module.ok()) {
      EXPECT_EQ(module.status().code(), absl::StatusCode::kInvalidArgument);
      EXPECT_EQ(module.status().message().substr(0, 7), "field: ");
      EXPECT_LT(module.status().message().size(), 500u);
      EXPECT_TRUE(IsUtf8(module.status().message()));
      continue;
    }
    ++taken;
    EXPECT_TRUE(IsUtf8(PrintModule(*module)));
    EXPECT_LE(CountModules(*module), kMaxModules);
    v1::Architecture architecture;
    *architecture.mutable_root() = *module;
    EXPECT_TRUE(ValidateArchitecture("a", architecture).ok());
    const auto tensors = TensorsOf(*module);
    if (!tensors.ok()) continue;
    KeysAndShapes state;
    for (const TensorSpec& t : tensors->tensors) state.emplace_back(t.key, t.shape);
    EXPECT_TRUE(FindMisfits(architecture, state)->empty());
  }
  EXPECT_GT(taken, FuzzIterations(100'000) / 50);
}

TEST(FuzzArchitecture, AStoredArchitectureOfAnyBytesNeverBringsAnythingDown) {
  const google::protobuf::LogSilencer silencer;
  std::vector<std::string> corpus;
  for (const std::string& text : Corpus()) {
    const auto module = ParseModule("field", text, UnknownTypes::kKeep);
    v1::Architecture architecture;
    if (module.ok()) *architecture.mutable_root() = *module;
    architecture.mutable_root()->add_forward("0");
    corpus.push_back(architecture.SerializeAsString());
  }
  Mutator mutator(TestSeed(), corpus);
  int64_t valid = 0;
  for (int64_t i = FuzzIterations(50'000); i > 0 && !HasFailure(); --i) {
    v1::Architecture architecture;
    if (!architecture.ParseFromString(mutator.Next())) continue;
    const absl::Status status = ValidateArchitecture("field", architecture);
    ModuleTree& root = *architecture.mutable_root();
    PrintModule(root);
    FindMisfits(architecture, {{"weight", {1}}}).IgnoreError();
    ForwardSteps(root);
    if (!status.ok()) {
      EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
      continue;
    }
    ++valid;
    // What is valid stays so under every edit that is accepted.
    const auto new_module = ParseModule("m", "Linear(2, 3)");
    AddModule("f", "fuzz", *new_module, true, root).IgnoreError();
    if (root.children_size() > 1) {
      const std::string first = root.children(0).name();
      ReplaceModule("f", first, *new_module, root).IgnoreError();
      RenameModule("f", first, "renamed", root).IgnoreError();
      RemoveModule("f", root.children(1).name(), root).IgnoreError();
    }
    EXPECT_TRUE(ValidateArchitecture("field", architecture).ok());
  }
  EXPECT_GT(valid, FuzzIterations(50'000) / 50);
}

}  // namespace
}  // namespace modelstore
