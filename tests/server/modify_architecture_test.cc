// ModifyCheckpoint: the architecture and `_metadata` follow new keys and new modules,
// so that what is made can be built and loaded.
#include <gmock/gmock.h>

#include "absl/strings/str_cat.h"
#include "proto/contract/architecture/architecture.h"
#include "proto/contract/architecture/tensors.h"
#include "proto/contract/architecture/text.h"
#include "tests/server/module_harness.h"

namespace modelstore::server {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using Warning = v1::ModifyCheckpointResponse::Warning;

constexpr char kNew[] = "models/m/checkpoints/2";

class ModifyArchitectureTest : public ModuleEditTest {
 protected:
  ModifyArchitectureTest() {
    with_metadata_ = true;
    SaveModule(Net({{"features", "Sequential(Conv2d(1, 2, 3), ReLU(), BatchNorm2d(2))"},
                    {"head", "Linear(2, 3)"}},
                   {"features", "mean(2, 3)", "head"}));
  }
  // The tensors that the architecture has are those that are there.
  void ExpectFits(const Modified& modified, const std::string& name = kNew) {
    ASSERT_TRUE(modified.status.ok()) << modified.status;
    for (const auto& warning : modified.report.warnings()) {
      ADD_FAILURE() << warning.path() << ": " << warning.message();
    }
    const auto wanted = TensorsOf(Full(name).architecture().root());
    ASSERT_TRUE(wanted.ok()) << wanted.status();
    std::vector<std::string> keys;
    for (const TensorSpec& spec : wanted->tensors) keys.push_back(spec.key);
    EXPECT_EQ(keys, ModelKeys(name));
  }
  v1::Architecture Architecture(const std::string& name = kNew) {
    return Full(name).architecture();
  }
};

TEST_F(ModifyArchitectureTest, ARenameOfKeysThatIsOneOfModulesRenamesThemToo) {
  const Modified modified = Modify(
      R"e(edits { rename_keys { pattern: "features\\.(\\d)\\.(.*)"
                                replacement: "backbone.layer\\1.\\2" } })e"
      R"e(edits { rename_keys { pattern: "head\\.(.*)" replacement: "fc.\\1" } })e");
  ExpectFits(modified);
  const ModuleTree root = Architecture().root();
  EXPECT_THAT(root.forward(), ElementsAre("backbone", "mean(2, 3)", "fc"));
  const ModuleTree* backbone = FindModule(root, "backbone");
  ASSERT_NE(backbone, nullptr);
  EXPECT_EQ(backbone->children(0).name(), "layer0");
  EXPECT_EQ(backbone->children(1).name(), "1") << "no key names a ReLU";
  EXPECT_THAT(Metadata(kNew),
              ElementsAre(": 1", "backbone: 1", "backbone.layer0: 1", "backbone.1: 1",
                          "backbone.layer2: 2", "fc: 1"));
}

TEST_F(ModifyArchitectureTest, TwoModulesMaySwapTheirNames) {
  SaveModule(Net({{"a", "Linear(2, 3)"}, {"b", "Linear(3, 2)"}}, {"a", "b"}));
  ASSERT_TRUE(
      Modify(R"e(edits { rename_keys { pattern: "a\\.(.*)" replacement: "t.\\1" } }
                         edits { rename_keys { pattern: "b\\.(.*)" replacement: "a.\\1" } }
                         edits { rename_keys { pattern: "t\\.(.*)" replacement: "b.\\1" } }
                         )e")
          .status.ok());
  const ModuleTree root = Architecture("models/m/checkpoints/3").root();
  EXPECT_EQ(PrintModule(root),
            "Net(\n  (b): Linear(in_features=2, out_features=3, "
            "bias=True)\n  (a): Linear(in_features=3, out_features=2, "
            "bias=True)\n)");
  EXPECT_THAT(root.forward(), ElementsAre("b", "a"));
}

TEST_F(ModifyArchitectureTest, APrefixWrapsTheModelAndStrippingItUnwrapsIt) {
  const v1::Architecture before = Architecture("models/m/checkpoints/1");
  ExpectFits(Modify(R"(edits { add_prefix { prefix: "a.module." } })"));
  const ModuleTree wrapped = Architecture().root();
  EXPECT_EQ(wrapped.type(), "Sequential") << "runs what it holds";
  EXPECT_EQ(FindModule(wrapped, "a.module")->type(), "Net");
  EXPECT_THAT(Metadata(kNew),
              ElementsAre(": 1", "a: 1", "a.module: 1", "a.module.features: 1",
                          "a.module.features.0: 1", "a.module.features.1: 1",
                          "a.module.features.2: 2", "a.module.head: 1"));
  const std::string last = "models/m/checkpoints/3";
  ExpectFits(Modify(R"(edits { strip_prefix { prefix: "a.module." } })"), last);
  EXPECT_EQ(Architecture(last).SerializeAsString(), before.SerializeAsString());
  EXPECT_EQ(Metadata(last), Metadata("models/m/checkpoints/1"));
}

TEST_F(ModifyArchitectureTest, APrefixOfRenameKeysIsOneToo) {
  ExpectFits(
      Modify(R"e(edits { rename_keys { pattern: "(.*)" replacement: "module.\\1" } })e"));
  EXPECT_EQ(FindModule(Architecture().root(), "module")->type(), "Net");
}

TEST_F(ModifyArchitectureTest, ARenameThatMovesModulesDropsTheArchitectureAndSaysSo) {
  const Modified modified = Modify(
      R"e(edits { rename_keys { pattern: "features\\.(.*)" replacement: "x.y.\\1" } })e");
  ASSERT_TRUE(modified.status.ok()) << modified.status;
  EXPECT_FALSE(Full(kNew).has_architecture());
  const auto& warning = modified.report.warnings(0);
  EXPECT_EQ(warning.kind(), Warning::KIND_ARCHITECTURE_INCOMPLETE);
  EXPECT_EQ(warning.edit_index(), 0);
  EXPECT_THAT(warning.message(),
              testing::HasSubstr("features.0.weight became x.y.0.weight"));
}

TEST_F(ModifyArchitectureTest, AParameterOfAnotherNameMakesItsModuleIncomplete) {
  const Modified modified = Modify(
      R"(edits { rename_keys { pattern: "head.weight" replacement: "head.kernel" } })");
  ASSERT_TRUE(modified.status.ok()) << modified.status;
  EXPECT_TRUE(FindModule(Architecture().root(), "head")->incomplete());
  EXPECT_THAT(modified.WarningsOf("head"),
              ElementsAre(Warning::KIND_ARCHITECTURE_INCOMPLETE));
}

TEST_F(ModifyArchitectureTest, NewModulesGetTheEntriesThatPytorchGivesThem) {
  ASSERT_TRUE(
      Modify("edits { add_module { path: 'features.3' "
             "module: 'Sequential(BatchNorm2d(2), MultiheadAttention(4, 2))' "
             "initialization { scheme: SCHEME_ONES } } }"
             "edits { replace_module { path: 'head' module: 'InstanceNorm2d(2)' } }"
             "edits { remove_module { path: 'features.0' } }"
             "edits { rename_module { path: 'features' new_name: 'f' } }")
          .status.ok());
  EXPECT_THAT(Metadata(kNew),
              ElementsAre(": 1", "f: 1", "f.1: 1", "f.2: 2", "f.3: 1", "f.3.0: 2",
                          "f.3.1: 1", "f.3.1.out_proj: 1", "head: 2"));
}

TEST_F(ModifyArchitectureTest, AModuleIsTakenWithItsEntries) {
  ASSERT_TRUE(Modify("edits { take_from { checkpoint: 'models/m/checkpoints/1' "
                     "source: 'features' target: 'head' } }")
                  .status.ok());
  EXPECT_THAT(Metadata(kNew), ElementsAre(": 1", "features: 1", "features.0: 1",
                                          "features.1: 1", "features.2: 2", "head: 1",
                                          "head.0: 1", "head.1: 1", "head.2: 2"));
}

TEST_F(ModifyArchitectureTest, ARenamedEntryReplacesTheOneThatIsAtItsPath) {
  SaveModule(Net({{"a", "BatchNorm1d(2)"}, {"b", "Linear(1, 1)"}}), {}, false);
  const std::string drop = "edits { drop_keys { patterns: 'b\\\\..*' } } ";
  for (const char* rename : {"rename_module { path: 'a' new_name: 'b' }",
                             "rename_keys { pattern: 'a(.*)' replacement: 'b\\\\1' }"}) {
    const Modified modified = Modify(
        absl::StrCat("name: 'models/m/checkpoints/2' ", drop, "edits { ", rename, " }"));
    ASSERT_TRUE(modified.status.ok()) << modified.status;
    EXPECT_THAT(Metadata(absl::StrCat("models/m/checkpoints/", LatestVersion())),
                ElementsAre(": 1", "b: 2"));
  }
}

TEST_F(ModifyArchitectureTest, TwoModulesThatWouldHaveOneEntryAreRefused) {
  SaveModule(
      Net({{"a", "Linear(1, 1, bias=False)"}, {"b", "BatchNorm1d(1, affine=False)"}}));
  const Modified modified =
      Modify("edits { rename_keys { pattern: '[ab]\\\\.(.*)' replacement: 'c.\\\\1' } }");
  EXPECT_EQ(modified.status.code(), absl::StatusCode::kAlreadyExists);
  EXPECT_THAT(
      std::string(modified.status.message()),
      HasSubstr("edits[0].rename_keys.replacement: entry of `_metadata` model:c"));
}

TEST_F(ModifyArchitectureTest, AnEntryWhoseKeyIsNoPathStaysHoweverLongItIs) {
  std::string key = "a";
  for (int i = 0; i < 200'000; ++i) key += ".a";
  v1::SaveCheckpointRequest request;
  request.set_parent("models/m");
  request.set_create_model(true);
  const TestTensor weight = Parameter("fc.weight", {1}, {1});
  *request.mutable_manifest()->add_tensors() = weight.tensor;
  AddChunk(&request, weight.chunks[0]);
  v1::Section& section = *request.mutable_manifest()->add_sections();
  section.set_name("model");
  auto* entry = section.mutable_metadata()->mutable_dict_value()->add_entries();
  entry->mutable_key()->set_string_value(key);
  entry->mutable_value()->mutable_dict_value();
  request.set_finish(true);
  ASSERT_TRUE(harness_.Save({request}).ok());
  const Modified modified =
      Modify("edits { rename_keys { pattern: 'fc(.*)' replacement: 'x\\\\1' } }");
  ASSERT_TRUE(modified.status.ok()) << modified.status;
  EXPECT_THAT(Metadata("models/m/checkpoints/3"), ElementsAre(key + ": -1"));
}

TEST_F(ModifyArchitectureTest, WithoutMetadataNoneIsMade) {
  with_metadata_ = false;
  SaveModule(Net({{"a", "Linear(2, 3)"}}));
  ASSERT_TRUE(
      Modify("edits { add_module { path: 'n' module: 'BatchNorm1d(3)' } }").status.ok());
  EXPECT_THAT(Metadata("models/m/checkpoints/3"), IsEmpty());
}

TEST_F(ModifyArchitectureTest, AModuleWithoutTheArgumentsThatItNeedsIsNotComplete) {
  TestTensor weight = Parameter("fc.weight", {2, 3}, RandomFloats(6, 1));
  v1::SaveCheckpointRequest request;
  request.set_parent("models/n");
  request.set_create_model(true);
  ModuleTree& root =
      *request.mutable_checkpoint()->mutable_architecture()->mutable_root();
  root = Net(
      {{"fc", "Linear(3, 2, bias=False)"}, {"act", "ReLU()"}, {"pool", "MaxPool2d(2)"}});
  for (ModuleTree& child : *root.mutable_children()) child.clear_arguments();
  *request.mutable_manifest()->add_tensors() = weight.tensor;
  AddChunk(&request, weight.chunks[0]);
  request.set_finish(true);
  const auto saved = harness_.Save({request});
  ASSERT_TRUE(saved.ok()) << saved.status();
  const ModuleTree stored = Architecture("models/n/checkpoints/1").root();
  EXPECT_TRUE(stored.children(0).incomplete());
  EXPECT_FALSE(stored.children(1).incomplete()) << "a ReLU needs none";
  EXPECT_TRUE(stored.children(2).incomplete());
  const Modified modified =
      Modify("name: 'models/n/checkpoints/1' edits { cast { dtype: DTYPE_FLOAT16 } }");
  EXPECT_THAT(modified.WarningsOf("fc"),
              ElementsAre(Warning::KIND_ARCHITECTURE_INCOMPLETE));
  EXPECT_THAT(modified.WarningsOf("pool"),
              ElementsAre(Warning::KIND_ARCHITECTURE_INCOMPLETE));
  EXPECT_THAT(modified.WarningsOf("act"), IsEmpty());
}

}  // namespace
}  // namespace modelstore::server
