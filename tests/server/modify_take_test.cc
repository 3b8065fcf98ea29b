// ModifyCheckpoint: what is taken from other checkpoints, and adapters.
#include <gmock/gmock.h>

#include "absl/strings/str_cat.h"
#include "proto/contract/architecture/text.h"
#include "tests/server/modify_harness.h"

namespace modelstore::server {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using Fate = v1::ModifyCheckpointResponse::ParameterFate;
using Warning = v1::ModifyCheckpointResponse::Warning;

constexpr char kNew[] = "models/m/checkpoints/2";

class ModifyTakeTest : public ModifyTest {
 protected:
  ModifyTakeTest() {
    const TestTensor embed = Parameter("embed.weight", {4, 2}, RandomFloats(8, 1));
    Save({embed, Parameter("fc.weight", {2, 2}, RandomFloats(4, 2)),
          Parameter("fc.bias", {2}, RandomFloats(2, 3)), Tied("head.weight", embed)});
    const TestTensor donor = Parameter("net.fc.weight", {3, 2}, RandomFloats(6, 4));
    Save({donor, Parameter("net.embed", {4, 2}, RandomFloats(8, 5)),
          Tied("net.fc.twin", donor)},
         "donor");
    old_ = Bytes("models/m/checkpoints/1");
    donor_ = Bytes("models/donor/checkpoints/1");
  }
  std::vector<std::string> Keys(const std::string& name) {
    std::vector<std::string> keys;
    for (const v1::Tensor& tensor : Tensors(name)) keys.push_back(tensor.key());
    return keys;
  }
  void ExpectRefused(const Modified& modified, absl::StatusCode code,
                     const std::string& text) {
    EXPECT_EQ(modified.status.code(), code) << modified.status;
    EXPECT_THAT(std::string(modified.status.message()), HasSubstr(text));
    EXPECT_EQ(LatestVersion(), 1);
  }
  // An edit of the donor's first version.
  static std::string Take(const std::string& arguments, const std::string& more = "") {
    return absl::StrCat("edits { ", more,
                        R"( take_from { checkpoint: "models/donor/checkpoints/latest" )",
                        arguments, " } }");
  }

  std::map<std::string, std::string> old_, donor_;
};

TEST_F(ModifyTakeTest, ATensorTakenSharesItsChunks) {
  const Modified modified =
      Modify(Take(R"(source: "net.fc.weight" target: "extra.weight")"));
  ASSERT_TRUE(modified.status.ok()) << modified.status;
  EXPECT_EQ(Bytes(kNew)["model:extra.weight"], donor_["model:net.fc.weight"]);
  EXPECT_EQ(modified.result.stored_bytes(), 0);
  EXPECT_EQ(modified.result.new_tensor_bytes(), 24);
  EXPECT_EQ(modified.FateOf("extra.weight").fate(), Fate::FATE_ADDED);
  EXPECT_EQ(Full(kNew).edits(0).take_from().checkpoint(), "models/donor/checkpoints/1");
}

TEST_F(ModifyTakeTest, ATensorTakenOverATiedOneChangesItsGroup) {
  const std::string arguments = R"(source: "net.embed" target: "head.weight")";
  const Modified modified = Modify(Take(arguments));
  ASSERT_TRUE(modified.status.ok()) << modified.status;
  EXPECT_EQ(Bytes(kNew)["model:embed.weight"], donor_["model:net.embed"]);
  EXPECT_EQ(TensorOf(kNew, "head.weight").tied_to(), "model:embed.weight");
  EXPECT_EQ(modified.FateOf("embed.weight").fate(), Fate::FATE_CHANGED);

  const Modified untied = Modify(
      absl::StrCat(R"(name: "models/m/checkpoints/1" )", Take(arguments, "untie: true")));
  ASSERT_TRUE(untied.status.ok()) << untied.status;
  auto made = Bytes("models/m/checkpoints/3");
  EXPECT_EQ(made["model:embed.weight"], old_["model:embed.weight"]);
  EXPECT_EQ(made["model:head.weight"], donor_["model:net.embed"]);
  EXPECT_THAT(untied.WarningsOf("head.weight"), ElementsAre(Warning::KIND_UNTIED));
}

TEST_F(ModifyTakeTest, AModuleTakenReplacesTheOneThatIsThere) {
  const Modified modified = Modify(Take(R"(source: "net.fc" target: "fc")"));
  ASSERT_TRUE(modified.status.ok()) << modified.status;
  EXPECT_THAT(Keys(kNew),
              ElementsAre("embed.weight", "fc.weight", "fc.twin", "head.weight"));
  EXPECT_EQ(Bytes(kNew)["model:fc.weight"], donor_["model:net.fc.weight"]);
  EXPECT_EQ(TensorOf(kNew, "fc.twin").tied_to(), "model:fc.weight") << "as it was there";
  EXPECT_EQ(modified.FateOf("fc.weight").fate(), Fate::FATE_ADDED);
  EXPECT_EQ(modified.FateOf("fc.bias").fate(), Fate::FATE_REMOVED);
  EXPECT_EQ(modified.result.stored_bytes(), 0);
}

TEST_F(ModifyTakeTest, TheTargetIsTheSourceUnlessGiven) {
  ASSERT_TRUE(Modify(Take(R"(source: "net")")).status.ok());
  EXPECT_THAT(Keys(kNew),
              ElementsAre("embed.weight", "fc.weight", "fc.bias", "head.weight",
                          "net.fc.weight", "net.embed", "net.fc.twin"));
}

TEST_F(ModifyTakeTest, OutlivesTheDeletionOfWhatItWasTakenFrom) {
  ASSERT_TRUE(Modify(Take(R"(source: "net")")).status.ok());
  for (const char* model : {"donor", "m"}) {
    ASSERT_TRUE(harness_.store().checkpoints().Delete(model, 1, {}).ok());
  }
  ASSERT_TRUE(harness_.store().maintenance().CollectGarbage(false, nullptr).ok());
  EXPECT_EQ(Bytes(kNew)["model:net.fc.weight"], donor_["model:net.fc.weight"]);
  EXPECT_EQ(Bytes(kNew)["model:fc.weight"], old_["model:fc.weight"]);
}

TEST_F(ModifyTakeTest, WhatDoesNotExistOrDoesNotFitIsRefused) {
  ExpectRefused(Modify(Take(R"(source: "net.conv")")), absl::StatusCode::kNotFound,
                "edits[0].take_from.source");
  ExpectRefused(Modify(Take("")), absl::StatusCode::kInvalidArgument,
                "edits[0].take_from.source");
  ExpectRefused(Modify(Take(R"(source: "net.fc" target: "fc.bias")")),
                absl::StatusCode::kInvalidArgument, "edits[0].take_from.target");
  ExpectRefused(Modify(R"(edits { take_from { source: "x"
                            checkpoint: "models/none/checkpoints/1" } })"),
                absl::StatusCode::kNotFound, "edits[0].take_from.checkpoint");
}

// Trees of modules, as far as both checkpoints know theirs.
class ModifyTakeTreeTest : public ModifyTest {
 protected:
  void SaveTree(const std::string& model, const std::vector<TestTensor>& tensors,
                const v1::Architecture& tree) {
    std::vector<v1::SaveCheckpointRequest> requests(2);
    requests[0].set_parent("models/" + model);
    requests[0].set_create_model(true);
    *requests[0].mutable_checkpoint()->mutable_architecture() = tree;
    for (const TestTensor& tensor : tensors) {
      *requests[0].mutable_manifest()->add_tensors() = tensor.tensor;
      for (const std::string& chunk : tensor.chunks) AddChunk(&requests[0], chunk);
    }
    requests[1].set_finish(true);
    auto saved = harness_.Save(requests);
    ASSERT_TRUE(saved.ok()) << saved.status();
  }
  static v1::Architecture Tree(const std::string& root_type,
                               const std::vector<std::string>& linears) {
    v1::Architecture tree;
    tree.mutable_root()->set_type(root_type);
    for (const std::string& name : linears) {
      auto* child = tree.mutable_root()->add_children();
      *child = *ParseModule("module", "Linear(1, 1, bias=False)");
      child->set_name(name);
    }
    return tree;
  }
};

TEST_F(ModifyTakeTreeTest, TheModuleFollowsIntoTheTree) {
  SaveTree("m", {Parameter("0.weight", {1, 1}, {1})}, Tree("Sequential", {"0"}));
  v1::Architecture donor = Tree("Net", {"fc"});
  donor.mutable_root()->mutable_children(0)->set_type("NonDynamicallyQuantizableLinear");
  SaveTree("donor", {Parameter("fc.weight", {1, 1}, {2})}, donor);
  const std::string take =
      R"(edits { take_from { checkpoint: "models/donor/checkpoints/1" source: "fc")";
  const Modified added = Modify(take + R"( target: "1" } })");
  ASSERT_TRUE(added.status.ok()) << added.status;
  const v1::Architecture made = Full(kNew).architecture();
  ASSERT_EQ(made.root().children_size(), 2);
  EXPECT_EQ(made.root().children(1).name(), "1");
  EXPECT_EQ(made.root().children(1).type(), "NonDynamicallyQuantizableLinear");
  EXPECT_THAT(added.WarningsOf("1"), testing::IsEmpty()) << "a Sequential runs it";
  const Modified replaced = Modify(take + R"( target: "0" } })");
  ASSERT_TRUE(replaced.status.ok()) << replaced.status;
  EXPECT_EQ(Full("models/m/checkpoints/3").architecture().root().children(0).type(),
            "NonDynamicallyQuantizableLinear");
  const Modified lost = Modify(take + R"( target: "no.1" } })");
  EXPECT_EQ(lost.status.code(), absl::StatusCode::kNotFound);
  EXPECT_THAT(std::string(lost.status.message()),
              HasSubstr("edits[0].take_from.target: module"));
}

TEST_F(ModifyTakeTreeTest, WhatNoForwardReachesIsWarnedOf) {
  SaveTree("m", {Parameter("fc.weight", {1, 1}, {1})}, Tree("Net", {"fc"}));
  const Modified modified = Modify(R"(edits { take_from { source: "fc" target: "fc2"
                                       checkpoint: "models/m/checkpoints/1" } })");
  ASSERT_TRUE(modified.status.ok()) << modified.status;
  EXPECT_THAT(modified.WarningsOf("fc2"), ElementsAre(Warning::KIND_NOT_IN_FORWARD));
}

TEST_F(ModifyTakeTreeTest, AModuleOfAnUnknownTreeIsMarkedIncomplete) {
  SaveTree("m", {Parameter("fc.weight", {1, 1}, {1})}, Tree("Net", {"fc"}));
  Save({Parameter("fc.weight", {1, 1}, {2})}, "plain");
  const Modified modified = Modify(R"(edits { take_from { source: "fc"
                                       checkpoint: "models/plain/checkpoints/1" } })");
  ASSERT_TRUE(modified.status.ok()) << modified.status;
  EXPECT_THAT(modified.WarningsOf("fc"),
              ElementsAre(Warning::KIND_ARCHITECTURE_INCOMPLETE));
  EXPECT_TRUE(Full(kNew).architecture().root().children(0).incomplete());
}

v1::Architecture::Module Linear(const std::string& name, int64_t in, int64_t out) {
  v1::Architecture::Module module;
  module.set_name(name);
  module.set_type("Linear");
  const auto add = [&](const char* argument) {
    auto* added = module.add_arguments();
    added->set_name(argument);
    return added->mutable_value();
  };
  add("in_features")->set_int_value(in);
  add("out_features")->set_int_value(out);
  add("bias")->set_bool_value(true);
  return module;
}

TEST_F(ModifyTakeTreeTest, WhatTheTreeAndTheTensorsDisagreeOnIsWarnedOf) {
  v1::Architecture tree;
  tree.mutable_root()->set_type("Sequential");
  *tree.mutable_root()->add_children() = Linear("0", 2, 3);
  *tree.mutable_root()->add_children() = Linear("1", 3, 1);
  SaveTree("m",
           {Parameter("0.weight", {3, 2}, RandomFloats(6, 1)),
            Parameter("0.bias", {3}, {1, 2, 3}), Parameter("1.weight", {1, 3}, {1, 2, 3}),
            Parameter("1.bias", {1}, {1})},
           tree);
  const Modified none = Modify("edits { cast { dtype: DTYPE_FLOAT16 } }");
  ASSERT_TRUE(none.status.ok()) << none.status;
  EXPECT_EQ(none.report.warnings_size(), 0);
  EXPECT_THAT(none.result.architecture_before(), HasSubstr("(0): Linear(in_features=2"));
  EXPECT_EQ(none.result.architecture_after(), none.result.architecture_before());
  const Modified modified = Modify(R"(edits { drop_keys { patterns: "0.bias" } }
                edits { rename_keys { pattern: "1.bias" replacement: "2.bias" } }
                edits { take_from { checkpoint: "models/m/checkpoints/1"
                                    source: "0.weight" target: "1.weight" } })");
  ASSERT_TRUE(modified.status.ok()) << modified.status;
  EXPECT_THAT(modified.WarningsOf("0.bias"), ElementsAre(Warning::KIND_TENSOR_MISSING));
  EXPECT_THAT(modified.WarningsOf("1.bias"), ElementsAre(Warning::KIND_TENSOR_MISSING));
  EXPECT_THAT(modified.WarningsOf("2.bias"),
              ElementsAre(Warning::KIND_TENSOR_WITHOUT_MODULE));
  EXPECT_THAT(modified.WarningsOf("1.weight"),
              ElementsAre(Warning::KIND_SHAPES_DO_NOT_FIT));
}

TEST_F(ModifyTakeTreeTest, WithoutATreeTheReportSaysThatOnlyTensorsWereChecked) {
  Save({Parameter("w", {1}, {1})});
  const Modified modified = Modify("edits { cast { dtype: DTYPE_FLOAT16 } }");
  EXPECT_THAT(modified.WarningsOf(""),
              ElementsAre(Warning::KIND_ARCHITECTURE_INCOMPLETE));
}

class ModifyLoraTest : public ModifyTest {
 protected:
  static constexpr int kOut = 300, kIn = 400, kRank = 4;

  ModifyLoraTest()
      : weight_(RandomFloats(kOut * kIn, 1)),
        a_(RandomFloats(kRank * kIn, 2)),
        b_(RandomFloats(kOut * kRank, 3)) {}

  TestTensor A(const std::string& prefix) {
    return Parameter(prefix + "q.lora_A.weight", {kRank, kIn}, a_);
  }
  TestTensor B(const std::string& prefix) {
    return Parameter(prefix + "q.lora_B.weight", {kOut, kRank}, b_);
  }
  std::string Merged(double alpha) {
    std::vector<float> merged;
    for (int i = 0; i < kOut; ++i) {
      for (int j = 0; j < kIn; ++j) {
        double delta = 0;
        for (int r = 0; r < kRank; ++r) {
          delta += double{b_[i * kRank + r]} * double{a_[r * kIn + j]};
        }
        merged.push_back(
            static_cast<float>(weight_[i * kIn + j] + alpha / kRank * delta));
      }
    }
    return BytesOf(merged);
  }

  const std::vector<float> weight_, a_, b_;
};

TEST_F(ModifyLoraTest, MergesTheAdaptersOfTheCheckpointItselfAndRemovesTheirKeys) {
  Save({Parameter("q.weight", {kOut, kIn}, weight_), A(""), B(""),
        Parameter("k.weight", {1}, {1})});
  const Modified modified = Modify("edits { merge_lora { alpha: 8 } }");
  ASSERT_TRUE(modified.status.ok()) << modified.status;
  EXPECT_EQ(Bytes(kNew)["model:q.weight"], Merged(8));
  EXPECT_EQ(Tensors(kNew).size(), 2u);
  EXPECT_EQ(modified.FateOf("q.weight").fate(), Fate::FATE_CHANGED);
  EXPECT_EQ(modified.FateOf("q.lora_A.weight").fate(), Fate::FATE_REMOVED);
}

TEST_F(ModifyLoraTest, MergesTheAdaptersOfAnotherCheckpointByPeftsNames) {
  Save({Parameter("q.weight", {kOut, kIn}, weight_)});
  Save({A("base_model.model."), B("base_model.model.")}, "adapter");
  const Modified modified = Modify(R"(edits { merge_lora { alpha: 2
                                       checkpoint: "models/adapter/checkpoints/latest" } })");
  ASSERT_TRUE(modified.status.ok()) << modified.status;
  EXPECT_EQ(Bytes(kNew)["model:q.weight"], Merged(2));
  EXPECT_EQ(Full(kNew).edits(0).merge_lora().checkpoint(),
            "models/adapter/checkpoints/1");
}

TEST_F(ModifyLoraTest, AdaptersThatDoNotFitAreRefused) {
  Save({Parameter("q.weight", {kOut, kIn}, weight_)});
  Save({A("")}, "half");
  Save({A("r."), B("r.")}, "stranger");
  Save({A(""), Parameter("q.lora_B.weight", {kRank, kRank}, RandomFloats(16, 1))}, "odd");
  struct Case {
    std::string fields;
    absl::StatusCode code;
    std::string text;
  };
  for (const Case& one : std::vector<Case>{
           {"", absl::StatusCode::kInvalidArgument, "holds no adapter"},
           {R"(checkpoint: "models/half/checkpoints/1")", absl::StatusCode::kNotFound,
            "q.lora_B.weight"},
           {R"(checkpoint: "models/stranger/checkpoints/1")", absl::StatusCode::kNotFound,
            "r.q.weight"},
           {R"(checkpoint: "models/odd/checkpoints/1")",
            absl::StatusCode::kInvalidArgument, "while q.weight is [300, 400]"}}) {
    const Modified modified =
        Modify(absl::StrCat("edits { merge_lora { alpha: 2 ", one.fields, " } }"));
    EXPECT_EQ(modified.status.code(), one.code) << modified.status;
    EXPECT_THAT(
        std::string(modified.status.message()),
        testing::AllOf(HasSubstr("edits[0].merge_lora.checkpoint"), HasSubstr(one.text)));
  }
  EXPECT_EQ(Modify("edits { merge_lora { } }").status.code(),
            absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(LatestVersion(), 1);
}

}  // namespace
}  // namespace modelstore::server
