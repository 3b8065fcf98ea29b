#include "proto/contract/architecture/text.h"

#include <optional>
#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "proto/contract/architecture/architecture.h"
#include "proto/contract/architecture/children.h"
#include "proto/contract/architecture/parse.h"
#include "proto/contract/architecture/value.h"
#include "proto/contract/errors.h"
#include "proto/contract/utf8.h"

namespace modelstore {
namespace {

const ArgumentSpec* FindSpec(const ModuleType& type, absl::string_view name) {
  for (const ArgumentSpec& spec : type.arguments) {
    if (name == spec.name) return &spec;
  }
  return nullptr;
}

// Whether the argument has its default value.
bool IsFallback(const ModuleType& type, absl::string_view name, const v1::Value& value) {
  const ArgumentSpec* spec = FindSpec(type, name);
  if (spec == nullptr || spec->fallback == nullptr) return false;
  v1::Value fallback =
      ScalarFromText(spec->fallback).value_or(StringValue(spec->fallback));
  const std::optional<std::vector<int64_t>> sizes = AsInts(value);
  if (sizes && AsInt(fallback)) {
    fallback = TupleValue(std::vector<int64_t>(sizes->size(), *AsInt(fallback)));
  }
  return SameValue(value, fallback);
}

// Expands the extra_repr() template of a known type; see ModuleType::repr.
class ReprFiller {
 public:
  ReprFiller(const ModuleType& type, const ModuleTree& module)
      : type_(type), module_(module) {}

  std::string Fill() {
    std::string out;
    absl::string_view rest = type_.repr;
    while (!rest.empty()) {
      if (rest[0] != '[') {
        const size_t end = std::min(rest.find('['), rest.size());
        out += Text(rest.substr(0, end));
        rest.remove_prefix(end);
        continue;
      }
      const size_t close = rest.find(']');
      const absl::string_view part = rest.substr(1, close - 1);
      const size_t brace = part.find('{');
      const absl::string_view name = part.substr(brace + 1, part.find('}') - brace - 1);
      const v1::Value* value = FindArgument(module_, name);
      if (value != nullptr && !IsFallback(type_, name, *value)) out += Text(part);
      rest.remove_prefix(close + 1);
    }
    return out;
  }

 private:
  std::string Text(absl::string_view part) const {
    std::string out;
    while (true) {
      const size_t brace = part.find('{');
      if (brace == absl::string_view::npos) return absl::StrCat(out, part);
      const size_t close = part.find('}');
      absl::string_view name = part.substr(brace + 1, close - brace - 1);
      const bool quoted = absl::EndsWith(name, "!r");
      if (quoted) name.remove_suffix(2);
      const v1::Value* value = FindArgument(module_, name);
      absl::StrAppend(&out, part.substr(0, brace),
                      value == nullptr ? "?"
                      : quoted         ? PrintValue(*value)
                                       : FormatValue(*value));
      part.remove_prefix(close + 1);
    }
  }

  const ModuleType& type_;
  const ModuleTree& module_;
};

std::string ExtraRepr(const ModuleTree& module) {
  const ModuleType* type = FindModuleType(module.type());
  // A known type without any arguments prints none; Python always has them.
  if (type != nullptr && (!module.incomplete() || module.arguments_size() > 0)) {
    return ReprFiller(*type, module).Fill();
  }
  std::string out;
  for (const auto& argument : module.arguments()) {
    absl::StrAppend(&out, out.empty() ? "" : ", ", argument.name(),
                    argument.name().empty() ? "" : "=", PrintValue(argument.value()));
  }
  return out;
}

void Print(const ModuleTree& module, int depth, std::string& out) {
  absl::StrAppend(&out, module.type(), "(");
  const std::string extra = ExtraRepr(module);
  if (module.children().empty() || depth > kMaxModuleDepth) {
    absl::StrAppend(&out, extra, ")");
    return;
  }
  const std::string indent(static_cast<size_t>(2 * depth), ' ');
  if (!extra.empty()) absl::StrAppend(&out, "\n", indent, extra);
  for (const ModuleTree& child : module.children()) {
    absl::StrAppend(&out, "\n", indent, "(", child.name(), "): ");
    Print(child, depth + 1, out);
  }
  absl::StrAppend(&out, "\n", indent.substr(2), ")");
}

// Makes modules from calls. Counts them, as a short text may create many.
class ModuleBuilder {
 public:
  ModuleBuilder(absl::string_view field, UnknownTypes unknown)
      : field_(field), unknown_(unknown) {}

  absl::StatusOr<ModuleTree> Build(const CallText& call) {
    if (call.name == "Sequential") return Container(call, call.arguments);
    if (call.name == "ModuleList" || call.name == "ModuleDict") return Group(call);
    if (call.name == "TransformerEncoder" || call.name == "TransformerDecoder") {
      return Counted(Coder(call));
    }
    NamedValues given;
    for (const ArgumentText& argument : call.arguments) {
      if (argument.kind != ArgumentText::Kind::kValue) {
        return Refuse(call, "takes no module as an argument");
      }
      given.emplace_back(argument.name, argument.value);
    }
    if (FindModuleType(call.name) == nullptr && unknown_ == UnknownTypes::kKeep) {
      return Counted(Unknown(call, given));
    }
    return Counted(MakeModule(field_, call.name, given));
  }

 private:
  absl::Status Refuse(const CallText& call, absl::string_view what) const {
    return InvalidField(field_, absl::StrCat(call.name, " ", what));
  }

  absl::StatusOr<ModuleTree> Counted(absl::StatusOr<ModuleTree> module) {
    if (!module.ok()) return module;
    made_ += CountModules(*module);
    if (made_ <= kMaxModules) return module;
    return InvalidField(field_, absl::StrCat("more than ", kMaxModules, " modules"));
  }

  static ModuleTree Unknown(const CallText& call, const NamedValues& given) {
    ModuleTree module;
    module.set_type(call.name);
    module.set_training(true);
    for (const auto& [name, value] : given) {
      auto* argument = module.add_arguments();
      argument->set_name(name);
      *argument->mutable_value() = value;
    }
    return module;
  }

  // Children given as positional arguments, as for Sequential.
  absl::StatusOr<ModuleTree> Container(const CallText& call,
                                       const std::vector<ArgumentText>& arguments) {
    absl::StatusOr<ModuleTree> module = Counted(MakeModule(field_, call.name, {}));
    if (!module.ok()) return module;
    for (const ArgumentText& argument : arguments) {
      if (argument.kind != ArgumentText::Kind::kCall || !argument.name.empty()) {
        return Refuse(call, "takes modules as arguments, without names");
      }
      if (auto s = AddChild(*module, "", argument.calls[0].call); !s.ok()) return s;
    }
    return module;
  }

  // Children given as one list or dict of modules.
  absl::StatusOr<ModuleTree> Group(const CallText& call) {
    absl::StatusOr<ModuleTree> module = Counted(MakeModule(field_, call.name, {}));
    if (!module.ok() || call.arguments.empty()) return module;
    const ArgumentText& group = call.arguments[0];
    const bool list = call.name == "ModuleList";
    const bool empty_list = list && AsInts(group.value) && AsInts(group.value)->empty();
    const bool fits = group.kind == ArgumentText::Kind::kCallList &&
                      (group.calls.empty() || group.calls[0].key.empty() == list);
    if (call.arguments.size() > 1 || !(fits || empty_list)) {
      return Refuse(call, list ? "takes a list of modules, in brackets"
                               : "takes a dict of modules, in braces");
    }
    for (const auto& [name, child] : group.calls) {
      if (auto s = AddChild(*module, name, child); !s.ok()) return s;
    }
    return module;
  }

  absl::Status AddChild(ModuleTree& module, const std::string& given_name,
                        const CallText& call) {
    const bool in_dict = module.type() == "ModuleDict";
    absl::StatusOr<ModuleTree> child = Build(call);
    if (!child.ok()) return child.status();
    const std::string name = in_dict ? given_name : absl::StrCat(module.children_size());
    if (auto s = ValidateModuleName(field_, name); !s.ok()) return s;
    if (in_dict && FindModule(module, name) != nullptr) {
      return InvalidField(field_, absl::StrCat("`", name, "` is given twice"));
    }
    child->set_name(name);
    *module.add_children() = *std::move(child);
    return absl::OkStatus();
  }

  // TransformerEncoder(layer, num_layers, norm=None), and TransformerDecoder.
  absl::StatusOr<ModuleTree> Coder(const CallText& call) {
    const char* names[] = {
        call.name == "TransformerEncoder" ? "encoder_layer" : "decoder_layer",
        "num_layers", "norm"};
    const ArgumentText* slots[3] = {};
    for (size_t i = 0; i < call.arguments.size(); ++i) {
      const ArgumentText& argument = call.arguments[i];
      size_t slot = i;
      if (!argument.name.empty()) {
        for (slot = 0; slot < 3 && argument.name != names[slot];) ++slot;
      }
      if (slot >= 3 || slots[slot] != nullptr) {
        return Refuse(call, "takes a layer, num_layers and norm, each once");
      }
      slots[slot] = &argument;
    }
    const auto is_call = [](const ArgumentText* argument) {
      return argument != nullptr && argument->kind == ArgumentText::Kind::kCall;
    };
    if (!is_call(slots[0]) || slots[1] == nullptr ||
        slots[1]->kind != ArgumentText::Kind::kValue) {
      return Refuse(call,
                    "needs a layer, such as TransformerEncoderLayer(512, 8), and "
                    "num_layers");
    }
    if (slots[2] != nullptr && !is_call(slots[2]) && !IsNone(slots[2]->value)) {
      return Refuse(call, "takes a module or None as norm");
    }
    auto module = MakeModule(field_, call.name, {{"num_layers", slots[1]->value}});
    if (!module.ok()) return module;
    const absl::StatusOr<ModuleTree> layer = Build(slots[0]->calls[0].call);
    if (!layer.ok()) return layer;
    std::optional<ModuleTree> norm;
    if (is_call(slots[2])) {
      absl::StatusOr<ModuleTree> made = Build(slots[2]->calls[0].call);
      if (!made.ok()) return made;
      norm = *std::move(made);
    }
    if (auto s = AddLayers(field_, *layer, norm, *module); !s.ok()) return s;
    return module;
  }

  const absl::string_view field_;
  const UnknownTypes unknown_;
  int64_t made_ = 0;
};

}  // namespace

std::string PrintModule(const ModuleTree& module) {
  std::string out;
  Print(module, 1, out);
  return out;
}

absl::StatusOr<ModuleTree> ParseModule(absl::string_view field, absl::string_view text,
                                       UnknownTypes unknown) {
  const absl::StatusOr<CallText> call = ParseCall(field, text);
  if (!call.ok()) return call.status();
  return ModuleBuilder(field, unknown).Build(*call);
}

}  // namespace modelstore
