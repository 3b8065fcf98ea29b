// The tree of modules: edits, forward steps, bounds. That modules print and have
// tensors as in PyTorch is held against Python in tests/interop.
#include "proto/contract/architecture/architecture.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "absl/strings/str_cat.h"
#include "proto/contract/architecture/text.h"
#include "proto/contract/architecture/value.h"

namespace modelstore {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;

ModuleTree Parsed(const std::string& text) {
  auto module = ParseModule("module", text);
  EXPECT_TRUE(module.ok()) << module.status();
  return module.ok() ? *module : ModuleTree();
}

void Put(ModuleTree& parent, const std::string& name, const std::string& text) {
  ModuleTree& child = *parent.add_children();
  child = Parsed(text);
  child.set_name(name);
}

// A small VGG: a user's class with a forward written down.
ModuleTree Net() {
  ModuleTree root;
  root.set_type("VGG");
  Put(root, "features", "Sequential(Conv2d(3, 4, 3), ReLU())");
  Put(root, "classifier", "Sequential(Linear(4, 8), ReLU(), Linear(8, 10))");
  for (const char* step : {"features", "flatten(1)", "classifier"}) {
    root.add_forward(step);
  }
  return root;
}

std::vector<std::string> Names(const ModuleTree& module) {
  std::vector<std::string> names;
  for (const ModuleTree& child : module.children()) names.push_back(child.name());
  return names;
}

std::string TypeAt(const ModuleTree& root, const std::string& path) {
  const ModuleTree* module = FindModule(root, path);
  return module == nullptr ? "none" : module->type();
}

TEST(ModulePath, LeadsToTheModuleOrNowhere) {
  const ModuleTree root = Net();
  EXPECT_EQ(TypeAt(root, ""), "VGG");
  EXPECT_EQ(TypeAt(root, "classifier"), "Sequential");
  EXPECT_EQ(TypeAt(root, "classifier.2"), "Linear");
  for (const char* path : {"classifier.3", "classifier.", ".classifier", ".", "..",
                           "classifier..2", "classifier.2.", "Classifier"}) {
    EXPECT_EQ(TypeAt(root, path), "none") << path;
  }
  EXPECT_EQ(SplitModulePath("a.b.c"),
            (std::pair<absl::string_view, absl::string_view>("a.b", "c")));
  EXPECT_EQ(SplitModulePath("a").first, "");
  EXPECT_EQ(JoinModulePath("a.b", "c"), "a.b.c");
  EXPECT_EQ(JoinModulePath("", "c"), "c");
}

TEST(AddModule, IntoASequentialItRunsLast) {
  ModuleTree root = Net();
  const auto added =
      AddModule("f", "classifier.3", Parsed("Linear(10, 2)"), /*append=*/false, root);
  ASSERT_TRUE(added.ok()) << added.status();
  EXPECT_EQ(*added, InForward::kYes);
  EXPECT_THAT(ForwardSteps(*FindModule(root, "classifier")),
              ElementsAre("0", "1", "2", "3"));
}

TEST(AddModule, OutsideASequentialItIsOnlyRegisteredByDefault) {
  ModuleTree root = Net();
  EXPECT_EQ(*AddModule("f", "one", Parsed("Linear(10, 2)"), false, root), InForward::kNo);
  EXPECT_THAT(root.forward(), ElementsAre("features", "flatten(1)", "classifier"));
  EXPECT_EQ(*AddModule("f", "two", Parsed("Linear(10, 2)"), true, root), InForward::kYes);
  EXPECT_THAT(root.forward(), ElementsAre("features", "flatten(1)", "classifier", "two"));
  EXPECT_THAT(Names(root), ElementsAre("features", "classifier", "one", "two"));
  // A parent without a forward has none to append to.
  root.clear_forward();
  EXPECT_EQ(*AddModule("f", "three", Parsed("ReLU()"), true, root), InForward::kNo);
}

TEST(AddModule, RefusesATakenNameAMissingParentAndABadName) {
  ModuleTree root = Net();
  const std::string before = root.SerializeAsString();
  const auto code = [&](const std::string& path) {
    return AddModule("f", path, Parsed("ReLU()"), true, root).status().code();
  };
  EXPECT_EQ(code("classifier.2"), absl::StatusCode::kAlreadyExists);
  EXPECT_EQ(code("head.0"), absl::StatusCode::kNotFound);
  EXPECT_EQ(code(""), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(code("classifier."), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(code(std::string(257, 'n')), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(code("\xff"), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(root.SerializeAsString(), before);
}

TEST(ReplaceModule, TakesNameAndPlace) {
  ModuleTree root = Net();
  ASSERT_TRUE(ReplaceModule("f", "classifier.0", Parsed("Identity()"), root).ok());
  EXPECT_EQ(TypeAt(root, "classifier.0"), "Identity");
  EXPECT_THAT(Names(*FindModule(root, "classifier")), ElementsAre("0", "1", "2"));
  EXPECT_EQ(ReplaceModule("f", "nowhere", Parsed("ReLU()"), root).code(),
            absl::StatusCode::kNotFound);
  ASSERT_TRUE(ReplaceModule("f", "", Parsed("Linear(1, 2)"), root).ok());
  EXPECT_EQ(root.type(), "Linear");
}

TEST(RemoveModule, LeavesEveryStepThatNamesIt) {
  ModuleTree root = Net();
  Put(root, "shortcut", "Conv2d(3, 4, 1)");
  root.add_forward("add(shortcut)");
  root.add_forward("features");
  root.add_forward("add");
  ASSERT_TRUE(RemoveModule("f", "shortcut", root).ok());
  EXPECT_THAT(root.forward(),
              ElementsAre("features", "flatten(1)", "classifier", "features", "add"));
  ASSERT_TRUE(RemoveModule("f", "features", root).ok());
  EXPECT_THAT(root.forward(), ElementsAre("flatten(1)", "classifier", "add"));
  // Those behind keep their names.
  ASSERT_TRUE(RemoveModule("f", "classifier.1", root).ok());
  EXPECT_THAT(ForwardSteps(*FindModule(root, "classifier")), ElementsAre("0", "2"));
  EXPECT_EQ(RemoveModule("f", "classifier.1", root).code(), absl::StatusCode::kNotFound);
  EXPECT_EQ(RemoveModule("f", "", root).code(), absl::StatusCode::kInvalidArgument);
}

TEST(RenameModule, TheForwardFollows) {
  ModuleTree root = Net();
  Put(root, "shortcut", "Conv2d(3, 4, 1)");
  root.add_forward("add(shortcut)");
  ASSERT_TRUE(RenameModule("f", "shortcut", "skip", root).ok());
  ASSERT_TRUE(RenameModule("f", "classifier", "head", root).ok());
  EXPECT_THAT(root.forward(), ElementsAre("features", "flatten(1)", "head", "add(skip)"));
  EXPECT_EQ(TypeAt(root, "head.2"), "Linear");
  EXPECT_TRUE(RenameModule("f", "head", "head", root).ok());
  EXPECT_EQ(RenameModule("f", "head", "features", root).code(),
            absl::StatusCode::kAlreadyExists);
  EXPECT_EQ(RenameModule("f", "head", "a.b", root).code(),
            absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(RenameModule("f", "", "x", root).code(), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(RenameModule("f", "nowhere", "x", root).code(), absl::StatusCode::kNotFound);
}

TEST(ForwardStep, IsAChildOrAKnownFunctionWithItsArguments) {
  ModuleTree net = Net();
  Put(net, "relu", "ReLU()");
  Put(net, "odd name(1", "ReLU()");
  const auto parse = [&](const std::string& text) {
    auto step = ParseStep("forward[0]", text, net);
    EXPECT_TRUE(step.ok()) << step.status();
    return step.ok() ? *step : ForwardStep();
  };
  EXPECT_EQ(parse("features").child, "features");
  // A child hides the function of its name.
  EXPECT_EQ(parse("relu").child, "relu");
  EXPECT_EQ(parse("relu()").function, "relu");
  EXPECT_EQ(parse("odd name(1").child, "odd name(1");
  EXPECT_EQ(parse("add(odd name(1)").operand, "odd name(1");
  EXPECT_EQ(parse("add").operand, "");
  EXPECT_EQ(parse("mul()").function, "mul");
  const ForwardStep flatten = parse("flatten(1, -1)");
  ASSERT_EQ(flatten.arguments.size(), 2u);
  EXPECT_EQ(AsInt(flatten.arguments[1]), -1);
  EXPECT_EQ(AsNumber(parse("leaky_relu(0.2)").arguments[0]), 0.2);
}

TEST(ForwardStep, RefusesWhatItCannotRun) {
  const ModuleTree net = Net();
  for (const char* text :
       {"", "nothing", "relu(1)", "flatten(1, 2, 3)", "flatten(1", "flatten(x)",
        "flatten(start_dim=1)", "flatten(1.5)", "softmax", "add(nowhere)", "add(features",
        "leaky_relu(inf)", "eval(1)", "features.0", "flatten(Linear(1, 1))"}) {
    const auto step = ParseStep("forward[0]", text, net);
    EXPECT_EQ(step.status().code(), absl::StatusCode::kInvalidArgument) << text;
    EXPECT_THAT(std::string(step.status().message()), HasSubstr("forward[0]")) << text;
  }
}

TEST(ForwardSteps, AreImpliedOnlyForASequential) {
  EXPECT_THAT(ForwardSteps(Parsed("Sequential(ReLU(), Tanh())")), ElementsAre("0", "1"));
  EXPECT_THAT(ForwardSteps(Parsed("ModuleList([ReLU()])")), IsEmpty());
  ModuleTree reversed = Parsed("Sequential(ReLU(), Tanh())");
  reversed.add_forward("1");
  EXPECT_THAT(ForwardSteps(reversed), ElementsAre("1"));
}

absl::Status Validate(const ModuleTree& root) {
  v1::Architecture architecture;
  *architecture.mutable_root() = root;
  return ValidateArchitecture("architecture", architecture);
}

TEST(ValidateArchitecture, NamesThePlaceOfWhatItRefuses) {
  EXPECT_TRUE(Validate(Net()).ok());
  const auto refusal = [](const auto& damage) {
    ModuleTree root = Net();
    damage(root);
    const absl::Status status = Validate(root);
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
    return std::string(status.message());
  };
  EXPECT_THAT(refusal([](ModuleTree& r) { r.clear_type(); }),
              HasSubstr("architecture.root.type"));
  EXPECT_THAT(refusal([](ModuleTree& r) { r.mutable_children(1)->set_name("features"); }),
              HasSubstr("architecture.root.children[1].name"));
  EXPECT_THAT(refusal([](ModuleTree& r) {
                r.mutable_children(1)->mutable_children(2)->set_name("a.b");
              }),
              HasSubstr("architecture.root.children[1].children[2].name"));
  EXPECT_THAT(refusal([](ModuleTree& r) { r.set_forward(1, "explode"); }),
              HasSubstr("architecture.root.forward[1]"));
  EXPECT_EQ(ValidateArchitecture("a", v1::Architecture()).code(),
            absl::StatusCode::kInvalidArgument);
}

TEST(ValidateArchitecture, BoundsDepthAndNumber) {
  ModuleTree chain;
  ModuleTree* at = &chain;
  for (int level = 1; level < kMaxModuleDepth; ++level) {
    at->set_type("Sequential");
    at = at->add_children();
    at->set_name("0");
  }
  at->set_type("ReLU");
  EXPECT_TRUE(Validate(chain).ok());
  std::string deepest = "0";
  for (int level = 2; level < kMaxModuleDepth; ++level) deepest += ".0";
  ASSERT_EQ(TypeAt(chain, deepest), "ReLU");
  EXPECT_THAT(std::string(AddModule("f", deepest + ".0", Parsed("ReLU()"), false, chain)
                              .status()
                              .message()),
              HasSubstr("levels deep"));
  at->add_children()->set_type("ReLU");
  at->mutable_children(0)->set_name("0");
  EXPECT_FALSE(Validate(chain).ok());

  ModuleTree wide;
  wide.set_type("ModuleList");
  for (int64_t i = 0; i < kMaxModules; ++i) {
    wide.add_children()->set_type("ReLU");
    wide.mutable_children(static_cast<int>(i))->set_name(absl::StrCat(i));
  }
  EXPECT_THAT(std::string(Validate(wide).message()),
              HasSubstr("more than 65536 modules"));
  wide.mutable_children()->RemoveLast();
  EXPECT_TRUE(Validate(wide).ok());
  EXPECT_FALSE(AddModule("f", "one_more", Parsed("ReLU()"), false, wide).ok());
  // In the place of another there is room.
  EXPECT_TRUE(ReplaceModule("f", "5", Parsed("Tanh()"), wide).ok());
  EXPECT_FALSE(ReplaceModule("f", "5", Parsed("Sequential(ReLU())"), wide).ok());
}

}  // namespace
}  // namespace modelstore
