// ModifyCheckpoint: edits of modules.
#include <gmock/gmock.h>

#include "server/modify/random_source.h"
#include "tests/server/module_harness.h"

namespace modelstore::server {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::Not;
using Fate = v1::ModifyCheckpointResponse::ParameterFate;
using Warning = v1::ModifyCheckpointResponse::Warning;

constexpr char kOld[] = "models/m/checkpoints/1";
constexpr char kNew[] = "models/m/checkpoints/2";

// Of the same shapes and forward as torchvision's.
ModuleTree Vgg16() {
  std::string features = "Sequential(";
  int in = 3;
  const char* comma = "";
  for (const int out :
       {64, 64, 0, 128, 128, 0, 256, 256, 256, 0, 512, 512, 512, 0, 512, 512, 512, 0}) {
    features += comma;
    comma = ", ";
    if (out == 0) {
      features += "MaxPool2d(2, 2)";
      continue;
    }
    features += "Conv2d(" + std::to_string(in) + ", " + std::to_string(out) +
                ", kernel_size=3, padding=1), ReLU(inplace=True)";
    in = out;
  }
  return Net({{"features", features + ")"},
              {"avgpool", "AdaptiveAvgPool2d((7, 7))"},
              {"classifier",
               "Sequential(Linear(25088, 4096), ReLU(inplace=True), Dropout(), "
               "Linear(4096, 4096), ReLU(inplace=True), Dropout(), Linear(4096, 1000))"}},
             {"features", "avgpool", "flatten(1)", "classifier"});
}

class VggTest : public ModuleEditTest {
 protected:
  VggTest() { SaveZeros(Vgg16()); }
  // The edit, drawn where the server can, of zeros where it was built without torch.
  std::string Init() const {
    return modify::WithTorch() ? "seed: 1" : "scheme: SCHEME_ZEROS";
  }
};

TEST_F(VggTest, ReplacingTheLastLayerStoresOnlyItsNewTensors) {
  EXPECT_EQ(Full(kOld).logical_bytes(), int64_t{138'357'544} * 4);
  const Modified modified = Modify(
      "edits { replace_module { path: 'classifier.6' module: 'Linear(4096, 10)' "
      "initialization { " +
      Init() + " } } }");
  ASSERT_TRUE(modified.status.ok()) << modified.status;
  EXPECT_EQ(modified.result.new_tensor_bytes(), 163'880);
  EXPECT_LE(modified.result.stored_bytes(), 163'880);
  EXPECT_THAT(
      modified.result.architecture_before(),
      HasSubstr("    (6): Linear(in_features=4096, out_features=1000, bias=True)"));
  EXPECT_THAT(modified.result.architecture_after(),
              HasSubstr("    (6): Linear(in_features=4096, out_features=10, bias=True)"));
  EXPECT_EQ(modified.FateOf("classifier.6.weight").fate(), Fate::FATE_ADDED);
  EXPECT_EQ(modified.FateOf("classifier.3.weight").fate(), Fate::FATE_KEPT);
  EXPECT_EQ(modified.report.warnings_size(), 0);
  EXPECT_EQ(ModelKeys(kNew), ModelKeys(kOld));
}

TEST_F(VggTest, ALinearAtTheTopIsOnlyRegisteredUnlessTheForwardTakesIt) {
  const std::string edit =
      "path: 'add_linear' module: 'Linear(1000, 10)' "
      "initialization { " +
      Init() + " }";
  Modified modified = Modify("edits { add_module { " + edit + " } }");
  ASSERT_TRUE(modified.status.ok()) << modified.status;
  EXPECT_THAT(modified.WarningsOf("add_linear"),
              ElementsAre(Warning::KIND_NOT_IN_FORWARD));
  EXPECT_EQ(modified.result.new_tensor_bytes(), 40'040);
  EXPECT_THAT(modified.result.architecture_after(),
              HasSubstr("  (add_linear): Linear(in_features=1000, out_features=10, "
                        "bias=True)\n)"));
  EXPECT_EQ(Full(kNew).architecture().root().forward_size(), 4) << "output [N, 1000]";

  modified = Modify("name: 'models/m/checkpoints/1' edits { add_module { " + edit +
                    " in_forward: true } }");
  ASSERT_TRUE(modified.status.ok()) << modified.status;
  EXPECT_THAT(modified.WarningsOf("add_linear"), IsEmpty());
  EXPECT_THAT(
      Full("models/m/checkpoints/3").architecture().root().forward(),
      ElementsAre("features", "avgpool", "flatten(1)", "classifier", "add_linear"));
}

TEST_F(VggTest, ALinearInsideTheClassifierIsAppendedToItsFlow) {
  const Modified modified = Modify(
      "edits { add_module { path: 'classifier.add_linear' "
      "module: 'Linear(1000, 10)' initialization { " +
      Init() + " } } }");
  ASSERT_TRUE(modified.status.ok()) << modified.status;
  EXPECT_EQ(modified.report.warnings_size(), 0);
  EXPECT_EQ(modified.result.new_tensor_bytes(), 40'040);
  EXPECT_THAT(modified.result.architecture_after(),
              HasSubstr("    (add_linear): Linear(in_features=1000, out_features=10, "
                        "bias=True)\n  )\n)"));
  EXPECT_EQ(ModelKeys(kNew).back(), "classifier.add_linear.bias");
}

class ModifyModulesTest : public ModuleEditTest {
 protected:
  ModifyModulesTest() {
    SaveModule(Net({{"a", "Linear(4, 3)"},
                    {"b", "Sequential(Linear(3, 3), BatchNorm1d(3), Linear(3, 2))"}},
                   {"a", "b"}));
    old_ = Bytes(kOld);
  }
  void ExpectRefused(const std::string& edit, absl::StatusCode code,
                     const std::string& text) {
    const Modified modified =
        Modify("edits { cast { dtype: DTYPE_FLOAT32 } } edits { " + edit + " }");
    EXPECT_EQ(modified.status.code(), code) << edit << ": " << modified.status;
    EXPECT_THAT(std::string(modified.status.message()), HasSubstr(text));
    EXPECT_EQ(LatestVersion(), 1);
  }

  std::map<std::string, std::string> old_;
};

TEST_F(ModifyModulesTest, ErrorsNameTheEditAndItsField) {
  ExpectRefused("add_module { path: 'a' module: 'ReLU()' }",
                absl::StatusCode::kAlreadyExists, "edits[1].add_module.path");
  ExpectRefused("add_module { path: 'c.d' module: 'ReLU()' }",
                absl::StatusCode::kNotFound, "edits[1].add_module.path");
  ExpectRefused("add_module { path: 'c' module: 'Linear(3)' }",
                absl::StatusCode::kInvalidArgument, "edits[1].add_module.module");
  ExpectRefused("add_module { module: 'ReLU()' }", absl::StatusCode::kInvalidArgument,
                "edits[1].add_module.path");
  ExpectRefused("replace_module { path: 'b.7' module: 'ReLU()' }",
                absl::StatusCode::kNotFound, "edits[1].replace_module.path");
  ExpectRefused("remove_module { path: 'x' }", absl::StatusCode::kNotFound,
                "edits[1].remove_module.path");
  ExpectRefused("rename_module { path: 'a' new_name: 'b' }",
                absl::StatusCode::kAlreadyExists, "edits[1].rename_module.new_name");
  ExpectRefused("rename_module { path: 'a' new_name: 'x.y' }",
                absl::StatusCode::kInvalidArgument, "edits[1].rename_module.new_name");
  ExpectRefused(
      "add_module { path: 'c' module: 'Linear(2, 2)' initialization { "
      "scheme: SCHEME_NORMAL std: -1 } }",
      absl::StatusCode::kInvalidArgument, "edits[1].add_module.initialization.std");
}

TEST_F(ModifyModulesTest, ARemovedModuleTakesItsTensorsAndStepsWithIt) {
  const Modified modified = Modify("edits { remove_module { path: 'b.1' } }");
  ASSERT_TRUE(modified.status.ok()) << modified.status;
  EXPECT_THAT(ModelKeys(kNew), ElementsAre("a.weight", "a.bias", "b.0.weight", "b.0.bias",
                                           "b.2.weight", "b.2.bias"));
  EXPECT_EQ(modified.FateOf("b.1.weight").fate(), Fate::FATE_REMOVED);
  EXPECT_EQ(modified.result.stored_bytes(), 0);
  EXPECT_THAT(modified.result.architecture_after(), Not(HasSubstr("BatchNorm")));
}

TEST_F(ModifyModulesTest, ARenamedModuleKeepsItsBytesItsPlaceAndItsStep) {
  const Modified modified =
      Modify("edits { rename_module { path: 'a' new_name: 'first' } }");
  ASSERT_TRUE(modified.status.ok()) << modified.status;
  EXPECT_EQ(ModelKeys(kNew)[0], "first.weight");
  EXPECT_EQ(Bytes(kNew)["model:first.weight"], old_["model:a.weight"]);
  EXPECT_THAT(Full(kNew).architecture().root().forward(), ElementsAre("first", "b"));
  EXPECT_EQ(modified.FateOf("first.weight").old_key(), "a.weight");
}

TEST_F(ModifyModulesTest, SizesThatNoLongerFitAreAWarning) {
  const Modified modified = Modify(
      "edits { replace_module { path: 'a' module: 'Linear(4, 5)' "
      "initialization { scheme: SCHEME_ONES } } }");
  ASSERT_TRUE(modified.status.ok()) << modified.status;
  EXPECT_THAT(modified.WarningsOf("b.0"), ElementsAre(Warning::KIND_SHAPES_DO_NOT_FIT));
  EXPECT_THAT(modified.report.warnings(0).message(),
              HasSubstr("takes 3 features, a before it gives 5"));
  EXPECT_EQ(ValuesOf<float>(Bytes(kNew)["model:a.weight"]), std::vector<float>(20, 1.0F));
}

TEST_F(ModifyModulesTest, WithoutAnArchitectureKeysAreEnoughAndItSaysSo) {
  SaveModule(Net({{"a", "Linear(4, 3)"}, {"b", "Linear(3, 2)"}}), {}, false);
  const Modified modified = Modify(
      "edits { replace_module { path: 'b' module: 'Linear(3, 1)' "
      "initialization { scheme: SCHEME_ZEROS } } }"
      "edits { rename_module { path: 'a' new_name: 'z' } }"
      "edits { add_module { path: 'c' module: 'PReLU()' "
      "initialization { scheme: SCHEME_ONES } } }");
  ASSERT_TRUE(modified.status.ok()) << modified.status;
  EXPECT_THAT(ModelKeys("models/m/checkpoints/3"),
              ElementsAre("z.weight", "z.bias", "b.weight", "b.bias", "c.weight"));
  EXPECT_THAT(modified.WarningsOf("b"),
              ElementsAre(Warning::KIND_ARCHITECTURE_INCOMPLETE));
  EXPECT_EQ(Modify("edits { remove_module { path: 'y' } }").status.code(),
            absl::StatusCode::kNotFound);
  EXPECT_EQ(Modify("edits { rename_module { path: 'z' new_name: 'b' } }").status.code(),
            absl::StatusCode::kAlreadyExists);
}

TEST_F(ModifyModulesTest, ADrawnSeedIsKeptWithTheVersionAndRepeatsIt) {
  const std::string edit =
      "edits { replace_module { path: 'a' module: 'Linear(4, 3)' } }";
  const Modified first = Modify(edit);
  if (!modify::WithTorch()) {
    EXPECT_EQ(first.status.code(), absl::StatusCode::kUnimplemented) << first.status;
    EXPECT_EQ(LatestVersion(), 1);
    return;
  }
  ASSERT_TRUE(first.status.ok()) << first.status;
  const v1::Edit kept = Full(kNew).edits(0);
  ASSERT_TRUE(kept.replace_module().initialization().has_seed());
  v1::ModifyCheckpointRequest again;
  again.set_name(kOld);
  *again.add_edits() = kept;
  ASSERT_TRUE(RunModify(harness_, again).status.ok());
  EXPECT_EQ(Bytes("models/m/checkpoints/3"), Bytes(kNew));
  ASSERT_TRUE(Modify("name: 'models/m/checkpoints/1' " + edit).status.ok());
  EXPECT_NE(Bytes("models/m/checkpoints/4"), Bytes(kNew));
}

class ResizeTest : public ModuleEditTest {
 protected:
  ResizeTest() {
    SaveModule(Net({{"fc", "Linear(3, 4)"},
                    {"conv", "Conv2d(2, 4, 3)"},
                    {"up", "ConvTranspose2d(2, 3, 2)"},
                    {"embed", "Embedding(5, 2)"}}));
  }
  std::vector<float> Values(const std::string& checkpoint, const std::string& key) {
    return ValuesOf<float>(Bytes(checkpoint)["model:" + key]);
  }
};

TEST_F(ResizeTest, ChosenRowsAreKeptInTheirNewOrder) {
  const Modified modified = Modify(
      "edits { resize_output { path: 'fc' size: 3 keep_rows: [3, 1] new_rows: "
      "NEW_ROWS_ZEROS } }");
  ASSERT_TRUE(modified.status.ok()) << modified.status;
  const auto old = Values(kOld, "fc.weight"), bias = Values(kOld, "fc.bias");
  EXPECT_EQ(
      Values(kNew, "fc.weight"),
      (std::vector<float>{old[9], old[10], old[11], old[3], old[4], old[5], 0, 0, 0}));
  EXPECT_EQ(Values(kNew, "fc.bias"), (std::vector<float>{bias[3], bias[1], 0}));
  EXPECT_THAT(modified.result.architecture_after(),
              HasSubstr("(fc): Linear(in_features=3, out_features=3, bias=True)"));
  EXPECT_EQ(modified.FateOf("fc.weight").fate(), Fate::FATE_CHANGED);
}

TEST_F(ResizeTest, RowsThatAreAddedShareTheOldOnes) {
  const Modified modified =
      Modify("edits { resize_output { path: 'embed' size: 7 new_rows: NEW_ROWS_MEAN } }");
  ASSERT_TRUE(modified.status.ok()) << modified.status;
  EXPECT_EQ(modified.result.new_tensor_bytes(), 2 * 2 * 4);
  const auto old = Values(kOld, "embed.weight"), now = Values(kNew, "embed.weight");
  double mean = 0;
  for (int row = 0; row < 5; ++row) mean += static_cast<double>(old[row * 2]);
  EXPECT_EQ(now[10], static_cast<float>(mean / 5));
  EXPECT_EQ(now[12], now[10]);
  EXPECT_EQ(std::vector<float>(now.begin(), now.begin() + 10), old);
}

TEST_F(ResizeTest, ConvolutionsToo) {
  const Modified modified = Modify(
      "edits { resize_output { path: 'conv' size: 2 keep_rows: [1, 2] } }"
      "edits { resize_output { path: 'up' size: 2 keep_rows: [2, 0] } }");
  ASSERT_TRUE(modified.status.ok()) << modified.status;
  const auto conv = Values(kOld, "conv.weight");
  EXPECT_EQ(Values(kNew, "conv.weight"),
            std::vector<float>(conv.begin() + 18, conv.begin() + 54));
  // [in, out, 2, 2]: outputs are the second dimension.
  const auto up = Values(kOld, "up.weight"), now = Values(kNew, "up.weight");
  ASSERT_EQ(now.size(), 16u);
  EXPECT_EQ(now[0], up[8]);
  EXPECT_EQ(now[4], up[0]);
  EXPECT_EQ(now[8], up[20]);
}

TEST_F(ResizeTest, NewRowsAreThoseOfANewModuleOfThatSize) {
  if (!modify::WithTorch()) {
    EXPECT_EQ(Modify("edits { resize_output { path: 'fc' size: 6 } }").status.code(),
              absl::StatusCode::kUnimplemented);
    return;
  }
  ASSERT_TRUE(Modify("edits { resize_output { path: 'fc' size: 6 "
                     "initialization { seed: 5 } } }"
                     "edits { add_module { path: 'like' module: 'Linear(3, 6)' "
                     "initialization { seed: 5 } } }")
                  .status.ok());
  const auto now = Values(kNew, "fc.weight"), like = Values(kNew, "like.weight");
  EXPECT_EQ(std::vector<float>(now.begin() + 12, now.end()),
            std::vector<float>(like.begin() + 12, like.end()));
}

TEST_F(ResizeTest, WhatCannotBeDoneSaysWhere) {
  const auto message = [&](const std::string& edit) {
    return std::string(
        Modify("edits { resize_output { " + edit + " } }").status.message());
  };
  EXPECT_THAT(message("path: 'fc'"), HasSubstr("edits[0].resize_output.size"));
  EXPECT_THAT(message("path: 'no' size: 3"), HasSubstr("edits[0].resize_output.path"));
  EXPECT_THAT(message("path: 'fc' size: 3 keep_rows: 4"),
              HasSubstr("edits[0].resize_output.keep_rows[0]"));
  EXPECT_THAT(message("path: 'fc' size: 1 keep_rows: [1, 2]"),
              HasSubstr("edits[0].resize_output.keep_rows"));
  EXPECT_EQ(LatestVersion(), 1);
}

}  // namespace
}  // namespace modelstore::server
