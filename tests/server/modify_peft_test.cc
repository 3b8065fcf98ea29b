// ModifyCheckpoint: adapters in PEFT's layout of keys, merged into the plain model's.
#include <gmock/gmock.h>

#include "absl/strings/str_cat.h"
#include "proto/contract/architecture/architecture.h"
#include "proto/contract/architecture/tensors.h"
#include "server/modify/module_metadata.h"
#include "tests/server/module_harness.h"

namespace modelstore::server {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

constexpr char kNew[] = "models/m/checkpoints/2";
constexpr char kMerge[] = "edits { merge_lora { alpha: 4 } }";

// A model of `lin`, with an adapter of rank 1, and `head`, as get_peft_model() saves it.
class ModifyPeftTest : public ModuleEditTest {
 protected:
  ModifyPeftTest()
      : weight_({1, 2, 3, 4}), a_({0.5, -1}), b_({2, 3}), bias_({5, 6}), head_({7, 8}) {}

  std::vector<TestTensor> Wrapped(const std::string& prefix) {
    const std::string lin = prefix + "lin.";
    return {Parameter(lin + "base_layer.weight", {2, 2}, weight_),
            Parameter(lin + "base_layer.bias", {2}, bias_),
            Parameter(lin + "lora_A.default.weight", {1, 2}, a_),
            Parameter(lin + "lora_B.default.weight", {2, 1}, b_),
            Parameter(prefix + "head.weight", {1, 2}, head_)};
  }
  // W + 4 * B * A.
  std::string Merged() const {
    std::vector<float> merged = weight_;
    for (int i = 0; i < 2; ++i) {
      for (int j = 0; j < 2; ++j) merged[i * 2 + j] += 4 * b_[i] * a_[j];
    }
    return BytesOf(merged);
  }

  const std::vector<float> weight_, a_, b_, bias_, head_;
};

TEST_F(ModifyPeftTest, TheMergedCheckpointHasThePlainModelsKeys) {
  Save(Wrapped("base_model.model."));
  const Modified modified = Modify(kMerge);
  ASSERT_TRUE(modified.status.ok()) << modified.status;
  EXPECT_THAT(ModelKeys(kNew), ElementsAre("lin.weight", "lin.bias", "head.weight"));
  auto made = Bytes(kNew);
  EXPECT_EQ(made["model:lin.weight"], Merged());
  EXPECT_EQ(made["model:lin.bias"], BytesOf(bias_));
  EXPECT_EQ(made["model:head.weight"], BytesOf(head_));
}

TEST_F(ModifyPeftTest, AnAdapterOfTheCheckpointItselfIsNotMergedTwice) {
  Save(Wrapped("base_model.model."));
  const Modified modified =
      Modify(absl::StrCat(kMerge,
                          " edits { merge_lora { alpha: 4 "
                          "checkpoint: 'models/m/checkpoints/1' } }"));
  EXPECT_FALSE(modified.status.ok());
  EXPECT_EQ(LatestVersion(), 1);
  ASSERT_TRUE(Modify("edits { merge_lora { alpha: 4 "
                     "checkpoint: 'models/m/checkpoints/1' } }")
                  .status.ok());
  EXPECT_EQ(Bytes(kNew)["model:lin.weight"], Merged());
  EXPECT_THAT(ModelKeys(kNew), ElementsAre("lin.weight", "lin.bias", "head.weight"));
}

TEST_F(ModifyPeftTest, WithoutThePrefixOnlyTheLayerGoes) {
  Save(Wrapped(""));
  ASSERT_TRUE(Modify(kMerge).status.ok());
  EXPECT_THAT(ModelKeys(kNew), ElementsAre("lin.weight", "lin.bias", "head.weight"));
}

TEST_F(ModifyPeftTest, APlainModelThatTakesAdaptersOfAnotherCheckpointKeepsItsKeys) {
  // A model whose own names are like PEFT's.
  Save({Parameter("base_model.model.lin.weight", {2, 2}, weight_)});
  const std::string lin = "base_model.model.base_model.model.lin.";
  Save({Parameter(lin + "lora_A.weight", {1, 2}, a_),
        Parameter(lin + "lora_B.weight", {2, 1}, b_)},
       "adapters");
  ASSERT_TRUE(Modify("edits { merge_lora { checkpoint: 'models/adapters/checkpoints/1' "
                     "alpha: 4 } }")
                  .status.ok());
  EXPECT_THAT(ModelKeys(kNew), ElementsAre("base_model.model.lin.weight"));
  EXPECT_EQ(Bytes(kNew)["model:base_model.model.lin.weight"], Merged());
}

TEST_F(ModifyPeftTest, OtherTensorsOfTheAdaptersCheckpointAreWarnedAbout) {
  Save({Parameter("lin.weight", {2, 2}, weight_),
        Parameter("head.weight", {1, 2}, {0, 0})});
  std::vector<TestTensor> adapters = {
      Parameter("base_model.model.lin.lora_A.weight", {1, 2}, a_),
      Parameter("base_model.model.lin.lora_B.weight", {2, 1}, b_),
      Parameter("base_model.model.head.weight", {1, 2}, head_)};
  for (int i = 0; i < 10; ++i) {
    adapters.push_back(Parameter(absl::StrCat("b", i), {1}, {1}));
  }
  Save(adapters, "adapters");
  const std::string merge =
      "edits { merge_lora { checkpoint: 'models/adapters/checkpoints/1' alpha: 4 } }";
  const Modified modified = Modify(merge);
  ASSERT_TRUE(modified.status.ok()) << modified.status;
  EXPECT_EQ(Bytes(kNew)["model:lin.weight"], Merged());
  ASSERT_EQ(modified.report.warnings_size(), 2) << "of the architecture, and this";
  const auto& warning = modified.report.warnings(0);
  EXPECT_EQ(warning.kind(),
            v1::ModifyCheckpointResponse::Warning::KIND_TENSORS_NOT_TAKEN);
  EXPECT_EQ(warning.path(), "base_model.model.head.weight");
  EXPECT_THAT(warning.message(), HasSubstr("holds 11 tensor(s) beside the adapters"));
  EXPECT_THAT(warning.message(), HasSubstr("b8, ..."));
  const Modified taken =
      Modify(merge +
             "edits { take_from { checkpoint: 'models/adapters/checkpoints/1' "
             "source: 'base_model.model.head.weight' target: 'head.weight' } }");
  ASSERT_TRUE(taken.status.ok()) << taken.status;
  EXPECT_EQ(Bytes("models/m/checkpoints/3")["model:head.weight"], BytesOf(head_));
}

TEST_F(ModifyPeftTest, AdaptersOfTheBaseAreNotThrownAwayForThoseOfAnother) {
  Save(Wrapped("base_model.model."));
  Save(Wrapped("base_model.model."), "other");
  const Modified modified = Modify(
      "edits { merge_lora { checkpoint: 'models/other/checkpoints/1' alpha: 4 } }");
  EXPECT_EQ(modified.status.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(std::string(modified.status.message()),
              HasSubstr("holds an adapter of its own, "
                        "base_model.model.lin.lora_A.default.weight"));
  Save({Parameter("lin.base_layer.weight", {2, 2}, weight_),
        Parameter("lin.lora_A.named.weight", {1, 2}, a_),
        Parameter("lin.lora_B.named.weight", {2, 1}, b_)},
       "named");
  EXPECT_EQ(Modify("name: 'models/named/checkpoints/1' edits { merge_lora { checkpoint: "
                   "'models/other/checkpoints/1' alpha: 4 } }")
                .status.code(),
            absl::StatusCode::kInvalidArgument);
  // The same checkpoint, by its name.
  EXPECT_TRUE(
      Modify("edits { merge_lora { checkpoint: 'models/m/checkpoints/1' alpha: 4 } }")
          .status.ok());
  EXPECT_EQ(Bytes(kNew)["model:lin.weight"], Merged());
}

TEST_F(ModifyPeftTest, AModuleThatWasTrainedWholeTakesThePlaceOfItsOriginal) {
  std::vector<TestTensor> tensors = Wrapped("base_model.model.");
  tensors.back() =
      Parameter("base_model.model.head.original_module.weight", {1, 2}, head_);
  tensors.push_back(
      Parameter("base_model.model.head.modules_to_save.default.weight", {1, 2}, {9, 10}));
  Save(tensors);
  ASSERT_TRUE(Modify(kMerge).status.ok());
  EXPECT_THAT(ModelKeys(kNew), ElementsAre("lin.weight", "lin.bias", "head.weight"));
  EXPECT_EQ(Bytes(kNew)["model:head.weight"], BytesOf<float>({9, 10}));
}

TEST_F(ModifyPeftTest, TwoTensorsThatWouldGetOneKeyAreRefused) {
  std::vector<TestTensor> tensors = Wrapped("base_model.model.");
  tensors.push_back(Parameter("lin.weight", {2, 2}, weight_));
  Save(tensors);
  const Modified modified = Modify(kMerge);
  EXPECT_EQ(modified.status.code(), absl::StatusCode::kAlreadyExists);
  EXPECT_THAT(std::string(modified.status.message()), HasSubstr("model:lin.weight"));
}

TEST_F(ModifyPeftTest, ArchitectureAndMetadataBecomeThoseOfThePlainModel) {
  ModuleTree plain = Net({{"lin", "Linear(2, 2)"}, {"head", "Linear(2, 1, bias=False)"}},
                         {"lin", "head"});
  ModuleTree wrapped = plain;
  ModuleTree& lin = *wrapped.mutable_children(0);
  lin = Net({{"base_layer", "Linear(2, 2)"},
             {"lora_dropout", "ModuleDict()"},
             {"lora_A", "ModuleDict()"},
             {"lora_B", "ModuleDict()"}});
  lin.set_name("lin");
  lin.set_type("LoraLinear");
  ModuleTree lora, root;
  lora.set_type("LoraModel");
  lora.set_name("base_model");
  *lora.add_children() = wrapped;
  lora.mutable_children(0)->set_name("model");
  root.set_type("PeftModel");
  *root.add_children() = lora;

  v1::SaveCheckpointRequest request;
  request.set_parent("models/m");
  request.set_create_model(true);
  *request.mutable_checkpoint()->mutable_architecture()->mutable_root() = root;
  for (const TestTensor& tensor : Wrapped("base_model.model.")) {
    *request.mutable_manifest()->add_tensors() = tensor.tensor;
    AddChunk(&request, tensor.chunks[0]);
  }
  v1::Section& section = *request.mutable_manifest()->add_sections();
  section.set_name("model");
  for (auto& [path, dict] : modify::MetadataOf(root, "")) {
    auto* entry = section.mutable_metadata()->mutable_dict_value()->add_entries();
    entry->mutable_key()->set_string_value(path);
    *entry->mutable_value() = std::move(dict);
  }
  request.set_finish(true);
  const auto saved = harness_.Save({request});
  ASSERT_TRUE(saved.ok()) << saved.status();

  const Modified modified = Modify(kMerge);
  ASSERT_TRUE(modified.status.ok()) << modified.status;
  EXPECT_EQ(Full(kNew).architecture().root().SerializeAsString(),
            plain.SerializeAsString());
  EXPECT_THAT(Metadata(kNew), ElementsAre(": 1", "lin: 1", "head: 1"));
  EXPECT_EQ(modified.report.warnings_size(), 0);
}

TEST_F(ModifyPeftTest, AnAdapterOfARankBeyondTheBoundIsRefusedWithBothFigures) {
  Save({Parameter("q.weight", {1, 1}, {1}),
        Parameter("q.lora_A.weight", {5000, 1}, std::vector<float>(5000, 1.0F)),
        Parameter("q.lora_B.weight", {1, 5000}, std::vector<float>(5000, 1.0F))});
  const Modified modified = Modify(kMerge);
  EXPECT_EQ(modified.status.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(std::string(modified.status.message()),
              HasSubstr("is of rank 5000 and has 5000 elements, of at most 4096"));
}

}  // namespace
}  // namespace modelstore::server
