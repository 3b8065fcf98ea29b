// ModifyCheckpoint: what becomes of the optimizer's state.
#include <gmock/gmock.h>

#include "tests/server/module_harness.h"

namespace modelstore::server {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
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
  const Modified modified =
      Modify("edits { replace_module { path: 's.1' module: 'Linear(3, 3)' "
             "initialization { scheme: ZEROS } } }"
             "edits { add_module { path: 's.2' module: 'Linear(3, 2)' "
             "initialization { scheme: ZEROS } } }");
  ASSERT_TRUE(modified.status.ok()) << modified.status;
  EXPECT_THAT(Names(kNew), ElementsAre(ElementsAre("s.0.weight", "s.0.bias", "s.1.weight",
                                                   "s.1.bias", "s.2.weight", "s.2.bias")));
  EXPECT_EQ(StateOf(kNew, "s.0.weight"), StateOf(kOld, "s.0.weight"));
  EXPECT_EQ(StateOf(kNew, "s.1.weight"), "none");
  EXPECT_EQ(modified.FateOf("s.0.weight").optimizer_fate(), Fate::STATE_KEPT);
  EXPECT_EQ(modified.FateOf("s.1.weight").optimizer_fate(), Fate::STATE_RESET);
  EXPECT_EQ(modified.FateOf("s.2.weight").optimizer_fate(), Fate::NO_STATE);
  EXPECT_TRUE(modified.FateOf("s.2.weight").has_optimizer_group());
}

TEST_F(ModifyOptimizerTest, StateFollowsARenameAndGoesWithWhatIsRemoved) {
  SaveModule(TwoLayers(), {{All()}});
  const Modified modified =
      Modify("edits { rename_module { path: 'a' new_name: 'first' } }"
             "edits { remove_module { path: 'b' } }");
  ASSERT_TRUE(modified.status.ok()) << modified.status;
  EXPECT_THAT(Names(kNew), ElementsAre(ElementsAre("first.weight", "first.bias")));
  EXPECT_EQ(StateOf(kNew, "first.weight"), StateOf(kOld, "a.weight"));
  EXPECT_EQ(modified.FateOf("b.weight").optimizer_fate(), Fate::STATE_DROPPED);
  int left = 0;
  for (const v1::Tensor& tensor : Tensors(kNew)) left += tensor.section() == "optimizer";
  EXPECT_EQ(left, 4) << "step and exp_avg of two parameters";
}

TEST_F(ModifyOptimizerTest, EditsOfKeysAndBytesAreFollowedToo) {
  SaveModule(TwoLayers(), {{All()}});
  const Modified modified = Modify("edits { add_prefix { prefix: 'net.' } }"
                                   "edits { cast { dtype: FLOAT16 keys: 'net.a.weight' } }");
  ASSERT_TRUE(modified.status.ok()) << modified.status;
  EXPECT_EQ(StateOf(kNew, "net.b.weight"), StateOf(kOld, "b.weight"));
  EXPECT_EQ(StateOf(kNew, "net.a.weight"), "none");
  EXPECT_EQ(modified.FateOf("net.a.weight").optimizer_fate(), Fate::STATE_RESET);
}

TEST_F(ModifyOptimizerTest, RowsThatAreKeptKeepTheirMomentum) {
  SaveModule(TwoLayers(), {{All()}});
  const Modified modified = Modify(
      "edits { resize_output { path: 'b' size: 3 keep_rows: 1 new_rows: ZEROS } }");
  ASSERT_TRUE(modified.status.ok()) << modified.status;
  const auto old = ValuesOf<float>(StateOf(kOld, "b.weight"));
  EXPECT_EQ(ValuesOf<float>(StateOf(kNew, "b.weight")),
            (std::vector<float>{old[3], old[4], old[5], 0, 0, 0, 0, 0, 0}));
  EXPECT_EQ(ValuesOf<float>(StateOf(kNew, "b.weight", "step")), std::vector<float>{7});
  EXPECT_EQ(modified.FateOf("b.weight").optimizer_fate(), Fate::STATE_SLICED);
}

TEST_F(ModifyOptimizerTest, ARowThatIsResizedTwiceIsStillFollowed) {
  SaveModule(TwoLayers(), {{All()}});
  ASSERT_TRUE(Modify("edits { resize_output { path: 'b' size: 3 keep_rows: [1, 0] "
                     "new_rows: ZEROS } }"
                     "edits { resize_output { path: 'b' size: 1 keep_rows: 1 } }")
                  .status.ok());
  const auto old = ValuesOf<float>(StateOf(kOld, "b.weight"));
  EXPECT_EQ(ValuesOf<float>(StateOf(kNew, "b.weight")),
            std::vector<float>(old.begin(), old.begin() + 3));
}

TEST_F(ModifyOptimizerTest, SeveralGroupsNearANewModuleNeedAWord) {
  SaveModule(TwoLayers(), {{{"a.weight", "a.bias"}, {"b.weight", "b.bias"}}});
  const std::string edit = "edits { add_module { path: 'c' module: 'Linear(2, 2)' "
                           "initialization { scheme: ZEROS } ";
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
                     "initialization { scheme: ZEROS } } }")
                  .status.ok());
  EXPECT_THAT(Names(kNew), ElementsAre(ElementsAre("b.bias"), ElementsAre("b.weight")));
}

TEST_F(ModifyOptimizerTest, PoliciesResetAndDrop) {
  SaveModule(TwoLayers(), {{All()}});
  const std::string edit = " edits { rename_module { path: 'a' new_name: 'c' } }";
  const Modified reset = Modify("optimizer_policy: RESET" + edit);
  ASSERT_TRUE(reset.status.ok()) << reset.status;
  EXPECT_THAT(Names(kNew), ElementsAre(ElementsAre("c.weight", "c.bias", "b.weight",
                                                   "b.bias")));
  EXPECT_EQ(StateOf(kNew, "b.weight"), "none");
  EXPECT_EQ(reset.FateOf("b.weight").optimizer_fate(), Fate::STATE_RESET);
  const Modified drop =
      Modify("name: 'models/m/checkpoints/1' optimizer_policy: DROP" + edit);
  ASSERT_TRUE(drop.status.ok()) << drop.status;
  EXPECT_TRUE(Names("models/m/checkpoints/3").empty());
  EXPECT_EQ(drop.FateOf("c.weight").optimizer_fate(), Fate::STATE_DROPPED);
}

TEST_F(ModifyOptimizerTest, LbfgsBeginsAnewWithAnyChangeOfItsGroup) {
  SaveModule(TwoLayers(), {{All()}, {{"history_size", 10}}});
  const Modified renamed = Modify("edits { rename_module { path: 'a' new_name: 'c' } }");
  EXPECT_EQ(renamed.FateOf("b.weight").optimizer_fate(), Fate::STATE_KEPT);
  const Modified changed =
      Modify("name: 'models/m/checkpoints/1' "
             "edits { cast { dtype: FLOAT16 keys: 'a.bias' } }");
  EXPECT_EQ(changed.FateOf("b.weight").optimizer_fate(), Fate::STATE_RESET);
}

TEST_F(ModifyOptimizerTest, AdagradIsGivenTheStateThatItCannotStepWithout) {
  SaveModule(TwoLayers(),
             {{All()}, {{"initial_accumulator_value", 0.5}}, true, "sum"});
  ASSERT_TRUE(Modify("edits { replace_module { path: 'b' module: 'Linear(3, 1)' "
                     "initialization { scheme: ZEROS } } }")
                  .status.ok());
  EXPECT_EQ(ValuesOf<float>(StateOf(kNew, "b.weight", "sum")),
            std::vector<float>(3, 0.5F));
  EXPECT_EQ(ValuesOf<float>(StateOf(kNew, "b.weight", "step")), std::vector<float>{0});
  EXPECT_EQ(StateOf(kNew, "a.weight", "sum"), StateOf(kOld, "a.weight", "sum"));
}

TEST_F(ModifyOptimizerTest, WithoutNamesTheOrderTellsIfTheNumberFits) {
  SaveModule(TwoLayers(), {{All()}, {}, false});
  ASSERT_TRUE(Modify("edits { remove_module { path: 'a' } }").status.ok());
  EXPECT_THAT(Names(kNew), ElementsAre(ElementsAre("2", "3")));
  SaveModule(TwoLayers(), {{{"a.weight"}}, {}, false});
  ExpectRefused(Modify("name: 'models/m/checkpoints/3' edits { remove_module { path: 'a' } }"), "optimizer_policy");
}

}  // namespace
}  // namespace modelstore::server
