// Modifying stored models through the client.
#include "modelstore/modify.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "google/protobuf/text_format.h"
#include "google/protobuf/util/message_differencer.h"
#include "modelstore/v1/edits.pb.h"
#include "modelstore/v1/operations.pb.h"
#include "tests/client/test_store.h"
#include "tests/support/checkpoints.h"

namespace modelstore {
namespace {

using support::TestDeadline;
using support::TestStore;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using Kind = ModifyResult::Warning::Kind;
using Parameter = ModifyResult::Parameter;

void ExpectEdit(const EditList& list, const std::string& text) {
  ASSERT_EQ(list.size(), 1u);
  v1::Edit edit, expected;
  ASSERT_TRUE(edit.ParseFromString(list.encoded()[0]));
  ASSERT_TRUE(google::protobuf::TextFormat::ParseFromString(text, &expected)) << text;
  EXPECT_TRUE(google::protobuf::util::MessageDifferencer::Equals(edit, expected))
      << edit.DebugString();
}

TEST(EditListTest, EachMethodMakesTheEditOfItsName) {
  EditList::NewModule module;
  module.in_forward = true;
  module.optimizer_group = 1;
  module.optimizer = "optimizer.critic";
  module.initialization.scheme = Initialization::Scheme::kNormal;
  module.initialization.std = 0.5;
  module.initialization.seed = 7;
  ExpectEdit(EditList().AddModule("add_linear", "Linear(1000, 10)", module),
             R"e(add_module { path: "add_linear" module: "Linear(1000, 10)"
                  in_forward: true optimizer_group: 1 optimizer: "optimizer.critic"
                  initialization { scheme: SCHEME_NORMAL mean: 0 std: 0.5 seed: 7 } })e");
  ExpectEdit(EditList().ReplaceModule("classifier.6", "Linear(4096, 10)"),
             R"e(replace_module { path: "classifier.6" module: "Linear(4096, 10)"
                  initialization { scheme: SCHEME_DEFAULT } })e");
  ExpectEdit(EditList().RemoveModule("a.b"), R"(remove_module { path: "a.b" })");
  ExpectEdit(EditList().RenameModule("a.b", "c"),
             R"(rename_module { path: "a.b" new_name: "c" })");
  ExpectEdit(
      EditList().ResizeOutput("fc", 5, {3, 1}, EditList::NewRows::kMean, 9),
      R"(resize_output { path: "fc" size: 5 keep_rows: [3, 1] new_rows: NEW_ROWS_MEAN
                  initialization { seed: 9 } })");
  ExpectEdit(EditList().RenameKeys("a(.*)", "b\\1", "optimizer"),
             R"e(rename_keys { pattern: "a(.*)" replacement: "b\\1"
                  section: "optimizer" })e");
  ExpectEdit(EditList().StripPrefix("module."),
             R"(strip_prefix { prefix: "module." section: "model" })");
  ExpectEdit(EditList().AddPrefix("net."),
             R"(add_prefix { prefix: "net." section: "model" })");
  ExpectEdit(EditList().DropKeys({"a", "b"}),
             R"(drop_keys { patterns: ["a", "b"] section: "model" })");
  ExpectEdit(EditList().DropSection("optimizer"),
             R"(drop_section { section: "optimizer" })");
  ExpectEdit(EditList().Cast(DType::kBfloat16, {"fc\\..*"}),
             R"(cast { dtype: DTYPE_BFLOAT16 patterns: "fc\\..*" section: "model" })");
  ExpectEdit(EditList().SetRequiresGrad(true, {"fc.weight"}),
             R"(set_requires_grad { requires_grad: true patterns: "fc.weight" })");
  ExpectEdit(EditList().TakeFrom("models/a/checkpoints/1", "fc", "head"),
             R"(take_from { checkpoint: "models/a/checkpoints/1" source: "fc"
                  target: "head" })");
  ExpectEdit(EditList().Average({"models/a/checkpoints/1", "models/a/checkpoints/2"},
                                {0.25, 0.75}, {"w"}),
             R"(average { checkpoints: "models/a/checkpoints/1"
                  checkpoints: "models/a/checkpoints/2" coefficients: [0.25, 0.75]
                  patterns: "w" })");
  ExpectEdit(EditList().MergeLora(16, "models/a/checkpoints/1"),
             R"(merge_lora { alpha: 16 checkpoint: "models/a/checkpoints/1" })");
  ExpectEdit(EditList().Cast(DType::kFloat16).Untie(),
             R"(untie: true cast { dtype: DTYPE_FLOAT16 section: "model" })");
  EXPECT_EQ(EditList().Untie().size(), 0u);
}

TEST(EditListTest, EachSchemeOfInitializationCarriesItsOwnNumbers) {
  using Scheme = Initialization::Scheme;
  const auto expect = [](Scheme scheme, const std::string& text) {
    EditList::NewModule module;
    module.initialization = {scheme, 1, 2, 3, 4, 5, 6, 7, true, std::nullopt};
    ExpectEdit(EditList().ReplaceModule("p", "ReLU()", module),
               absl::StrCat(R"e(replace_module { path: "p" module: "ReLU()"
                                 initialization { )e",
                            text, " } }"));
  };
  expect(Scheme::kZeros, "scheme: SCHEME_ZEROS");
  expect(Scheme::kConstant, "scheme: SCHEME_CONSTANT value: 1");
  expect(Scheme::kNormal, "scheme: SCHEME_NORMAL mean: 2 std: 3");
  expect(Scheme::kUniform, "scheme: SCHEME_UNIFORM low: 4 high: 5");
  expect(Scheme::kXavierNormal, "scheme: SCHEME_XAVIER_NORMAL gain: 6");
  expect(Scheme::kKaimingUniform,
         "scheme: SCHEME_KAIMING_UNIFORM negative_slope: 7 fan_out: true");
}

class ModifyTest : public ::testing::Test {
 protected:
  ModifyTest() : client_(store_.NewClient()) {
    support::TensorSet tensors;
    for (const char* key : {"fc.weight", "conv.weight"}) {
      TensorInfo info;
      info.key = key;
      info.shape = {4};
      info.role = TensorRole::kParameter;
      info.size_bytes = 16;
      tensors.Add(info, std::string(16, key[0]));
    }
    SaveContent content = tensors.Content();
    content.metadata.epoch = 3;
    auto saved =
        client_.SaveAsync("models/m", std::move(content)).Durable(TestDeadline());
    EXPECT_TRUE(saved.ok()) << saved.status();
  }
  int64_t LatestVersion() {
    return client_.GetModel("models/m")->latest_version.value_or(0);
  }

  TestStore store_;
  Client client_;
};

TEST_F(ModifyTest, ReturnsTheNewVersionAndTheReport) {
  ModifyOptions options;
  options.metadata.loss = 0.5;
  options.metadata.description = "half the bytes";
  options.progress = std::make_shared<ModifyProgress>();
  const auto made = ModifyCheckpoint(
      client_, "models/m/checkpoints/latest",
      EditList().RenameKeys("fc\\.(.*)", "head.\\1").Cast(DType::kFloat16), options);
  ASSERT_TRUE(made.ok()) << made.status();
  EXPECT_EQ(made->checkpoint.name, "models/m/checkpoints/2");
  EXPECT_EQ(made->checkpoint.base_checkpoint, "models/m/checkpoints/1");
  EXPECT_EQ(made->checkpoint.epoch, 3);
  EXPECT_EQ(made->checkpoint.loss, 0.5);
  EXPECT_EQ(made->new_tensor_bytes, 16);
  ASSERT_EQ(made->parameters.size(), 2u);
  EXPECT_EQ(made->parameters[0].key, "head.weight");
  EXPECT_EQ(made->parameters[0].old_key, "fc.weight");
  EXPECT_EQ(made->parameters[0].fate, Parameter::Fate::kChanged);
  EXPECT_EQ(ToString(made->parameters[0].fate), "CHANGED");
  EXPECT_EQ(made->parameters[0].optimizer_fate, Parameter::OptimizerFate::kNoState);
  EXPECT_EQ(ToString(made->parameters[0].optimizer_fate), "NO_STATE");
  EXPECT_EQ(made->parameters[0].optimizer, "");
}

TEST_F(ModifyTest, NamesOfAnOptimizerThatDoesNotExistAreRefusedByItsSection) {
  ModifyOptions options;
  options.optimizer_param_names = {{"optimizer.critic", {"fc.weight"}}};
  const auto made = ModifyCheckpoint(client_, "models/m/checkpoints/1",
                                     EditList().Cast(DType::kFloat16), options);
  EXPECT_EQ(made.status().code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(std::string(made.status().message()),
              ::testing::HasSubstr("optimizer_param_names[optimizer.critic]"));
  EXPECT_EQ(LatestVersion(), 1);
}

TEST_F(ModifyTest, WhatTheAnswerLeavesOutIsNamed) {
  store_.connection().SetFaults({.tamper = [](std::string* message) {
    v1::ModifyCheckpointResponse response;
    if (!response.ParseFromString(*message) || !response.has_result()) return;
    response.mutable_result()->add_omitted("architecture_before");
    *message = response.SerializeAsString();
  }});
  const auto made = ModifyCheckpoint(client_, "models/m/checkpoints/1",
                                     EditList().Cast(DType::kFloat16));
  ASSERT_TRUE(made.ok()) << made.status();
  EXPECT_THAT(made->omitted, ElementsAre("architecture_before"));
}

TEST_F(ModifyTest, WarningsReportTheirKindAndNewOnesAreUnknown) {
  std::vector<int> kinds = {v1::ModifyCheckpointResponse::Warning::KIND_TENSOR_MISSING,
                            999};
  store_.connection().SetFaults({.tamper = [&](std::string* message) {
    v1::ModifyCheckpointResponse response;
    if (!response.ParseFromString(*message) || !response.has_report()) return;
    for (const int kind : std::exchange(kinds, {})) {
      response.mutable_report()->add_warnings()->set_kind(
          static_cast<v1::ModifyCheckpointResponse::Warning::Kind>(kind));
    }
    *message = response.SerializeAsString();
  }});
  const auto made = ModifyCheckpoint(client_, "models/m/checkpoints/1",
                                     EditList().Cast(DType::kFloat16));
  ASSERT_TRUE(made.ok()) << made.status();
  std::vector<Kind> found;
  for (const auto& warning : made->warnings) found.push_back(warning.kind);
  EXPECT_THAT(found, ::testing::IsSupersetOf({Kind::kTensorMissing, Kind::kUnknown}));
  EXPECT_EQ(ToString(Kind::kTensorMissing), "TENSOR_MISSING");
}

TEST_F(ModifyTest, ErrorsNameTheEdit) {
  const auto made = ModifyCheckpoint(client_, "models/m/checkpoints/1",
                                     EditList().AddPrefix("a.").DropKeys({"fc.weight"}));
  EXPECT_EQ(made.status().code(), absl::StatusCode::kNotFound);
  EXPECT_THAT(std::string(made.status().message()),
              HasSubstr("edits[1].drop_keys.patterns[0]"));
  EXPECT_EQ(LatestVersion(), 1);
}

TEST_F(ModifyTest, ValidateOnlyMakesNoVersion) {
  ModifyOptions options;
  options.validate_only = true;
  const auto checked = ModifyCheckpoint(client_, "models/m/checkpoints/1",
                                        EditList().AddPrefix("a."), options);
  ASSERT_TRUE(checked.ok()) << checked.status();
  EXPECT_EQ(checked->checkpoint.name, "");
  EXPECT_EQ(checked->parameters.size(), 2u);
  EXPECT_EQ(LatestVersion(), 1);
}

TEST_F(ModifyTest, CutAtAnyMessageItMakesOneVersion) {
  int64_t latest = LatestVersion();
  for (int64_t cut = 1; cut <= 4; ++cut) {
    for (const bool deliver : {false, true}) {
      store_.connection().SetFaults({.cut_at = cut, .deliver_cut = deliver});
      const auto made =
          ModifyCheckpoint(client_, "models/m/checkpoints/1",
                           EditList().AddPrefix(absl::StrCat("p", cut, deliver, ".")));
      ASSERT_TRUE(made.ok()) << made.status();
      EXPECT_EQ(made->checkpoint.version, ++latest);
      EXPECT_EQ(LatestVersion(), latest);
    }
  }
}

TEST_F(ModifyTest, ADeadlineThatPassesEndsIt) {
  store_.connection().Pause();
  const auto made =
      ModifyCheckpoint(client_, "models/m/checkpoints/1", EditList().AddPrefix("a."),
                       {.deadline = After(std::chrono::milliseconds(50))});
  EXPECT_EQ(made.status().code(), absl::StatusCode::kDeadlineExceeded) << made.status();
  store_.connection().Resume();
}

TEST_F(ModifyTest, HistoryGoesBackToTheFirstVersionThatIsLeft) {
  ASSERT_TRUE(ModifyCheckpoint(client_, "models/m/checkpoints/latest",
                               EditList().Cast(DType::kFloat16))
                  .ok());
  ASSERT_TRUE(
      ModifyCheckpoint(client_, "models/m/checkpoints/latest",
                       EditList().TakeFrom("models/m/checkpoints/latest", "fc", "head"))
          .ok());
  auto history = History(client_, "models/m/checkpoints/latest");
  ASSERT_TRUE(history.ok()) << history.status();
  ASSERT_EQ(history->size(), 3u);
  EXPECT_EQ((*history)[0].checkpoint.origin, Origin::kModified);
  EXPECT_THAT(
      (*history)[0].edits,
      ElementsAre(
          R"({"take_from":{"checkpoint":"models/m/checkpoints/2","source":"fc","target":"head"}})"));
  EXPECT_THAT((*history)[1].edits,
              ElementsAre(R"({"cast":{"dtype":"DTYPE_FLOAT16","section":"model"}})"));
  EXPECT_EQ((*history)[2].checkpoint.origin, Origin::kSaved);
  EXPECT_EQ(ToString((*history)[2].checkpoint.origin), "SAVED");
  EXPECT_TRUE((*history)[2].edits.empty());
  EXPECT_EQ(History(client_, "models/m/checkpoints/latest", {.limit = 2})->size(), 2u);
  ASSERT_TRUE(client_.DeleteCheckpoint("models/m/checkpoints/1").ok());
  EXPECT_EQ(History(client_, "models/m/checkpoints/latest")->size(), 2u);
  EXPECT_EQ(History(client_, "models/none/checkpoints/1").status().code(),
            absl::StatusCode::kNotFound);
}

}  // namespace
}  // namespace modelstore
