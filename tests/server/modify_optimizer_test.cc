// ModifyCheckpoint: what becomes of the optimizer's state.
#include <gmock/gmock.h>

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "google/protobuf/text_format.h"
#include "tests/server/module_harness.h"

namespace modelstore::server {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using Warning = v1::ModifyCheckpointResponse::Warning;
using Fate = v1::ModifyCheckpointResponse::ParameterFate;

constexpr char kOld[] = "models/m/checkpoints/1";
constexpr char kNew[] = "models/m/checkpoints/2";

class ModifyOptimizerTest : public ModuleEditTest {
 protected:
  static ModuleTree TwoLayers() {
    return Net({{"a", "Linear(4, 3)"}, {"b", "Linear(3, 2)"}}, {"a", "b"});
  }
  static void ExpectRefused(const Modified& modified, const std::string& text) {
    EXPECT_EQ(modified.status.code(), absl::StatusCode::kInvalidArgument);
    EXPECT_THAT(std::string(modified.status.message()), HasSubstr(text));
  }
  static std::vector<std::string> All() {
    return {"a.weight", "a.bias", "b.weight", "b.bias"};
  }
};

TEST_F(ModifyOptimizerTest, MomentumOfUntouchedParametersSurvivesAnInsertedLayer) {
  SaveModule(Net({{"s", "Sequential(Linear(4, 3), Linear(3, 2))"}}),
             {{{"s.0.weight", "s.0.bias", "s.1.weight", "s.1.bias"}}});
  const Modified modified = Modify(
      "edits { replace_module { path: 's.1' module: 'Linear(3, 3)' "
      "initialization { scheme: SCHEME_ZEROS } } }"
      "edits { add_module { path: 's.2' module: 'Linear(3, 2)' "
      "initialization { scheme: SCHEME_ZEROS } } }");
  ASSERT_TRUE(modified.status.ok()) << modified.status;
  EXPECT_THAT(Names(kNew),
              ElementsAre(ElementsAre("s.0.weight", "s.0.bias", "s.1.weight", "s.1.bias",
                                      "s.2.weight", "s.2.bias")));
  EXPECT_EQ(StateOf(kNew, "s.0.weight"), StateOf(kOld, "s.0.weight"));
  EXPECT_EQ(StateOf(kNew, "s.1.weight"), "none");
  EXPECT_EQ(modified.FateOf("s.0.weight").optimizer_fate(),
            Fate::OPTIMIZER_FATE_STATE_KEPT);
  EXPECT_EQ(modified.FateOf("s.1.weight").optimizer_fate(),
            Fate::OPTIMIZER_FATE_STATE_RESET);
  EXPECT_EQ(modified.FateOf("s.2.weight").optimizer_fate(),
            Fate::OPTIMIZER_FATE_NO_STATE);
  EXPECT_TRUE(modified.FateOf("s.2.weight").has_optimizer_group());
}

TEST_F(ModifyOptimizerTest, StateFollowsARenameAndGoesWithWhatIsRemoved) {
  SaveModule(TwoLayers(), {{All()}});
  const Modified modified = Modify(
      "edits { rename_module { path: 'a' new_name: 'first' } }"
      "edits { remove_module { path: 'b' } }");
  ASSERT_TRUE(modified.status.ok()) << modified.status;
  EXPECT_THAT(Names(kNew), ElementsAre(ElementsAre("first.weight", "first.bias")));
  EXPECT_EQ(StateOf(kNew, "first.weight"), StateOf(kOld, "a.weight"));
  EXPECT_EQ(modified.FateOf("b.weight").optimizer_fate(),
            Fate::OPTIMIZER_FATE_STATE_DROPPED);
  int left = 0;
  for (const v1::Tensor& tensor : Tensors(kNew)) left += tensor.section() == "optimizer";
  EXPECT_EQ(left, 4) << "step and exp_avg of two parameters";
}

TEST_F(ModifyOptimizerTest, EditsOfKeysAndBytesAreFollowedToo) {
  SaveModule(TwoLayers(), {{All()}});
  const Modified modified = Modify(
      "edits { add_prefix { prefix: 'net.' } }"
      "edits { cast { dtype: DTYPE_FLOAT16 keys: 'net.a.weight' } }");
  ASSERT_TRUE(modified.status.ok()) << modified.status;
  EXPECT_EQ(StateOf(kNew, "net.b.weight"), StateOf(kOld, "b.weight"));
  EXPECT_EQ(StateOf(kNew, "net.a.weight"), StateOf(kOld, "a.weight"));
  EXPECT_EQ(modified.FateOf("net.a.weight").optimizer_fate(),
            Fate::OPTIMIZER_FATE_STATE_KEPT);
}

TEST_F(ModifyOptimizerTest, ACastKeepsStateBitForBitAndACastOfKeptRowsToo) {
  SaveModule(TwoLayers(), {{All()}});
  const Modified modified = Modify(
      "edits { resize_output { path: 'b' size: 1 keep_rows: 1 } }"
      "edits { cast { dtype: DTYPE_BFLOAT16 } }");
  ASSERT_TRUE(modified.status.ok()) << modified.status;
  EXPECT_EQ(StateOf(kNew, "a.weight"), StateOf(kOld, "a.weight"));
  EXPECT_EQ(modified.FateOf("b.weight").optimizer_fate(),
            Fate::OPTIMIZER_FATE_STATE_SLICED);
  EXPECT_EQ(StateOf(kNew, "b.weight"), StateOf(kOld, "b.weight").substr(12));
  EXPECT_THAT(modified.WarningsOf("a.weight"), IsEmpty());
}

TEST_F(ModifyOptimizerTest, AnAverageResetsStateAndWarnsOfIt) {
  SaveModule(TwoLayers(), {{All()}});
  SaveModule(TwoLayers(), {{All()}});
  const Modified modified = Modify(
      "edits { rename_keys { pattern: 'nothing|b.bias' replacement: 'b.bias' } }"
      "edits { average { checkpoints: 'models/m/checkpoints/1' "
      "checkpoints: 'models/m/checkpoints/2' patterns: 'a\\\\..*' } }");
  ASSERT_TRUE(modified.status.ok()) << modified.status;
  EXPECT_EQ(modified.FateOf("a.weight").optimizer_fate(),
            Fate::OPTIMIZER_FATE_STATE_RESET);
  EXPECT_EQ(modified.FateOf("b.weight").optimizer_fate(),
            Fate::OPTIMIZER_FATE_STATE_KEPT);
  const auto& warnings = modified.report.warnings();
  const auto reset = std::find_if(warnings.begin(), warnings.end(), [](const auto& w) {
    return w.kind() == Warning::KIND_OPTIMIZER_STATE_RESET;
  });
  ASSERT_NE(reset, warnings.end());
  EXPECT_EQ(reset->edit_index(), 1);
  EXPECT_THAT(reset->message(), HasSubstr("2 parameter(s)"));
  EXPECT_THAT(reset->message(), HasSubstr("a.weight, a.bias"));
}

TEST_F(ModifyOptimizerTest, RowsThatAreKeptKeepTheirMomentum) {
  SaveModule(TwoLayers(), {{All()}});
  const Modified modified = Modify(
      "edits { resize_output { path: 'b' size: 3 keep_rows: 1 new_rows: NEW_ROWS_ZEROS } "
      "}");
  ASSERT_TRUE(modified.status.ok()) << modified.status;
  const auto old = ValuesOf<float>(StateOf(kOld, "b.weight"));
  EXPECT_EQ(ValuesOf<float>(StateOf(kNew, "b.weight")),
            (std::vector<float>{old[3], old[4], old[5], 0, 0, 0, 0, 0, 0}));
  EXPECT_EQ(ValuesOf<float>(StateOf(kNew, "b.weight", "step")), std::vector<float>{7});
  EXPECT_EQ(modified.FateOf("b.weight").optimizer_fate(),
            Fate::OPTIMIZER_FATE_STATE_SLICED);
}

TEST_F(ModifyOptimizerTest, ARowThatIsResizedTwiceIsStillFollowed) {
  SaveModule(TwoLayers(), {{All()}});
  ASSERT_TRUE(Modify("edits { resize_output { path: 'b' size: 3 keep_rows: [1, 0] "
                     "new_rows: NEW_ROWS_ZEROS } }"
                     "edits { resize_output { path: 'b' size: 1 keep_rows: 1 } }")
                  .status.ok());
  const auto old = ValuesOf<float>(StateOf(kOld, "b.weight"));
  EXPECT_EQ(ValuesOf<float>(StateOf(kNew, "b.weight")),
            std::vector<float>(old.begin(), old.begin() + 3));
}

TEST_F(ModifyOptimizerTest, SeveralGroupsNearANewModuleMustBeChosenExplicitly) {
  SaveModule(TwoLayers(), {{{"a.weight", "a.bias"}, {"b.weight", "b.bias"}}});
  const std::string edit =
      "edits { add_module { path: 'c' module: 'Linear(2, 2)' "
      "initialization { scheme: SCHEME_ZEROS } ";
  ExpectRefused(Modify(edit + "} }"), "edits[0].add_module.optimizer_group");
  ExpectRefused(Modify(edit + "optimizer_group: 2 } }"), "2 parameter group(s)");
  ASSERT_TRUE(Modify(edit + "optimizer_group: 1 } }").status.ok());
  EXPECT_THAT(Names(kNew),
              ElementsAre(ElementsAre("a.weight", "a.bias"),
                          ElementsAre("b.weight", "b.bias", "c.weight", "c.bias")));
}

TEST_F(ModifyOptimizerTest, WhatIsReplacedHandsItsGroupOnAndTheFrozenStayOut) {
  SaveModule(TwoLayers(), {{{"b.bias"}, {"b.weight"}}});
  ASSERT_TRUE(Modify("edits { replace_module { path: 'b' module: 'Linear(3, 9)' "
                     "initialization { scheme: SCHEME_ZEROS } } }")
                  .status.ok());
  EXPECT_THAT(Names(kNew), ElementsAre(ElementsAre("b.bias"), ElementsAre("b.weight")));
}

TEST_F(ModifyOptimizerTest, PoliciesResetAndDrop) {
  SaveModule(TwoLayers(), {{All()}});
  const std::string edit = " edits { rename_module { path: 'a' new_name: 'c' } }";
  const Modified reset = Modify("optimizer_policy: OPTIMIZER_POLICY_RESET" + edit);
  ASSERT_TRUE(reset.status.ok()) << reset.status;
  EXPECT_THAT(Names(kNew),
              ElementsAre(ElementsAre("c.weight", "c.bias", "b.weight", "b.bias")));
  EXPECT_EQ(StateOf(kNew, "b.weight"), "none");
  EXPECT_EQ(reset.FateOf("b.weight").optimizer_fate(), Fate::OPTIMIZER_FATE_STATE_RESET);
  const Modified drop = Modify(
      "name: 'models/m/checkpoints/1' optimizer_policy: OPTIMIZER_POLICY_DROP" + edit);
  ASSERT_TRUE(drop.status.ok()) << drop.status;
  EXPECT_TRUE(Names("models/m/checkpoints/3").empty());
  EXPECT_EQ(drop.FateOf("c.weight").optimizer_fate(), Fate::OPTIMIZER_FATE_STATE_DROPPED);
}

TEST_F(ModifyOptimizerTest, LbfgsStartsOverWithAnyChangeOfItsGroup) {
  SaveModule(TwoLayers(), {{All()}, {{"history_size", 10}}});
  const Modified renamed = Modify("edits { rename_module { path: 'a' new_name: 'c' } }");
  EXPECT_EQ(renamed.FateOf("b.weight").optimizer_fate(), Fate::OPTIMIZER_FATE_STATE_KEPT);
  const Modified changed = Modify(
      "name: 'models/m/checkpoints/1' "
      "edits { cast { dtype: DTYPE_FLOAT16 keys: 'a.bias' } }");
  EXPECT_EQ(changed.FateOf("b.weight").optimizer_fate(),
            Fate::OPTIMIZER_FATE_STATE_RESET);
}

TEST_F(ModifyOptimizerTest, AdagradIsGivenTheStateThatItCannotStepWithout) {
  SaveModule(TwoLayers(), {{All()}, {{"initial_accumulator_value", 0.5}}, true, "sum"});
  ASSERT_TRUE(Modify("edits { replace_module { path: 'b' module: 'Linear(3, 1)' "
                     "initialization { scheme: SCHEME_ZEROS } } }")
                  .status.ok());
  EXPECT_EQ(ValuesOf<float>(StateOf(kNew, "b.weight", "sum")),
            std::vector<float>(3, 0.5F));
  EXPECT_EQ(ValuesOf<float>(StateOf(kNew, "b.weight", "step")), std::vector<float>{0});
  EXPECT_EQ(StateOf(kNew, "a.weight", "sum"), StateOf(kOld, "a.weight", "sum"));
}

TEST_F(ModifyOptimizerTest, WithoutNamesShapesReportWhereTheyAllowNoOther) {
  SaveModule(TwoLayers(), {{{"a.weight", "b.weight"}, {"a.bias", "b.bias"}}, {}, false});
  ASSERT_TRUE(Modify("edits { remove_module { path: 'b' } }").status.ok());
  EXPECT_THAT(Names(kNew), ElementsAre(ElementsAre("0"), ElementsAre("2")));
  EXPECT_EQ(Bytes(kNew)["optimizer:state/2/exp_avg"],
            Bytes(kOld)["optimizer:state/2/exp_avg"])
      << "number 2 is a.bias: numbers run through the groups";
  EXPECT_EQ(Bytes(kNew).count("optimizer:state/1/exp_avg"), 0u);
}

// Numbers of an optimizer over [weights] and [biases], which is not the model's order.
class UnnamedGroupsTest : public ModifyOptimizerTest {
 protected:
  UnnamedGroupsTest() {
    SaveModule(Net({{"a", "Linear(2, 2)"}, {"b", "Linear(2, 2)"}}, {"a", "b"}),
               {{{"a.weight", "b.weight"}, {"a.bias", "b.bias"}}, {}, false});
  }
  std::string State(const std::string& checkpoint, int number) {
    return Bytes(checkpoint)[absl::StrCat("optimizer:state/", number, "/exp_avg")];
  }
};

TEST_F(UnnamedGroupsTest, WhereShapesLeaveItOpenAnEditOfParametersIsRefusedByName) {
  for (const char* edit :
       {"replace_module { path: 'b' module: 'Linear(2, 2)' "
        "initialization { scheme: SCHEME_ZEROS } optimizer_group: 0 }",
        "remove_module { path: 'b' }", "drop_keys { patterns: 'a.bias' }",
        "resize_output { path: 'b' size: 3 new_rows: NEW_ROWS_ZEROS }"}) {
    const Modified modified = Modify(absl::StrCat("edits { ", edit, " }"));
    ExpectRefused(modified, "optimizer_policy: it cannot be told which parameters");
    ExpectRefused(modified, "number 0, whose state is [2, 2], may be any of 2");
    ExpectRefused(modified, "optimizer_param_names");
  }
  EXPECT_EQ(LatestVersion(), 1);
}

TEST_F(UnnamedGroupsTest, NamesInTheRequestGiveEachParameterItsOwnState) {
  const Modified modified = Modify(
      "optimizer_param_names { key: 'optimizer' value { names: ["
      "'a.weight', 'b.weight', 'a.bias', 'b.bias'] } } "
      "edits { replace_module { path: 'b' module: 'Linear(2, 2)' "
      "initialization { scheme: SCHEME_ZEROS } } }");
  ASSERT_TRUE(modified.status.ok()) << modified.status;
  EXPECT_THAT(Names(kNew), ElementsAre(ElementsAre("a.weight", "b.weight"),
                                       ElementsAre("a.bias", "b.bias")));
  EXPECT_EQ(StateOf(kNew, "a.weight"), State(kOld, 0));
  EXPECT_EQ(StateOf(kNew, "a.bias"), State(kOld, 2));
  EXPECT_EQ(StateOf(kNew, "b.weight"), "none");
  EXPECT_EQ(StateOf(kNew, "b.bias"), "none");
  EXPECT_EQ(modified.FateOf("a.bias").optimizer_fate(), Fate::OPTIMIZER_FATE_STATE_KEPT);
}

TEST_F(UnnamedGroupsTest, NamesThatDoNotFitTheOptimizerAreRefused) {
  const auto cast_with = [this](const char* names) {
    return Modify(
        absl::StrCat("optimizer_param_names { key: 'optimizer' value { names: [", names,
                     "] } } edits { cast { dtype: DTYPE_FLOAT16 } }"));
  };
  ExpectRefused(cast_with("'a.weight'"),
                "optimizer_param_names[optimizer]: are 1, while the optimizer holds 4 "
                "parameter(s)");
  ExpectRefused(
      cast_with("'a.weight', 'x', 'a.bias', 'b.bias'"),
      "optimizer_param_names[optimizer].names[1]: the model has no parameter x");
  ExpectRefused(cast_with("'a.weight', 'a.weight', 'a.bias', 'b.bias'"),
                "it names a.weight twice");
  ExpectRefused(cast_with("'a.bias', 'b.weight', 'a.weight', 'b.bias'"),
                "a.bias is [2], while the state of number 0 is [2, 2]");
}

TEST_F(UnnamedGroupsTest, EditsThatLeaveParametersWhatTheyAreAreNeverRefused) {
  for (const char* edit :
       {"cast { dtype: DTYPE_BFLOAT16 }", "rename_module { path: 'a' new_name: 'c' }",
        "add_prefix { prefix: 'net.' }", "set_requires_grad { patterns: 'a\\\\..*' }"}) {
    const Modified modified =
        Modify(absl::StrCat("name: 'models/m/checkpoints/1' edits { ", edit, " }"));
    ASSERT_TRUE(modified.status.ok()) << edit << ": " << modified.status;
    EXPECT_EQ(modified.FateOf("b.weight").optimizer_fate(),
              Fate::OPTIMIZER_FATE_UNSPECIFIED);
    const std::string made = absl::StrCat("models/m/checkpoints/", LatestVersion());
    for (int number = 0; number < 4; ++number) {
      EXPECT_EQ(State(made, number), State(kOld, number)) << edit;
    }
  }
}

TEST_F(UnnamedGroupsTest, OtherValuesResetAllStateAndTheReportSaysWhy) {
  const Modified modified = Modify(
      "edits { average { checkpoints: 'models/m/checkpoints/1' "
      "checkpoints: 'models/m/checkpoints/1' patterns: 'a.bias' } }");
  ASSERT_TRUE(modified.status.ok()) << modified.status;
  EXPECT_THAT(modified.WarningsOf("optimizer"),
              ElementsAre(Warning::KIND_OPTIMIZER_STATE_RESET));
  EXPECT_EQ(Bytes(kNew).size(), 4u) << "tensors of the model alone";
  EXPECT_THAT(Names(kNew), ElementsAre(ElementsAre("0", "1"), ElementsAre("2", "3")));
}

TEST_F(UnnamedGroupsTest, ANewModuleNeedsItsGroup) {
  ExpectRefused(Modify("edits { add_module { path: 'c' module: 'Linear(2, 2)' "
                       "initialization { scheme: SCHEME_ZEROS } } }"),
                "edits[0].add_module.optimizer_group");
}

TEST_F(ModifyOptimizerTest, AParameterThatIsNotTheModelsStaysAsItIs) {
  SaveModule(TwoLayers(),
             {{{"a.weight", "temperature", "a.bias", "b.weight", "b.bias"}}});
  const Modified modified = Modify(
      "edits { remove_module { path: 'b' } }"
      "edits { rename_module { path: 'a' new_name: 'c' } }");
  ASSERT_TRUE(modified.status.ok()) << modified.status;
  EXPECT_THAT(Names(kNew), ElementsAre(ElementsAre("c.weight", "temperature", "c.bias")));
  EXPECT_EQ(StateOf(kNew, "temperature"), StateOf(kOld, "temperature"));
  EXPECT_EQ(StateOf(kNew, "c.bias"), StateOf(kOld, "a.bias"));
}

// A model of `tensors`, and an optimizer whose single group has these entries. Number n
// has the state `m{n}`.
class HandMadeOptimizerTest : public ModifyOptimizerTest {
 protected:
  void SaveWith(std::vector<TestTensor> tensors,
                const std::vector<std::vector<float>>& states,
                const std::string& group = "") {
    std::string state, params;
    for (size_t n = 0; n < states.size(); ++n) {
      const std::string key = absl::StrCat("m", n);
      tensors.push_back(MakeTensor(key, v1::DTYPE_FLOAT32,
                                   {static_cast<int64_t>(states[n].size())},
                                   BytesOf(states[n])));
      tensors.back().tensor.set_section("optimizer");
      absl::StrAppend(&state, "entries { key { int_value: ", n,
                      " } value { dict_value { entries { key { string_value: 'exp_avg' } "
                      "value { tensor_value: '",
                      key, "' } } } } } ");
      absl::StrAppend(&params, "values { int_value: ", n, " } ");
    }
    std::vector<v1::SaveCheckpointRequest> requests(2);
    requests[0].set_parent("models/m");
    requests[0].set_create_model(true);
    for (const TestTensor& tensor : tensors) {
      *requests[0].mutable_manifest()->add_tensors() = tensor.tensor;
      for (const auto& chunk : tensor.chunks) AddChunk(&requests[0], chunk);
    }
    v1::Section& section = *requests[0].mutable_manifest()->add_sections();
    section.set_name("optimizer");
    ASSERT_TRUE(google::protobuf::TextFormat::ParseFromString(
        absl::StrCat("entries { key { string_value: 'state' } value { dict_value { ",
                     state,
                     "} } } entries { key { string_value: 'param_groups' } value { "
                     "list_value { values { dict_value { entries { key { string_value: "
                     "'params' } value { list_value { ",
                     params, "} } } ", group, " } } } } }"),
        section.mutable_value()->mutable_dict_value()));
    requests[1].set_finish(true);
    const auto saved = harness_.Save(requests);
    ASSERT_TRUE(saved.ok()) << saved.status();
  }
};

class UntiedOptimizerTest : public HandMadeOptimizerTest,
                            public ::testing::WithParamInterface<v1::TensorRole> {};

// Plain state dicts have no roles.
INSTANTIATE_TEST_SUITE_P(Roles, UntiedOptimizerTest,
                         ::testing::Values(v1::TENSOR_ROLE_PARAMETER,
                                           v1::TENSOR_ROLE_UNSPECIFIED));

TEST_P(UntiedOptimizerTest, WhatIsUntiedIsTrainedOn) {
  TestTensor embed = Parameter("embed", {2}, {1, 2});
  embed.tensor.set_role(GetParam());
  embed.tensor.set_requires_grad(GetParam() == v1::TENSOR_ROLE_PARAMETER);
  SaveWith({embed, Tied("head", embed)}, {{5, 6}},
           "entries { key { string_value: 'param_names' } value { list_value { values { "
           "string_value: 'embed' } } } }");
  Save({Parameter("w", {2}, {3, 4})}, "other");
  int version = 1;
  for (const std::string changed : {"head", "embed"}) {
    const Modified modified = Modify(absl::StrCat(
        "name: 'models/m/checkpoints/1' edits { untie: true take_from { checkpoint: "
        "'models/other/checkpoints/1' source: 'w' target: '",
        changed, "' } }"));
    ASSERT_TRUE(modified.status.ok()) << modified.status;
    const std::string made = absl::StrCat("models/m/checkpoints/", ++version);
    const std::string kept = changed == "head" ? "embed" : "head";
    EXPECT_THAT(Names(made), ElementsAre(ElementsAre("embed", "head")));
    EXPECT_EQ(StateOf(made, kept), BytesOf<float>({5, 6}));
    EXPECT_EQ(StateOf(made, changed), "none");
    EXPECT_EQ(modified.FateOf(kept).optimizer_fate(), Fate::OPTIMIZER_FATE_STATE_KEPT);
    EXPECT_EQ(modified.FateOf(changed).optimizer_fate(), Fate::OPTIMIZER_FATE_NO_STATE);
    EXPECT_TRUE(modified.FateOf(changed).has_optimizer_group());
  }
}

TEST_F(HandMadeOptimizerTest, AParameterOfAPlainStateDictThatIsReplacedIsTrainedOn) {
  auto plain = [](const char* key) {
    return MakeTensor(key, v1::DTYPE_FLOAT32, {2}, BytesOf<float>({1, 2}));
  };
  SaveWith({plain("a.w"), plain("b.w")}, {{5, 6}, {7, 8}},
           "entries { key { string_value: 'param_names' } value { list_value { values { "
           "string_value: 'a.w' } values { string_value: 'b.w' } } } }");
  Save({plain("a.w"), plain("a.x")}, "other");
  const Modified modified = Modify(
      "edits { take_from { checkpoint: 'models/other/checkpoints/1' source: 'a' } }");
  ASSERT_TRUE(modified.status.ok()) << modified.status;
  EXPECT_THAT(Names(kNew), ElementsAre(ElementsAre("a.w", "b.w")))
      << "nothing tells whether a.x is trained";
  EXPECT_EQ(StateOf(kNew, "a.w"), "none");
  EXPECT_EQ(StateOf(kNew, "b.w"), BytesOf<float>({7, 8}));
  EXPECT_EQ(modified.FateOf("a.w").optimizer_fate(), Fate::OPTIMIZER_FATE_STATE_RESET);
}

TEST_F(ModifyOptimizerTest, WhatIsTakenJoinsTheGroupOfTheParameterThatItReplaces) {
  SaveModule(Net({{"a", "Linear(2, 2)"}, {"b", "Linear(2, 2)"}}, {"a", "b"}),
             {{{"a.weight", "b.weight"}, {"a.bias", "b.bias"}}});
  const Modified modified = Modify(
      "edits { take_from { checkpoint: 'models/m/checkpoints/1' source: 'b' "
      "target: 'a' } }");
  ASSERT_TRUE(modified.status.ok()) << modified.status;
  EXPECT_THAT(Names(kNew), ElementsAre(ElementsAre("a.weight", "b.weight"),
                                       ElementsAre("a.bias", "b.bias")));
}

TEST_F(HandMadeOptimizerTest, NothingIsUntiedWhereTheOptimizersParametersAreNotKnown) {
  const TestTensor embed = Parameter("embed", {2}, {1, 2});
  SaveWith({embed, Tied("head", embed), Parameter("w", {2}, {3, 4})}, {{5, 6}, {7, 8}});
  const std::string take =
      "take_from { checkpoint: 'models/m/checkpoints/1' source: 'w' target: 'head' } }";
  ExpectRefused(Modify("edits { untie: true " + take), "may be any of 2");
  EXPECT_TRUE(Modify("edits { " + take).status.ok()) << "tied, they change together";
}

TEST_F(HandMadeOptimizerTest, AnotherModulesParameterIsNotTakenForAFrozenOneOfItsShape) {
  TestTensor frozen = Parameter("frozen", {3}, {7, 8, 9});
  frozen.tensor.set_requires_grad(false);
  SaveWith({Parameter("w", {2}, {1, 2}), frozen}, {{5, 6}, {1, 2, 3}});
  ExpectRefused(
      Modify("edits { drop_keys { patterns: 'frozen' } }"),
      "2 parameter(s) without a name, while the model has 1 that may be trained");
  EXPECT_EQ(LatestVersion(), 1);
  SaveWith({Parameter("w", {2}, {1, 2}), frozen}, {{5, 6}});
  const Modified modified = Modify("edits { drop_keys { patterns: 'frozen' } }");
  ASSERT_TRUE(modified.status.ok()) << modified.status;
  EXPECT_EQ(modified.FateOf("w").optimizer_fate(), Fate::OPTIMIZER_FATE_STATE_KEPT);
}

TEST_F(HandMadeOptimizerTest, WhatCannotBeTrainedMayGoWithoutNames) {
  std::vector<TestTensor> plain = {
      MakeTensor("a", v1::DTYPE_FLOAT32, {2}, BytesOf<float>({1, 2})),
      MakeTensor("b", v1::DTYPE_FLOAT32, {2}, BytesOf<float>({3, 4})),
      MakeTensor("bn.num_batches_tracked", v1::DTYPE_INT64, {}, BytesOf<int64_t>({5}))};
  SaveWith(plain, {{5, 6}, {7, 8}});
  const Modified modified =
      Modify("edits { drop_keys { patterns: '.*num_batches_tracked' } }");
  ASSERT_TRUE(modified.status.ok()) << modified.status;
  EXPECT_EQ(Bytes(kNew).size(), 4u);
  ExpectRefused(Modify("edits { drop_keys { patterns: 'b' } }"), "may be any of 2");
}

TEST_F(ModifyOptimizerTest, ASectionThatIsNoOptimizersStaysAndTheReportWarns) {
  TestTensor weight = Parameter("fc.weight", {2, 2}, {1, 2, 3, 4});
  std::vector<v1::SaveCheckpointRequest> requests(2);
  requests[0].set_parent("models/m");
  requests[0].set_create_model(true);
  *requests[0].mutable_manifest()->add_tensors() = weight.tensor;
  v1::Section& section = *requests[0].mutable_manifest()->add_sections();
  section.set_name("optimizer");
  section.mutable_value()->mutable_list_value()->add_values()->set_int_value(1);
  AddChunk(&requests[0], weight.chunks[0]);
  requests[1].set_finish(true);
  ASSERT_TRUE(harness_.Save(requests).ok());
  const Modified modified =
      Modify("edits { resize_output { path: 'fc' size: 3 new_rows: NEW_ROWS_ZEROS } }");
  ASSERT_TRUE(modified.status.ok()) << modified.status;
  EXPECT_THAT(modified.WarningsOf("optimizer"),
              ElementsAre(Warning::KIND_OPTIMIZER_NOT_FOLLOWED));
}

}  // namespace
}  // namespace modelstore::server
