// ModifyCheckpoint of a checkpoint with several optimizers: each follows its own
// parameters.
#include <gmock/gmock.h>

#include <utility>

#include "absl/strings/str_cat.h"
#include "tests/server/module_harness.h"

namespace modelstore::server {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using Warning = v1::ModifyCheckpointResponse::Warning;
using Fate = v1::ModifyCheckpointResponse::ParameterFate;

constexpr char kOld[] = "models/m/checkpoints/1";
constexpr char kNew[] = "models/m/checkpoints/2";
constexpr char kGenerator[] = "optimizer.generator";
constexpr char kCritic[] = "optimizer.critic";

using Keys = std::vector<std::string>;

Keys KeysOf(const std::string& network) {
  return {network + ".0.weight", network + ".0.bias", network + ".1.weight",
          network + ".1.bias"};
}

class ModifyOptimizersTest : public ModuleEditTest {
 protected:
  static Groups Over(const std::string& section, const Keys& keys) {
    Groups groups;
    groups.keys = {keys};
    groups.section = section;
    return groups;
  }
  static ModuleTree Gan() {
    return Net({{"generator", "Sequential(Linear(2, 3), Linear(3, 2))"},
                {"critic", "Sequential(Linear(2, 3), Linear(3, 1))"}});
  }
  void SaveGan() {
    SaveWithOptimizers(
        Gan(), {Over(kGenerator, KeysOf("generator")), Over(kCritic, KeysOf("critic"))});
  }
  std::string State(const std::string& checkpoint, const std::string& section,
                    const std::string& key) {
    return StateOf(checkpoint, key, "exp_avg", section);
  }
  void ExpectSameState(const std::string& section, const Keys& keys) {
    for (const std::string& key : keys) {
      EXPECT_EQ(State(kNew, section, key), State(kOld, section, key)) << key;
    }
  }
  static void ExpectRefused(const Modified& modified, const std::string& text) {
    EXPECT_EQ(modified.status.code(), absl::StatusCode::kInvalidArgument);
    EXPECT_THAT(std::string(modified.status.message()), HasSubstr(text));
  }
  static std::string Add(const std::string& path, const std::string& more = "") {
    return absl::StrCat(
        "edits { add_module { path: '", path,
        "' module: 'Linear(2, 2)' initialization { scheme: SCHEME_ZEROS } ", more,
        " } } ");
  }
};

TEST_F(ModifyOptimizersTest, AReplacedModuleLeavesTheStateOfTheOtherOptimizerAlone) {
  SaveGan();
  const Modified modified = Modify(
      "edits { replace_module { path: 'generator.1' module: 'Linear(3, 2)' "
      "initialization { scheme: SCHEME_ZEROS } } }");
  ASSERT_TRUE(modified.status.ok()) << modified.status;
  EXPECT_THAT(Names(kNew, kCritic), ElementsAre(KeysOf("critic")));
  ExpectSameState(kCritic, KeysOf("critic"));
  EXPECT_THAT(Names(kNew, kGenerator), ElementsAre(KeysOf("generator")));
  ExpectSameState(kGenerator, {"generator.0.weight", "generator.0.bias"});
  EXPECT_EQ(State(kNew, kGenerator, "generator.1.weight"), "none");
  const Fate reset = modified.FateOf("generator.1.weight");
  EXPECT_EQ(reset.optimizer_fate(), Fate::OPTIMIZER_FATE_STATE_RESET);
  EXPECT_EQ(reset.optimizer(), kGenerator);
  const Fate kept = modified.FateOf("critic.1.weight");
  EXPECT_EQ(kept.optimizer_fate(), Fate::OPTIMIZER_FATE_STATE_KEPT);
  EXPECT_EQ(kept.optimizer(), kCritic);
  EXPECT_EQ(modified.report.parameters_size(), 8);
}

TEST_F(ModifyOptimizersTest, NamesRowsAndTheStatesOfRemovedModulesFollowInEach) {
  SaveGan();
  const Modified modified = Modify(
      "edits { rename_module { path: 'generator' new_name: 'g' } }"
      "edits { remove_module { path: 'g.1' } }"
      "edits { resize_output { path: 'critic.1' size: 2 new_rows: NEW_ROWS_ZEROS } }");
  ASSERT_TRUE(modified.status.ok()) << modified.status;
  EXPECT_THAT(Names(kNew, kGenerator),
              ElementsAre(ElementsAre("g.0.weight", "g.0.bias")));
  EXPECT_EQ(State(kNew, kGenerator, "g.0.weight"),
            State(kOld, kGenerator, "generator.0.weight"));
  EXPECT_THAT(Names(kNew, kCritic), ElementsAre(KeysOf("critic")));
  EXPECT_EQ(State(kNew, kCritic, "critic.1.weight"),
            State(kOld, kCritic, "critic.1.weight") + BytesOf<float>({0, 0, 0}));
  const Fate gone = modified.FateOf("generator.1.weight");
  EXPECT_EQ(gone.optimizer_fate(), Fate::OPTIMIZER_FATE_STATE_DROPPED);
  EXPECT_EQ(gone.optimizer(), kGenerator);
  EXPECT_EQ(modified.FateOf("critic.1.weight").optimizer_fate(),
            Fate::OPTIMIZER_FATE_STATE_SLICED);
}

TEST_F(ModifyOptimizersTest, ANewModuleJoinsTheOptimizerOfItsNearestSiblings) {
  SaveGan();
  const Modified modified = Modify(Add("generator.2"));
  ASSERT_TRUE(modified.status.ok()) << modified.status;
  Keys keys = KeysOf("generator");
  keys.insert(keys.end(), {"generator.2.weight", "generator.2.bias"});
  EXPECT_THAT(Names(kNew, kGenerator), ElementsAre(keys));
  EXPECT_THAT(Names(kNew, kCritic), ElementsAre(KeysOf("critic")));
  const Fate added = modified.FateOf("generator.2.weight");
  EXPECT_EQ(added.optimizer_fate(), Fate::OPTIMIZER_FATE_NO_STATE);
  EXPECT_EQ(added.optimizer(), kGenerator);
  EXPECT_EQ(added.optimizer_group(), 0);
}

TEST_F(ModifyOptimizersTest, BetweenTwoOptimizersANewModuleNeedsAWord) {
  SaveGan();
  ExpectRefused(Modify(Add("extra")),
                "edits[0].add_module.optimizer: is required: the nearest parameters are "
                "in several groups, such as group 0 of `optimizer.generator` and group 0 "
                "of `optimizer.critic`");
  ExpectRefused(Modify(Add("extra", "optimizer_group: 0")),
                "edits[0].add_module.optimizer: is required");
  ExpectRefused(Modify(Add("extra", "optimizer: 'optimizer.actor'")),
                "there is no optimizer in section `optimizer.actor`");
  ExpectRefused(Modify(Add("extra", "optimizer: 'optimizer.critic' optimizer_group: 1")),
                "`optimizer.critic` has 1 parameter group(s)");
  EXPECT_EQ(LatestVersion(), 1);
  const Modified modified = Modify(Add("extra", "optimizer: 'optimizer.critic'"));
  ASSERT_TRUE(modified.status.ok()) << modified.status;
  Keys keys = KeysOf("critic");
  keys.insert(keys.end(), {"extra.weight", "extra.bias"});
  EXPECT_THAT(Names(kNew, kCritic), ElementsAre(keys));
  EXPECT_THAT(Names(kNew, kGenerator), ElementsAre(KeysOf("generator")));
}

TEST_F(ModifyOptimizersTest, AnOptimizerThatAnEditDropsIsNoChoiceAnyMore) {
  SaveGan();
  const Modified modified =
      Modify("edits { drop_section { section: 'optimizer.critic' } } " + Add("extra"));
  ASSERT_TRUE(modified.status.ok()) << modified.status;
  EXPECT_TRUE(Names(kNew, kCritic).empty());
  EXPECT_EQ(modified.FateOf("extra.weight").optimizer(), kGenerator);
  const Fate dropped = modified.FateOf("critic.0.weight");
  EXPECT_EQ(dropped.optimizer_fate(), Fate::OPTIMIZER_FATE_STATE_DROPPED);
  EXPECT_EQ(dropped.optimizer(), kCritic);
  ExpectSameState(kGenerator, KeysOf("generator"));
}

TEST_F(ModifyOptimizersTest, WhatIsTakenJoinsTheOptimizerOfWhatItReplaces) {
  SaveGan();
  const Modified modified = Modify(
      "edits { take_from { checkpoint: 'models/m/checkpoints/1' source: 'generator.0' "
      "target: 'critic.0' } }");
  ASSERT_TRUE(modified.status.ok()) << modified.status;
  EXPECT_THAT(Names(kNew, kCritic), ElementsAre(KeysOf("critic")));
  EXPECT_THAT(Names(kNew, kGenerator), ElementsAre(KeysOf("generator")));
  EXPECT_EQ(State(kNew, kCritic, "critic.0.weight"), "none");
  ExpectSameState(kGenerator, KeysOf("generator"));
}

TEST_F(ModifyOptimizersTest, AReplacementMayMoveToAnotherOptimizerWhichTheReportReports) {
  SaveGan();
  const Modified modified = Modify(
      "edits { replace_module { path: 'generator.1' module: 'Linear(3, 2)' "
      "initialization { scheme: SCHEME_ZEROS } optimizer: 'optimizer.critic' } }");
  ASSERT_TRUE(modified.status.ok()) << modified.status;
  EXPECT_THAT(Names(kNew, kGenerator),
              ElementsAre(ElementsAre("generator.0.weight", "generator.0.bias")));
  std::vector<std::pair<std::string, int>> told;
  for (const Fate& fate : modified.report.parameters()) {
    if (fate.key() != "generator.1.weight") continue;
    told.emplace_back(fate.optimizer(), fate.optimizer_fate());
  }
  EXPECT_THAT(told,
              ElementsAre(std::pair(kCritic, Fate::OPTIMIZER_FATE_NO_STATE),
                          std::pair(kGenerator, Fate::OPTIMIZER_FATE_STATE_DROPPED)));
}

TEST_F(ModifyOptimizersTest, PoliciesHoldForAllOfThem) {
  SaveGan();
  const std::string edit = " edits { rename_module { path: 'critic' new_name: 'c' } }";
  const Modified reset = Modify("optimizer_policy: OPTIMIZER_POLICY_RESET" + edit);
  ASSERT_TRUE(reset.status.ok()) << reset.status;
  for (const auto& [section, key] :
       {std::pair(kGenerator, "generator.0.bias"), std::pair(kCritic, "c.0.bias")}) {
    EXPECT_EQ(Names(kNew, section).size(), 1u);
    EXPECT_EQ(State(kNew, section, key), "none");
    EXPECT_EQ(reset.FateOf(key).optimizer_fate(), Fate::OPTIMIZER_FATE_STATE_RESET);
    EXPECT_EQ(reset.FateOf(key).optimizer(), section);
  }
  const Modified drop = Modify(
      "name: 'models/m/checkpoints/1' optimizer_policy: OPTIMIZER_POLICY_DROP" + edit);
  ASSERT_TRUE(drop.status.ok()) << drop.status;
  for (const char* section : {kGenerator, kCritic}) {
    EXPECT_TRUE(Names("models/m/checkpoints/3", section).empty());
  }
  EXPECT_EQ(drop.FateOf("c.0.bias").optimizer(), kCritic);
}

TEST_F(ModifyOptimizersTest, AnAverageResetsTheStateOfWhatItChangesAndNamesTheSection) {
  SaveGan();
  const Modified modified = Modify(
      "edits { average { checkpoints: 'models/m/checkpoints/1' "
      "checkpoints: 'models/m/checkpoints/1' patterns: 'critic\\\\.0\\\\..*' } }");
  ASSERT_TRUE(modified.status.ok()) << modified.status;
  ExpectSameState(kGenerator, KeysOf("generator"));
  EXPECT_EQ(State(kNew, kCritic, "critic.0.weight"), "none");
  int resets = 0;
  for (const Warning& warning : modified.report.warnings()) {
    if (warning.kind() != Warning::KIND_OPTIMIZER_STATE_RESET) continue;
    ++resets;
    EXPECT_THAT(warning.message(), HasSubstr("section `optimizer.critic`"));
  }
  EXPECT_EQ(resets, 1);
}

TEST_F(ModifyOptimizersTest, AdagradIsGivenItsStateInItsOwnSection) {
  Groups adagrad = Over(kCritic, KeysOf("critic"));
  adagrad.options = {{"initial_accumulator_value", 0.5}};
  adagrad.field = "sum";
  SaveWithOptimizers(Gan(), {Over(kGenerator, KeysOf("generator")), adagrad});
  const Modified modified = Modify(
      "edits { replace_module { path: 'critic.1' module: 'Linear(3, 1)' "
      "initialization { scheme: SCHEME_ZEROS } } }");
  ASSERT_TRUE(modified.status.ok()) << modified.status;
  EXPECT_EQ(ValuesOf<float>(StateOf(kNew, "critic.1.weight", "sum", kCritic)),
            std::vector<float>(3, 0.5F));
  ExpectSameState(kGenerator, KeysOf("generator"));
}

TEST_F(ModifyOptimizersTest, NamesInTheRequestAreOfOneSection) {
  Groups unnamed = Over(kCritic, KeysOf("critic"));
  unnamed.with_names = false;
  SaveWithOptimizers(Gan(), {Over(kGenerator, KeysOf("generator")), unnamed});
  const std::string edit = "edits { remove_module { path: 'critic.1' } }";
  ExpectRefused(Modify(edit),
                "optimizer_policy: it cannot be told which parameters section "
                "`optimizer.critic` holds");
  const auto with_names = [&](const std::string& section) {
    return Modify(absl::StrCat("optimizer_param_names { key: '", section,
                               "' value { names: ['critic.0.weight', 'critic.0.bias', "
                               "'critic.1.weight', 'critic.1.bias'] } } ",
                               edit));
  };
  ExpectRefused(with_names(kGenerator),
                "optimizer_param_names[optimizer.generator]: the stored optimizer has "
                "names of its own");
  ExpectRefused(with_names("optimizer"), "optimizer_param_names[optimizer]");
  EXPECT_EQ(LatestVersion(), 1);
  const Modified modified = with_names(kCritic);
  ASSERT_TRUE(modified.status.ok()) << modified.status;
  EXPECT_THAT(Names(kNew, kCritic),
              ElementsAre(ElementsAre("critic.0.weight", "critic.0.bias")));
  ExpectSameState(kGenerator, KeysOf("generator"));
}

// As Adam first and LBFGS after it.
TEST_F(ModifyOptimizersTest, AParameterOfTwoOptimizersFollowsInBothAndIsListedForEach) {
  const ModuleTree net = Net({{"s", "Sequential(Linear(2, 2), Linear(2, 2))"}});
  SaveWithOptimizers(
      net, {Over("optimizer", KeysOf("s")), Over("optimizer.second", KeysOf("s"))});
  const Modified modified = Modify(
      "edits { replace_module { path: 's.1' module: 'Linear(2, 2)' "
      "initialization { scheme: SCHEME_ZEROS } } } " +
      Add("s.2"));
  ASSERT_TRUE(modified.status.ok()) << modified.status;
  Keys keys = KeysOf("s");
  keys.insert(keys.end(), {"s.2.weight", "s.2.bias"});
  for (const char* section : {"optimizer", "optimizer.second"}) {
    EXPECT_THAT(Names(kNew, section), ElementsAre(keys));
    EXPECT_EQ(State(kNew, section, "s.1.weight"), "none");
    EXPECT_EQ(State(kNew, section, "s.0.weight"), State(kOld, section, "s.0.weight"));
  }
  std::vector<std::string> listed;
  for (const Fate& fate : modified.report.parameters()) {
    if (fate.key() == "s.1.weight") listed.push_back(fate.optimizer());
  }
  EXPECT_THAT(listed, ElementsAre("optimizer", "optimizer.second"));
}

TEST_F(ModifyOptimizersTest, MoreOptimizersThanCanBeFollowedAreRefused) {
  std::vector<Groups> optimizers;
  for (int i = 0; i < 65; ++i) {
    optimizers.push_back(Over(absl::StrCat("optimizer.n", i), {"generator.0.bias"}));
  }
  SaveWithOptimizers(Gan(), optimizers);
  ExpectRefused(Modify("edits { cast { dtype: DTYPE_FLOAT16 } }"),
                "name: models/m/checkpoints/1 has 65 optimizers, at most 64");
}

}  // namespace
}  // namespace modelstore::server
