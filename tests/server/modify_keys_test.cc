// ModifyCheckpoint: edits of names, sections and marks.
#include <gmock/gmock.h>

#include "tests/server/modify_harness.h"

namespace modelstore::server {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using Fate = v1::ModifyCheckpointResponse::ParameterFate;
using Warning = v1::ModifyCheckpointResponse::Warning;

constexpr char kNew[] = "models/m/checkpoints/2";

class ModifyKeysTest : public ModifyTest {
 protected:
  ModifyKeysTest() {
    const TestTensor embed = Parameter("embed.weight", {4, 2}, RandomFloats(8, 1));
    Save({embed, Parameter("fc.weight", {2, 2}, RandomFloats(4, 2)),
          Parameter("fc.bias", {2}, RandomFloats(2, 3)),
          Buffer("bn.running_mean", v1::DTYPE_FLOAT32, {2}, BytesOf<float>({1, 2})),
          Tied("head.weight", embed)});
    old_ = Bytes("models/m/checkpoints/1");
  }
  std::vector<std::string> Keys(const std::string& name) {
    std::vector<std::string> keys;
    for (const v1::Tensor& tensor : Tensors(name)) keys.push_back(tensor.key());
    return keys;
  }
  // Nothing was made, and the error says where.
  void ExpectRefused(const Modified& modified, absl::StatusCode code,
                     const std::string& text) {
    EXPECT_EQ(modified.status.code(), code) << modified.status;
    EXPECT_THAT(std::string(modified.status.message()), HasSubstr(text));
    EXPECT_EQ(LatestVersion(), 1);
  }

  std::map<std::string, std::string> old_;
};

TEST_F(ModifyKeysTest, RenameKeysKeepsTheBytesAndStoresNone) {
  const Modified modified = Modify(
      R"e(edits { rename_keys { pattern: "fc\\.(.*)" replacement: "classifier.\\1" } })e");
  ASSERT_TRUE(modified.status.ok()) << modified.status;
  EXPECT_THAT(Keys(kNew),
              ElementsAre("embed.weight", "classifier.weight", "classifier.bias",
                          "bn.running_mean", "head.weight"));
  EXPECT_EQ(Bytes(kNew)["model:classifier.weight"], old_["model:fc.weight"]);
  EXPECT_EQ(modified.result.stored_bytes(), 0);
  EXPECT_EQ(modified.result.new_tensor_bytes(), 0);
  const Fate fate = modified.FateOf("classifier.weight");
  EXPECT_EQ(fate.fate(), Fate::FATE_RENAMED);
  EXPECT_EQ(fate.old_key(), "fc.weight");
  EXPECT_EQ(modified.FateOf("embed.weight").fate(), Fate::FATE_KEPT);
  EXPECT_EQ(modified.FateOf("fc.weight").fate(), Fate::FATE_UNSPECIFIED);
  EXPECT_EQ(modified.FateOf("bn.running_mean").fate(), Fate::FATE_UNSPECIFIED)
      << "a buffer is no parameter";
}

TEST_F(ModifyKeysTest, TheFirstOfATiedGroupStaysTheOneThatOthersAreTiedTo) {
  ASSERT_TRUE(Modify(R"(edits { rename_keys { pattern: "embed.weight"
                                              replacement: "wte.weight" } })")
                  .status.ok());
  EXPECT_EQ(TensorOf(kNew, "head.weight").tied_to(), "model:wte.weight");
}

TEST_F(ModifyKeysTest, RenamesThatClashAreRefused) {
  ExpectRefused(Modify(R"(edits { cast { dtype: DTYPE_FLOAT16 } }
                          edits { rename_keys { pattern: "fc\\..*" replacement: "x" } })"),
                absl::StatusCode::kAlreadyExists,
                "edits[1].rename_keys.replacement: tensor model:x already exists");
  ExpectRefused(Modify(R"(edits { rename_keys { pattern: "fc.bias"
                                                replacement: "fc.weight" } })"),
                absl::StatusCode::kAlreadyExists, "model:fc.weight");
}

TEST_F(ModifyKeysTest, RenamesThatCannotBeAreRefused) {
  ExpectRefused(Modify(R"(edits { rename_keys { pattern: "(" replacement: "x" } })"),
                absl::StatusCode::kInvalidArgument, "edits[0].rename_keys.pattern");
  ExpectRefused(Modify(R"(edits { rename_keys { pattern: "fc" replacement: "\\1" } })"),
                absl::StatusCode::kInvalidArgument, "edits[0].rename_keys.replacement");
  ExpectRefused(Modify(R"(edits { rename_keys { pattern: "fc" replacement: "x" } })"),
                absl::StatusCode::kNotFound, "edits[0].rename_keys.pattern");
  ExpectRefused(Modify(R"(edits { rename_keys { pattern: "fc.bias" } })"),
                absl::StatusCode::kInvalidArgument, "edits[0].rename_keys.replacement");
  ExpectRefused(Modify(R"(edits { rename_keys { pattern: ".*" replacement: "x"
                                                section: "nothing" } })"),
                absl::StatusCode::kNotFound, "edits[0].rename_keys.section");
}

TEST_F(ModifyKeysTest, APrefixIsAddedToAllAndStrippedFromAll) {
  ASSERT_TRUE(Modify(R"(edits { add_prefix { prefix: "module." } })").status.ok());
  EXPECT_THAT(Keys(kNew),
              ElementsAre("module.embed.weight", "module.fc.weight", "module.fc.bias",
                          "module.bn.running_mean", "module.head.weight"));
  ASSERT_TRUE(Modify(R"(edits { strip_prefix { prefix: "module." } })").status.ok());
  EXPECT_EQ(Bytes("models/m/checkpoints/3"), old_);
}

TEST_F(ModifyKeysTest, APrefixThatOnlySomeKeysBearIsRefused) {
  ExpectRefused(Modify(R"(edits { strip_prefix { prefix: "fc." } })"),
                absl::StatusCode::kInvalidArgument,
                "2 keys bear it and 3 do not, such as embed.weight");
  ExpectRefused(Modify(R"(edits { strip_prefix { prefix: "module." } })"),
                absl::StatusCode::kNotFound, "edits[0].strip_prefix.prefix");
  ExpectRefused(Modify(R"(edits { strip_prefix { } })"),
                absl::StatusCode::kInvalidArgument, "edits[0].strip_prefix.prefix");
}

TEST_F(ModifyKeysTest, DropKeysRemovesWhatMatches) {
  const Modified modified =
      Modify(R"(edits { drop_keys { patterns: "fc\\..*" patterns: "bn\\..*" } })");
  ASSERT_TRUE(modified.status.ok()) << modified.status;
  EXPECT_THAT(Keys(kNew), ElementsAre("embed.weight", "head.weight"));
  EXPECT_EQ(modified.FateOf("fc.weight").fate(), Fate::FATE_REMOVED);
  EXPECT_EQ(modified.result.checkpoint().tensor_count(), 2);
  EXPECT_EQ(Bytes("models/m/checkpoints/1"), old_);
}

TEST_F(ModifyKeysTest, DropKeysByKeyRemovesNothingElseThatAPatternWouldMatch) {
  ExpectRefused(Modify(R"(edits { drop_keys { keys: "fc.weight" keys: "fc.*" } })"),
                absl::StatusCode::kNotFound, "edits[0].drop_keys.keys[1]");
  const Modified modified = Modify(
      R"(edits { rename_keys { pattern: "bn\\.running_mean" replacement: "fcxbias" } }
         edits { drop_keys { keys: "fc.bias" } })");
  ASSERT_TRUE(modified.status.ok()) << modified.status;
  EXPECT_THAT(Keys(kNew),
              ElementsAre("embed.weight", "fc.weight", "fcxbias", "head.weight"));
}

TEST_F(ModifyKeysTest, KeysAndPatternsSelectTogether) {
  const Modified modified =
      Modify(R"(edits { drop_keys { keys: "fc.bias" patterns: "bn\\..*" } })");
  ASSERT_TRUE(modified.status.ok()) << modified.status;
  EXPECT_THAT(Keys(kNew), ElementsAre("embed.weight", "fc.weight", "head.weight"));
}

TEST_F(ModifyKeysTest, TheSecondOfATiedGroupTakesOverWhenTheFirstIsDropped) {
  ASSERT_TRUE(Modify(R"(edits { drop_keys { patterns: "embed.weight" } })").status.ok());
  EXPECT_EQ(TensorOf(kNew, "head.weight").tied_to(), "");
  EXPECT_EQ(Bytes(kNew)["model:head.weight"], old_["model:embed.weight"]);
}

TEST_F(ModifyKeysTest, APatternThatMatchesNoKeyIsRefused) {
  ExpectRefused(
      Modify(R"(edits { drop_keys { patterns: "fc\\..*" patterns: "classifier" } })"),
      absl::StatusCode::kNotFound, "edits[0].drop_keys.patterns[1]");
  ExpectRefused(Modify("edits { drop_keys { } }"), absl::StatusCode::kInvalidArgument,
                "edits[0].drop_keys.keys");
}

TEST_F(ModifyKeysTest, SetRequiresGradFreezesParametersAndLeavesBuffers) {
  ASSERT_TRUE(
      Modify(R"(edits { set_requires_grad { patterns: "embed\\..*" } })").status.ok());
  EXPECT_FALSE(TensorOf(kNew, "embed.weight").requires_grad());
  EXPECT_FALSE(TensorOf(kNew, "head.weight").requires_grad()) << "the same parameter";
  EXPECT_TRUE(TensorOf(kNew, "fc.weight").requires_grad());
  ASSERT_TRUE(Modify("edits { set_requires_grad { requires_grad: true } }").status.ok());
  const std::string last = "models/m/checkpoints/3";
  EXPECT_TRUE(TensorOf(last, "embed.weight").requires_grad());
  EXPECT_FALSE(TensorOf(last, "bn.running_mean").requires_grad());
}

TEST_F(ModifyKeysTest, SetRequiresGradByKeyChangesOnlyTheseKeys) {
  ASSERT_TRUE(Modify(R"(edits { set_requires_grad { keys: "fc.bias" } })").status.ok());
  EXPECT_FALSE(TensorOf(kNew, "fc.bias").requires_grad());
  EXPECT_TRUE(TensorOf(kNew, "fc.weight").requires_grad());
}

TEST_F(ModifyKeysTest, APatternThatNamesNoParameterIsRefused) {
  ExpectRefused(Modify(R"(edits { set_requires_grad { keys: "bn.running_mean" } })"),
                absl::StatusCode::kInvalidArgument, "edits[0].set_requires_grad.keys");
  // Also beside a parameter: it was named by itself.
  ExpectRefused(
      Modify(
          R"(edits { set_requires_grad { keys: "fc.bias" keys: "bn.running_mean" } })"),
      absl::StatusCode::kInvalidArgument, "edits[0].set_requires_grad.keys");
  ExpectRefused(Modify(R"(edits { set_requires_grad { patterns: "bn\\..*" } })"),
                absl::StatusCode::kInvalidArgument,
                "edits[0].set_requires_grad.patterns");
  ExpectRefused(Modify(R"(edits { set_requires_grad { patterns: "conv" } })"),
                absl::StatusCode::kNotFound, "edits[0].set_requires_grad.patterns[0]");
}

class ModifySectionsTest : public ModifyTest {
 protected:
  ModifySectionsTest() {
    TestTensor weight = Parameter("w", {2}, {1, 2});
    TestTensor momentum =
        MakeTensor("state/0/exp_avg", v1::DTYPE_FLOAT32, {2}, BytesOf<float>({3, 4}));
    momentum.tensor.set_section("optimizer");
    std::vector<v1::SaveCheckpointRequest> requests(3);
    requests[0].set_parent("models/m");
    requests[0].set_create_model(true);
    auto& manifest = *requests[0].mutable_manifest();
    *manifest.add_tensors() = weight.tensor;
    *manifest.add_tensors() = momentum.tensor;
    v1::Section& section = *manifest.add_sections();
    section.set_name("optimizer");
    auto& entries = *section.mutable_value()->mutable_dict_value();
    AddEntry(entries, "exp_avg")->set_tensor_value("state/0/exp_avg");
    auto& list = *AddEntry(entries, "all")->mutable_list_value();
    list.add_values()->set_tensor_value("state/0/exp_avg");
    AddEntry(entries, "lr")->set_double_value(0.5);
    v1::ObjectValue& array = *AddEntry(entries, "array")->mutable_object_value();
    array.mutable_type()->set_module("numpy");
    array.mutable_type()->set_qualified_name("ndarray");
    array.add_args()->set_tensor_value("state/0/exp_avg");
    v1::DictValue& net = *AddEntry(entries, "net")->mutable_dict_value();
    net.set_ordered_dict(true);
    auto* hook = net.add_attributes();
    hook->mutable_key()->set_string_value("hook");
    hook->mutable_value()->set_tensor_value("state/0/exp_avg");
    v1::Attachment& card = *manifest.add_attachments();
    card.set_name("card");
    card.set_data("hello");
    for (const auto& chunk : weight.chunks) AddChunk(&requests[1], chunk);
    for (const auto& chunk : momentum.chunks) AddChunk(&requests[1], chunk);
    requests[2].set_finish(true);
    auto saved = harness_.Save(requests);
    EXPECT_TRUE(saved.ok()) << saved.status();
  }
  static v1::Value* AddEntry(v1::DictValue& dict, const std::string& key) {
    auto* entry = dict.add_entries();
    entry->mutable_key()->set_string_value(key);
    return entry->mutable_value();
  }
  v1::Value Optimizer(const std::string& name) {
    const v1::Checkpoint checkpoint = Full(name);
    for (const v1::Section& section : checkpoint.sections()) {
      if (section.name() == "optimizer") return section.value();
    }
    return {};
  }
};

TEST_F(ModifySectionsTest, ASectionIsDroppedWithItsTensorsAndValues) {
  ASSERT_TRUE(Modify(R"(edits { drop_section { section: "optimizer" } })").status.ok());
  EXPECT_EQ(Tensors(kNew).size(), 1u);
  EXPECT_EQ(Full(kNew).sections_size(), 1);
  EXPECT_EQ(Full(kNew).attachments_size(), 1) << "what no edit names stays";
  ASSERT_TRUE(
      Modify(R"(name: "models/m/checkpoints/1" optimizer_policy: OPTIMIZER_POLICY_DROP
                        edits { cast { dtype: DTYPE_FLOAT64 } })")
          .status.ok());
  EXPECT_EQ(Full("models/m/checkpoints/3").sections_size(), 1);
}

TEST_F(ModifySectionsTest, TheModelAndWhatDoesNotExistCannotBeDropped) {
  EXPECT_THAT(Modify(R"(edits { drop_section { section: "model" } })").status.code(),
              absl::StatusCode::kInvalidArgument);
  const Modified modified = Modify(R"(edits { drop_section { section: "extra" } })");
  EXPECT_EQ(modified.status.code(), absl::StatusCode::kNotFound);
  EXPECT_THAT(std::string(modified.status.message()),
              HasSubstr("edits[0].drop_section.section"));
}

TEST_F(ModifySectionsTest, ValuesFollowTheKeysThatTheyName) {
  ASSERT_TRUE(Modify(R"e(edits { rename_keys { section: "optimizer"
                          pattern: "state/0/(.*)" replacement: "state/7/\\1" } })e")
                  .status.ok());
  const v1::Value renamed = Optimizer(kNew);
  EXPECT_EQ(renamed.dict_value().entries(0).value().tensor_value(), "state/7/exp_avg");
  EXPECT_EQ(renamed.dict_value().entries(1).value().list_value().values(0).tensor_value(),
            "state/7/exp_avg");
  EXPECT_EQ(renamed.dict_value().entries(3).value().object_value().args(0).tensor_value(),
            "state/7/exp_avg");
  EXPECT_EQ(renamed.dict_value()
                .entries(4)
                .value()
                .dict_value()
                .attributes(0)
                .value()
                .tensor_value(),
            "state/7/exp_avg");
  ASSERT_TRUE(Modify(R"(edits { drop_keys { section: "optimizer" patterns: ".*" } })")
                  .status.ok());
  const v1::Value dropped = Optimizer("models/m/checkpoints/3");
  ASSERT_EQ(dropped.dict_value().entries_size(), 3)
      << "the entry is gone, and the array that was made of the tensor";
  EXPECT_TRUE(
      dropped.dict_value().entries(0).value().list_value().values(0).has_null_value())
      << "an element of a list keeps its place";
  EXPECT_EQ(dropped.dict_value().entries(1).value().double_value(), 0.5);
  EXPECT_EQ(dropped.dict_value().entries(2).value().dict_value().attributes_size(), 0);
}

TEST_F(ModifySectionsTest, ModulesOfMetadataFollowAPrefix) {
  TestTensor weight = Parameter("module.bn.weight", {1}, {1});
  std::vector<v1::SaveCheckpointRequest> requests(2);
  requests[0].set_parent("models/p");
  requests[0].set_create_model(true);
  *requests[0].mutable_manifest()->add_tensors() = weight.tensor;
  v1::Section& section = *requests[0].mutable_manifest()->add_sections();
  section.set_name("model");
  auto& metadata = *section.mutable_metadata()->mutable_dict_value();
  for (const char* path : {"", "module", "module.bn"}) {
    AddEntry(metadata, path)->mutable_dict_value();
  }
  AddChunk(&requests[0], weight.chunks[0]);
  requests[1].set_finish(true);
  ASSERT_TRUE(harness_.Save(requests).ok());
  ASSERT_TRUE(Modify(R"(name: "models/p/checkpoints/1"
                        edits { strip_prefix { prefix: "module." } })")
                  .status.ok());
  const v1::Checkpoint made = Full("models/p/checkpoints/2");
  const auto& paths = made.sections(0).metadata().dict_value();
  ASSERT_EQ(paths.entries_size(), 2);
  EXPECT_EQ(paths.entries(0).key().string_value(), "");
  EXPECT_EQ(paths.entries(1).key().string_value(), "bn");
}

}  // namespace
}  // namespace modelstore::server
