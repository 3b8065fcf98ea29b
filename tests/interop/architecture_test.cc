// Modules as text and tensors, held against PyTorch itself: what print() shows and
// what state_dict() holds, for every type that the table knows.
#include "proto/contract/architecture/architecture.h"

#include <gtest/gtest.h>

#include <set>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "proto/contract/architecture/tensors.h"
#include "proto/contract/architecture/text.h"
#include "tests/interop/python.h"

namespace modelstore {
namespace {

// One module as Python sees it.
struct Case {
  std::string text, repr;
  // `weight [2, 3] float32 buffer`, in order.
  std::vector<std::string> state;
  // `path: version` of each module, in order.
  std::vector<std::string> versions;
};

std::string StateText(const std::string& key, const std::vector<int64_t>& shape,
                      const std::string& dtype, bool buffer) {
  std::string text = key;
  for (const int64_t size : shape) absl::StrAppend(&text, " ", size);
  return absl::StrCat(text, " ", dtype, buffer ? " buffer" : "");
}

std::vector<Case> Cases(const std::string& script) {
  std::vector<Case> cases;
  for (const auto& object : RunPython(script)) {
    Case c{object.fields().at("text").string_value(),
           object.fields().at("repr").string_value(),
           {},
           {}};
    for (const auto& entry : object.fields().at("versions").list_value().values()) {
      const auto& parts = entry.list_value().values();
      c.versions.push_back(
          absl::StrCat(parts[0].string_value(), ": ", parts[1].number_value()));
    }
    for (const auto& entry : object.fields().at("state").list_value().values()) {
      const auto& parts = entry.list_value().values();
      std::vector<int64_t> shape;
      for (const auto& size : parts[1].list_value().values()) {
        shape.push_back(static_cast<int64_t>(size.number_value()));
      }
      c.state.push_back(StateText(parts[0].string_value(), shape, parts[2].string_value(),
                                  parts[3].bool_value()));
    }
    cases.push_back(std::move(c));
  }
  return cases;
}

// Python starts in seconds: once for all tests.
const std::vector<Case>& ModuleCases() {
  static const auto* const cases = new std::vector<Case>(Cases("print_modules.py"));
  return *cases;
}

std::vector<std::string> StateOf(const ModuleTree& module) {
  const auto found = TensorsOf(module);
  EXPECT_TRUE(found.ok()) << found.status();
  std::vector<std::string> state;
  if (!found.ok()) return state;
  EXPECT_EQ(found->unknown, std::vector<std::string>());
  for (const TensorSpec& tensor : found->tensors) {
    state.push_back(StateText(tensor.key, tensor.shape,
                              std::string(DTypeName(tensor.dtype)), tensor.buffer));
  }
  return state;
}

void CollectTypes(const ModuleTree& module, std::set<std::string>& types) {
  types.insert(module.type());
  for (const ModuleTree& child : module.children()) CollectTypes(child, types);
}

ModuleTree Parsed(const std::string& text) {
  auto module = ParseModule("module", text);
  EXPECT_TRUE(module.ok()) << text << ": " << module.status();
  return module.ok() ? *module : ModuleTree();
}

ModuleTree& AddParsed(ModuleTree& parent, const std::string& name,
                      const std::string& text) {
  ModuleTree& child = *parent.add_children();
  child = Parsed(text);
  child.set_name(name);
  return child;
}

TEST(PrintedByPython, EveryModuleOfTheTablePrintsAlike) {
  std::set<std::string> types;
  for (const Case& c : ModuleCases()) {
    const ModuleTree module = Parsed(c.text);
    EXPECT_EQ(PrintModule(module), c.repr) << c.text;
    CollectTypes(module, types);
  }
  for (const ModuleType& type : AllModuleTypes()) {
    EXPECT_TRUE(types.contains(type.name)) << type.name << " is not compared";
  }
}

TEST(PrintedByPython, EveryModuleHasTheTensorsOfPythonsStateDict) {
  for (const Case& c : ModuleCases()) {
    EXPECT_EQ(StateOf(Parsed(c.text)), c.state) << c.text;
  }
}

void CollectVersions(const ModuleTree& module, const std::string& path,
                     std::vector<std::string>& versions) {
  versions.push_back(absl::StrCat(path, ": ", ModuleVersion(module.type())));
  for (const ModuleTree& child : module.children()) {
    CollectVersions(child, JoinModulePath(path, child.name()), versions);
  }
}

TEST(PrintedByPython, EveryModuleHasTheVersionsOfPythonsMetadata) {
  for (const Case& c : ModuleCases()) {
    std::vector<std::string> versions;
    CollectVersions(Parsed(c.text), "", versions);
    EXPECT_EQ(versions, c.versions) << c.text;
  }
}

// Arguments that Python leaves out of a leaf's print are lost; those in it are read.
TEST(PrintedByPython, WhatALeafPrintsIsReadBackToTheSamePrint) {
  for (const Case& c : ModuleCases()) {
    if (c.repr.find('\n') != std::string::npos) continue;
    // These print nothing of what they cannot do without.
    const auto again = ParseModule("module", c.repr);
    ASSERT_TRUE(again.ok()) << c.repr << ": " << again.status();
    EXPECT_EQ(PrintModule(*again), c.repr);
  }
}

ModuleTree Vgg16() {
  ModuleTree root;
  root.set_type("VGG");
  ModuleTree& features = AddParsed(root, "features", "Sequential()");
  int in = 3, at = 0;
  for (const int out :
       {64, 64, 0, 128, 128, 0, 256, 256, 256, 0, 512, 512, 512, 0, 512, 512, 512, 0}) {
    if (out == 0) {
      AddParsed(features, absl::StrCat(at++), "MaxPool2d(2, 2)");
      continue;
    }
    AddParsed(features, absl::StrCat(at++),
              absl::StrCat("Conv2d(", in, ", ", out, ", 3, padding=1)"));
    AddParsed(features, absl::StrCat(at++), "ReLU(True)");
    in = out;
  }
  AddParsed(root, "avgpool", "AdaptiveAvgPool2d((7, 7))");
  AddParsed(root, "classifier",
            "Sequential(Linear(25088, 4096), ReLU(True), Dropout(0.5), "
            "Linear(4096, 4096), ReLU(True), Dropout(0.5), Linear(4096, 1000))");
  return root;
}

ModuleTree BasicBlock(int in, int out) {
  ModuleTree block;
  block.set_type("BasicBlock");
  const std::string norm = absl::StrCat("BatchNorm2d(", out, ")");
  const int stride = in == out ? 1 : 2;
  AddParsed(block, "conv1",
            absl::StrCat("Conv2d(", in, ",", out, ", 3, ", stride, ", 1, bias=False)"));
  AddParsed(block, "bn1", norm);
  AddParsed(block, "relu", "ReLU(inplace=True)");
  AddParsed(block, "conv2",
            absl::StrCat("Conv2d(", out, ",", out, ", 3, padding=1, bias=False)"));
  AddParsed(block, "bn2", norm);
  if (in != out) {
    AddParsed(block, "downsample",
              absl::StrCat("Sequential(Conv2d(", in, ", ", out,
                           ", 1, stride=2, bias=False), ", norm, ")"));
  }
  return block;
}

ModuleTree ResNet18() {
  ModuleTree root;
  root.set_type("ResNet");
  AddParsed(root, "conv1", "Conv2d(3, 64, 7, stride=2, padding=3, bias=False)");
  AddParsed(root, "bn1", "BatchNorm2d(64)");
  AddParsed(root, "relu", "ReLU(inplace=True)");
  AddParsed(root, "maxpool", "MaxPool2d(3, 2, padding=1)");
  int in = 64;
  for (int layer = 1; layer <= 4; ++layer) {
    ModuleTree& blocks = AddParsed(root, absl::StrCat("layer", layer), "Sequential()");
    const int out = 64 << (layer - 1);
    for (int i = 0; i < 2; ++i, in = out) {
      *blocks.add_children() = BasicBlock(in, out);
      blocks.mutable_children(i)->set_name(absl::StrCat(i));
    }
  }
  AddParsed(root, "avgpool", "AdaptiveAvgPool2d((1, 1))");
  AddParsed(root, "fc", "Linear(512, 1000)");
  return root;
}

TEST(PrintedByPython, TorchvisionsVgg16AndResNet18PrintAlikeAndFitTheirStateDicts) {
  const std::vector<Case> models = Cases("print_modules.py --models");
  ASSERT_EQ(models.size(), 2u);
  for (size_t i = 0; i < models.size(); ++i) {
    v1::Architecture architecture;
    *architecture.mutable_root() = i == 0 ? Vgg16() : ResNet18();
    EXPECT_EQ(PrintModule(architecture.root()), models[i].repr);
    const auto tensors = TensorsOf(architecture.root());
    ASSERT_TRUE(tensors.ok()) << tensors.status();
    std::vector<std::string> state;
    for (const TensorSpec& t : tensors->tensors) {
      state.push_back(
          StateText(t.key, t.shape, std::string(DTypeName(t.dtype)), t.buffer));
    }
    EXPECT_EQ(state, models[i].state);
  }
}

}  // namespace
}  // namespace modelstore
