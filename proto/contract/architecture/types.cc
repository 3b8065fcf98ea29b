#include "proto/contract/architecture/types.h"

#include <optional>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "proto/contract/architecture/children.h"
#include "proto/contract/architecture/value.h"
#include "proto/contract/errors.h"
#include "proto/contract/utf8.h"

namespace modelstore {
namespace {

using enum ArgumentKind;

// Limit for recurrent modules: each layer has up to ten tensors.
constexpr int64_t kMaxLayers = 4096;

bool IsSize(const v1::Value& value) {
  const std::optional<int64_t> i = AsInt(value);
  return i && *i >= 0 && *i <= kMaxArgumentSize;
}

bool IsCount(const v1::Value& value) { return IsSize(value) && *AsInt(value) > 0; }

// A tuple of `length` elements (any number if absent), each a size, or any integer with
// `any_sign`, or None with `none`.
bool IsTupleOf(const v1::Value& value, std::optional<int> length, bool any_sign = false,
               bool none = false) {
  if (value.kind_case() != v1::Value::kTupleValue) return false;
  const auto& elements = value.tuple_value().values();
  if (length && elements.size() != *length) return false;
  for (const v1::Value& element : elements) {
    const bool fits = any_sign ? AsInt(element) && *AsInt(element) >= -kMaxArgumentSize &&
                                     *AsInt(element) <= kMaxArgumentSize
                               : IsSize(element);
    if (!fits && !(none && IsNone(element))) return false;
  }
  return true;
}

// Lists and torch.Size are accepted as tuples, as in PyTorch.
v1::Value AsTuple(const v1::Value& value) {
  if (value.kind_case() == v1::Value::kListValue) {
    v1::Value tuple;
    *tuple.mutable_tuple_value() = value.list_value();
    return tuple;
  }
  if (value.kind_case() == v1::Value::kSizeValue) return TupleValue(*AsInts(value));
  return value;
}

v1::Value Repeated(const v1::Value& value, int count) {
  if (!AsInt(value)) return value;
  return TupleValue(std::vector<int64_t>(static_cast<size_t>(count), *AsInt(value)));
}

bool IsChoice(const ArgumentSpec& spec, const v1::Value& value) {
  if (value.kind_case() != v1::Value::kStringValue || *spec.choices == '\0') return false;
  for (const absl::string_view choice : absl::StrSplit(spec.choices, ' ')) {
    if (value.string_value() == choice) return true;
  }
  return false;
}

std::optional<v1::Value> AsFloat(const v1::Value& value) {
  const std::optional<double> number = AsNumber(value);
  if (!number) return std::nullopt;
  return FloatValue(*number);
}

// A float, or a tuple of floats.
std::optional<v1::Value> AsScale(const v1::Value& value) {
  if (value.kind_case() != v1::Value::kTupleValue) return AsFloat(value);
  v1::Value scale;
  scale.mutable_tuple_value();
  for (const v1::Value& element : value.tuple_value().values()) {
    const std::optional<v1::Value> part = AsFloat(element);
    if (!part) return std::nullopt;
    *scale.mutable_tuple_value()->add_values() = *part;
  }
  return scale;
}

std::optional<v1::Value> KeepIf(bool fits, v1::Value value) {
  if (!fits) return std::nullopt;
  return value;
}

// The stored form of an argument; absent if the value is of another kind.
std::optional<v1::Value> StoredForm(const ModuleType& type, const ArgumentSpec& spec,
                                    const v1::Value& given) {
  const v1::Value value = AsTuple(given);
  if (IsNone(value)) return KeepIf(spec.optional, value);
  const int dims = type.dims;
  switch (spec.kind) {
    case kInt:
      return KeepIf(AsInt(value).has_value(), value);
    case kSize:
      return KeepIf(IsSize(value), value);
    case kCount:
      return KeepIf(IsCount(value), value);
    case kNumber:
      return KeepIf(AsNumber(value).has_value(), value);
    case kFloat:
      return AsFloat(value);
    case kBool:
      return KeepIf(value.kind_case() == v1::Value::kBoolValue, value);
    case kString:
      return KeepIf(IsChoice(spec, value), value);
    case kPadding:
      if (IsChoice(spec, value)) return value;
      [[fallthrough]];
    case kTuple:
      return KeepIf(IsTupleOf(Repeated(value, dims), dims), Repeated(value, dims));
    case kPads:
      return KeepIf(IsTupleOf(Repeated(value, 2 * dims), 2 * dims, /*any_sign=*/true),
                    Repeated(value, 2 * dims));
    case kSizes:
      return KeepIf(IsSize(value) || IsTupleOf(value, dims), value);
    case kOutputSize:
      return KeepIf(IsSize(value) || IsTupleOf(value, dims, false, /*none=*/true), value);
    case kShape:
      return KeepIf(IsTupleOf(Repeated(value, 1), std::nullopt), Repeated(value, 1));
    case kAnySizes:
      return KeepIf(IsSize(value) || IsTupleOf(value, std::nullopt), value);
    case kScale:
      return AsScale(value);
  }
  return std::nullopt;
}

std::string Wanted(const ModuleType& type, const ArgumentSpec& spec) {
  const std::string tuple = type.dims == 1 ? "1 size" : absl::StrCat(type.dims, " sizes");
  switch (spec.kind) {
    case kInt:
      return "an integer";
    case kSize:
      return "an integer from 0 to 2^40";
    case kCount:
      return "an integer from 1 to 2^40";
    case kNumber:
    case kFloat:
      return "a number";
    case kBool:
      return "True or False";
    case kString:
      return absl::StrCat("one of: ", spec.choices);
    case kTuple:
    case kSizes:
    case kOutputSize:
      return absl::StrCat("a size or a tuple of ", tuple);
    case kPadding:
      return absl::StrCat("a size, a tuple of ", tuple, ", or one of: ", spec.choices);
    case kPads:
      return absl::StrCat("an integer or a tuple of ", 2 * type.dims, " integers");
    case kShape:
    case kAnySizes:
      return "a size or a tuple of sizes";
    case kScale:
      return "a number or a tuple of numbers";
  }
  return "";
}

// Assigns positional arguments to names; refuses unknown and repeated ones. The result
// has one entry per argument of the type.
absl::StatusOr<std::vector<const v1::Value*>> ByArgument(absl::string_view field,
                                                         const ModuleType& type,
                                                         const NamedValues& given) {
  std::vector<const v1::Value*> slots(type.arguments.size(), nullptr);
  size_t position = 0;
  for (const auto& [name, value] : given) {
    size_t slot = 0;
    if (name.empty()) {
      slot = position++;
      if (slot >= slots.size()) {
        return InvalidField(field, absl::StrCat(type.name, " takes at most ",
                                                slots.size(), " arguments"));
      }
    } else {
      while (slot < slots.size() && type.arguments[slot].name != name) ++slot;
      if (slot == slots.size()) {
        return InvalidField(
            field, absl::StrCat(type.name, " has no argument `", ToUtf8(name, 64), "`"));
      }
    }
    if (slots[slot] != nullptr) {
      return InvalidField(field, absl::StrCat(type.name, ": `", type.arguments[slot].name,
                                              "` is given twice"));
    }
    slots[slot] = &value;
  }
  return slots;
}

v1::Value Fallback(const ArgumentSpec& spec, const ModuleTree& module) {
  const absl::string_view text = spec.fallback;
  if (text[0] == '=') return *FindArgument(module, text.substr(1));
  return ScalarFromText(text).value_or(StringValue(text));
}

// Checks rules that involve several arguments.
absl::Status CheckCombination(absl::string_view field, const ModuleTree& module) {
  const auto number = [&](const char* name) {
    return AsInt(*FindArgument(module, name)).value_or(0);
  };
  const auto refuse = [&](absl::string_view what) {
    return InvalidField(field, absl::StrCat(module.type(), ": ", what));
  };
  const std::string& type = module.type();
  if (type.starts_with("Conv")) {
    if (number("in_channels") % number("groups") != 0 ||
        number("out_channels") % number("groups") != 0) {
      return refuse("groups must divide in_channels and out_channels");
    }
    if (FindArgument(module, "padding")->string_value() == "same" &&
        !SameValue(*FindArgument(module, "stride"),
                   Repeated(IntValue(1), FindModuleType(type)->dims))) {
      return refuse("padding 'same' needs a stride of 1");
    }
  }
  if (type == "GroupNorm" && number("num_channels") % number("num_groups") != 0) {
    return refuse("num_groups must divide num_channels");
  }
  if (type == "MultiheadAttention" && number("embed_dim") % number("num_heads") != 0) {
    return refuse("num_heads must divide embed_dim");
  }
  if (type.starts_with("Transformer") && FindArgument(module, "nhead") != nullptr &&
      number("d_model") % number("nhead") != 0) {
    return refuse("nhead must divide d_model");
  }
  if (FindArgument(module, "input_size") != nullptr &&
      FindArgument(module, "num_layers") != nullptr &&
      number("num_layers") > kMaxLayers) {
    return refuse(absl::StrCat("more than ", kMaxLayers, " layers"));
  }
  if (type == "LSTM" && number("proj_size") > 0 &&
      number("proj_size") >= number("hidden_size")) {
    return refuse("proj_size must be smaller than hidden_size");
  }
  if (type == "Upsample" && IsNone(*FindArgument(module, "size")) ==
                                IsNone(*FindArgument(module, "scale_factor"))) {
    return refuse("give either size or scale_factor");
  }
  return absl::OkStatus();
}

}  // namespace

absl::Status CompleteArguments(absl::string_view field, const NamedValues& given,
                               ModuleTree& module) {
  const ModuleType* type = FindModuleType(module.type());
  if (type == nullptr) {
    return InvalidField(
        field, absl::StrCat("unknown module type `", ToUtf8(module.type(), 64), "`"));
  }
  module.clear_arguments();
  // Identity takes any arguments and ignores them.
  if (module.type() == "Identity") return absl::OkStatus();
  auto slots = ByArgument(field, *type, given);
  if (!slots.ok()) return slots.status();
  for (size_t i = 0; i < slots->size(); ++i) {
    const ArgumentSpec& spec = type->arguments[i];
    const v1::Value* value = (*slots)[i];
    const bool follows = spec.fallback != nullptr && *spec.fallback == '=';
    if (value != nullptr && follows && IsNone(*value)) value = nullptr;
    if (value == nullptr && spec.fallback == nullptr) {
      return InvalidField(field, absl::StrCat(type->name, " needs `", spec.name, "`"));
    }
    std::optional<v1::Value> stored =
        StoredForm(*type, spec, value ? *value : Fallback(spec, module));
    if (!stored) {
      return InvalidField(field, absl::StrCat(type->name, ": `", spec.name, "` must be ",
                                              Wanted(*type, spec), ", not ",
                                              ToUtf8(PrintValue(*value), 64)));
    }
    auto* argument = module.add_arguments();
    argument->set_name(spec.name);
    *argument->mutable_value() = *std::move(stored);
  }
  return CheckCombination(field, module);
}

namespace {

NamedValues KnownArguments(const ModuleType& type, const ModuleTree& module) {
  NamedValues known;
  for (const auto& argument : module.arguments()) {
    for (const ArgumentSpec& spec : type.arguments) {
      if (argument.name() == spec.name) known.emplace_back(spec.name, argument.value());
    }
  }
  return known;
}

}  // namespace

absl::Status CheckComplete(absl::string_view field, const ModuleTree& module) {
  const ModuleType* type = FindModuleType(module.type());
  if (type == nullptr) {
    return InvalidField(
        field, absl::StrCat("unknown module type `", ToUtf8(module.type(), 64), "`"));
  }
  if (module.incomplete()) return InvalidField(field, "is marked incomplete");
  ModuleTree complete;
  complete.set_type(module.type());
  return CompleteArguments(field, KnownArguments(*type, module), complete);
}

absl::Status CheckArguments(absl::string_view field, const ModuleTree& module) {
  const ModuleType* type = FindModuleType(module.type());
  if (type == nullptr || module.incomplete()) return absl::OkStatus();
  const NamedValues known = KnownArguments(*type, module);
  bool lacks = false;
  for (const ArgumentSpec& spec : type->arguments) {
    int times = 0;
    for (const auto& [name, value] : known) {
      if (name != spec.name) continue;
      ++times;
      const bool follows = spec.fallback != nullptr && *spec.fallback == '=';
      if ((follows && IsNone(value)) || StoredForm(*type, spec, value)) continue;
      return InvalidField(field, absl::StrCat(type->name, ": `", spec.name, "` must be ",
                                              Wanted(*type, spec), ", not ",
                                              ToUtf8(PrintValue(value), 64)));
    }
    lacks = lacks || (times == 0 && spec.fallback == nullptr);
  }
  if (lacks) return absl::OkStatus();
  ModuleTree complete;
  complete.set_type(module.type());
  return CompleteArguments(field, known, complete);
}

void MarkIncomplete(ModuleTree& root) {
  if (FindModuleType(root.type()) != nullptr && !CheckComplete("", root).ok()) {
    root.set_incomplete(true);
  }
  for (ModuleTree& child : *root.mutable_children()) MarkIncomplete(child);
}

int ModuleVersion(absl::string_view type) {
  // Since version 2 they have num_batches_tracked.
  return absl::StartsWith(type, "BatchNorm") || absl::StartsWith(type, "InstanceNorm") ||
                 type == "SyncBatchNorm"
             ? 2
             : 1;
}

absl::StatusOr<ModuleTree> MakeModule(absl::string_view field, absl::string_view type,
                                      const NamedValues& given) {
  ModuleTree module;
  module.set_type(std::string(type));
  module.set_training(true);
  if (auto s = CompleteArguments(field, given, module); !s.ok()) return s;
  if (auto s = AddOwnChildren(field, module); !s.ok()) return s;
  return module;
}

const v1::Value* FindArgument(const ModuleTree& module, absl::string_view name) {
  for (const auto& argument : module.arguments()) {
    if (argument.name() == name) return &argument.value();
  }
  return nullptr;
}

bool FlagOf(const ModuleTree& module, absl::string_view name) {
  const v1::Value* value = FindArgument(module, name);
  return value != nullptr && value->bool_value();
}

}  // namespace modelstore
