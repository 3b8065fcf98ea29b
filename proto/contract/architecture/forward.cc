#include <cmath>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "proto/contract/architecture/architecture.h"
#include "proto/contract/architecture/parse.h"
#include "proto/contract/architecture/value.h"
#include "proto/contract/errors.h"
#include "proto/contract/utf8.h"

namespace modelstore {
namespace {

// `view` and `mean` take up to one number per dimension.
constexpr int kMaxDims = 64;

constexpr ForwardFunction kFunctions[] = {
    {"relu", 0, 0},        {"relu6", 0, 0},
    {"gelu", 0, 0},        {"elu", 0, 1},
    {"silu", 0, 0},        {"selu", 0, 0},
    {"mish", 0, 0},        {"leaky_relu", 0, 1},
    {"hardswish", 0, 0},   {"sigmoid", 0, 0},
    {"logsigmoid", 0, 0},  {"tanh", 0, 0},
    {"softplus", 0, 0},    {"softmax", 1, 1},
    {"log_softmax", 1, 1}, {"dropout", 0, 1},
    {"flatten", 0, 2},     {"view", 1, kMaxDims},
    {"squeeze", 1, 1},     {"unsqueeze", 1, 1},
    {"transpose", 2, 2},   {"select", 2, 2},
    {"mean", 1, kMaxDims}, {"max_pool2d", 1, 3},
    {"avg_pool2d", 1, 3},  {"adaptive_avg_pool2d", 1, 2},
    {"add", 0, 0},         {"mul", 0, 0},
};

bool TakesFloat(absl::string_view function) {
  return function == "elu" || function == "leaky_relu" || function == "dropout";
}

bool TakesOperand(absl::string_view function) {
  return function == "add" || function == "mul";
}

const ForwardFunction* FindFunction(absl::string_view name) {
  for (const ForwardFunction& function : kFunctions) {
    if (name == function.name) return &function;
  }
  return nullptr;
}

absl::Status CheckCall(absl::string_view field, const ForwardFunction& function,
                       const CallText& call, ForwardStep& step) {
  const int given = static_cast<int>(call.arguments.size());
  if (given < function.min_arguments || given > function.max_arguments) {
    return InvalidField(
        field, absl::StrCat(function.name, " takes ", function.min_arguments, " to ",
                            function.max_arguments, " arguments"));
  }
  for (const ArgumentText& argument : call.arguments) {
    const bool fits = argument.name.empty() &&
                      argument.kind == ArgumentText::Kind::kValue &&
                      (AsInt(argument.value) ||
                       (TakesFloat(function.name) && AsNumber(argument.value) &&
                        std::isfinite(*AsNumber(argument.value))));
    if (!fits) {
      return InvalidField(field,
                          absl::StrCat(function.name, " takes ",
                                       TakesFloat(function.name) ? "numbers" : "integers",
                                       " without names"));
    }
    step.arguments.push_back(argument.value);
  }
  return absl::OkStatus();
}

}  // namespace

absl::Span<const ForwardFunction> ForwardFunctions() { return kFunctions; }

StepParser::StepParser(const ModuleTree& module) {
  for (const ModuleTree& child : module.children()) children_.insert(child.name());
}

// Extracts `downsample` from `add(downsample)`. Not parsed, as a name may contain any
// characters.
absl::StatusOr<ForwardStep> StepParser::WithOperand(absl::string_view field,
                                                    absl::string_view text,
                                                    absl::string_view function) const {
  text.remove_prefix(function.size() + 1);
  text.remove_suffix(1);
  ForwardStep step;
  step.function = std::string(function);
  step.operand = std::string(text);
  if (text.empty() || children_.contains(text)) return step;
  return InvalidField(field,
                      absl::StrCat(function, ": no child `", ToUtf8(text, 64), "`"));
}

absl::StatusOr<ForwardStep> StepParser::Parse(absl::string_view field,
                                              absl::string_view text) const {
  ForwardStep step;
  if (children_.contains(text)) {
    step.child = std::string(text);
    return step;
  }
  const absl::string_view word = text.substr(0, text.find('('));
  const ForwardFunction* function = FindFunction(word);
  if (function == nullptr) {
    return InvalidField(field, absl::StrCat("`", ToUtf8(text, 64),
                                            "` is neither a child nor a known function"));
  }
  if (TakesOperand(word) && word.size() + 1 < text.size() && absl::EndsWith(text, ")")) {
    return WithOperand(field, text, word);
  }
  const absl::StatusOr<CallText> call = ParseCall(field, text, /*bare=*/true);
  if (!call.ok()) return call.status();
  step.function = call->name;
  if (auto s = CheckCall(field, *function, *call, step); !s.ok()) return s;
  return step;
}

absl::StatusOr<ForwardStep> ParseStep(absl::string_view field, absl::string_view text,
                                      const ModuleTree& module) {
  return StepParser(module).Parse(field, text);
}

}  // namespace modelstore
