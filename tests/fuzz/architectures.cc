// Module strings, forward steps and stored architectures: each is either refused, or
// is a module that prints, has tensors and can be edited.
#include "proto/contract/architecture/architecture.h"
#include "proto/contract/architecture/tensors.h"
#include "proto/contract/architecture/text.h"
#include "proto/contract/utf8.h"
#include "tests/fuzz/targets.h"

namespace modelstore::fuzz {
namespace {

std::vector<std::string> ModuleTexts() {
  return {"Linear(in_features=4096, out_features=10, bias=True)",
          "nn.Conv2d(3, 64, kernel_size=(3, 3), stride=2, padding='same', dilation=1)",
          "Sequential(Linear(10, 10), ReLU(inplace=True), Sequential())",
          "ModuleList([Tanh(), LSTM(3, 5, 2, dropout=0.5)])",
          "ModuleDict({'a': ReLU(), \"b\": Dropout(1e-05)})",
          "TransformerEncoder(TransformerEncoderLayer(8, 2), 3, norm=LayerNorm((8,)))",
          "Transformer(8, 2, 1, 1)",
          "Upsample(scale_factor=(2.0, 3), mode=bilinear, align_corners=None)",
          "AdaptiveAvgPool2d((None, 7))",
          "Hardtanh(-inf, +1.5e-3)",
          "Identity(1, a=[1, 2, 'x'])",
          ""};
}

bool RunModuleText(absl::string_view input) {
  // Types that are not known are kept for one half of the inputs.
  const auto unknown =
      input.size() % 2 == 0 ? UnknownTypes::kRefuse : UnknownTypes::kKeep;
  const auto module = ParseModule("field", input, unknown);
  if (!module.ok()) {
    RequireRefusal(module.status(), "field: ");
    return false;
  }
  FUZZ_REQUIRE(IsUtf8(PrintModule(*module)));
  FUZZ_REQUIRE(CountModules(*module) <= kMaxModules);
  v1::Architecture architecture;
  *architecture.mutable_root() = *module;
  FUZZ_REQUIRE(ValidateArchitecture("a", architecture).ok());
  const auto tensors = TensorsOf(*module);
  if (!tensors.ok()) return true;
  KeysAndShapes state;
  for (const TensorSpec& t : tensors->tensors) state.emplace_back(t.key, t.shape);
  const auto inconsistencies = FindInconsistencies(architecture, state);
  FUZZ_REQUIRE(inconsistencies.ok() && inconsistencies->empty());
  return true;
}

std::vector<std::string> Architectures() {
  std::vector<std::string> seeds;
  for (const std::string& text : ModuleTexts()) {
    const auto module = ParseModule("field", text, UnknownTypes::kKeep);
    v1::Architecture architecture;
    if (module.ok()) *architecture.mutable_root() = *module;
    architecture.mutable_root()->add_forward(std::string("0"));
    seeds.push_back(architecture.SerializeAsString());
  }
  return seeds;
}

bool RunArchitecture(absl::string_view input) {
  v1::Architecture architecture;
  if (!architecture.ParseFromArray(input.data(), static_cast<int>(input.size()))) {
    return false;
  }
  const absl::Status status = ValidateArchitecture("field", architecture);
  ModuleTree& root = *architecture.mutable_root();
  // A stored architecture may be any: printing and comparing bring nothing down.
  PrintModule(root);
  FindInconsistencies(architecture, {{"weight", {1}}}).IgnoreError();
  ForwardSteps(root);
  if (!status.ok()) {
    FUZZ_REQUIRE(status.code() == absl::StatusCode::kInvalidArgument);
    return false;
  }
  // A valid one stays valid under every edit that is accepted.
  const auto module = ParseModule("m", "Linear(2, 3)");
  AddModule("f", "fuzz", *module, true, root).IgnoreError();
  if (root.children_size() > 1) {
    const std::string first = root.children(0).name();
    ReplaceModule("f", first, *module, root).IgnoreError();
    RenameModule("f", first, "renamed", root).IgnoreError();
    RemoveModule("f", root.children(1).name(), root).IgnoreError();
  }
  FUZZ_REQUIRE(ValidateArchitecture("field", architecture).ok());
  return true;
}

std::vector<std::string> ForwardTexts() {
  return {"classifier",    "flatten(1)", "add(downsample)", "relu()", "mul",
          "view(-1, 512)", "flatten(1,", "dropout(0.5)",    ""};
}

bool RunForwardStep(absl::string_view input) {
  ModuleTree module;
  for (const char* name : {"classifier", "downsample", "0"}) {
    module.add_children()->set_name(name);
  }
  const auto step = ParseStep("field", input, module);
  if (!step.ok()) {
    RequireRefusal(step.status(), "field: ");
    return false;
  }
  FUZZ_REQUIRE(step->child.empty() != step->function.empty());
  return true;
}

}  // namespace

std::vector<Target> ArchitectureTargets() {
  return {{"architecture", Architectures, RunArchitecture},
          {"forward_step", ForwardTexts, RunForwardStep},
          {"module_text", ModuleTexts, RunModuleText}};
}

}  // namespace modelstore::fuzz
