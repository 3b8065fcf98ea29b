// Value::ToString(): values in the style of Python's repr().
#include <charconv>
#include <cmath>

#include "modelstore/value.h"

namespace modelstore {
namespace {

// Quotes text as Python does. With prefix `b` bytes above 0x7e are escaped too; otherwise
// they are UTF-8 and are copied.
std::string Quoted(std::string_view text, std::string_view prefix = "") {
  std::string out(prefix);
  out += '\'';
  for (const unsigned char c : text) {
    if (c == '\'' || c == '\\') {
      out += '\\';
      out += static_cast<char>(c);
    } else if (c == '\n') {
      out += "\\n";
    } else if (c < 0x20 || (c >= 0x7f && !prefix.empty())) {
      constexpr char kHex[] = "0123456789abcdef";
      out += "\\x";
      out += kHex[c >> 4];
      out += kHex[c & 15];
    } else {
      out += static_cast<char>(c);
    }
  }
  return out + '\'';
}

// Returns the shortest text that parses to the same number, with a decimal point or
// exponent.
std::string DoubleText(double v) {
  if (std::isnan(v)) return "nan";
  if (std::isinf(v)) return v < 0 ? "-inf" : "inf";
  char buffer[32];
  const auto end = std::to_chars(buffer, buffer + sizeof(buffer), v).ptr;
  std::string text(buffer, end);
  if (text.find_first_of(".e") == std::string::npos) text += ".0";
  return text;
}

template <typename Items, typename Print>
std::string Joined(const Items& items, Print print) {
  std::string out;
  for (const auto& item : items) {
    if (!out.empty()) out += ", ";
    out += print(item);
  }
  return out;
}

std::string ElementsText(const std::vector<Value>& values) {
  return Joined(values, [](const Value& v) { return v.ToString(); });
}

// Returns `{'a': 1}`.
std::string EntriesText(const Value::Entries& entries) {
  return "{" +
         Joined(entries,
                [](const auto& entry) {
                  return entry.first.ToString() + ": " + entry.second.ToString();
                }) +
         "}";
}

// Returns `a=1, b=2`, each name preceded by `before`.
std::string NamedText(const Value::Entries& entries, std::string_view before) {
  return Joined(entries, [&](const auto& entry) {
    return std::string(before) + entry.first.AsString().value_or(entry.first.ToString()) +
           "=" + entry.second.ToString();
  });
}

// Returns the qualified name; Python omits the module `builtins`.
std::string GlobalText(const Value::Global& global) {
  if (global.module == "builtins") return global.qualified_name;
  return global.module + "." + global.qualified_name;
}

std::string DictText(const Value::DictEntries& dict) {
  if (!dict.ordered) return EntriesText(dict.entries);
  std::string out = "OrderedDict([";
  out += Joined(dict.entries, [](const auto& entry) {
    return "(" + entry.first.ToString() + ", " + entry.second.ToString() + ")";
  });
  out += "]";
  if (!dict.attributes.empty()) out += ", " + NamedText(dict.attributes, ".");
  return out + ")";
}

std::string ObjectText(const Value::Object& object) {
  std::vector<std::string> parts;
  parts.push_back(ElementsText(object.args));
  parts.push_back(NamedText(object.keywords, ""));
  parts.push_back(NamedText(object.attributes, "."));
  if (!object.state.empty()) parts.push_back("state=" + ElementsText(object.state));
  if (!object.items.empty()) parts.push_back("[" + ElementsText(object.items) + "]");
  if (!object.entries.empty()) parts.push_back(EntriesText(object.entries));
  std::erase(parts, "");
  return GlobalText(object.type) + "(" +
         Joined(parts, [](const std::string& part) { return part; }) + ")";
}

std::string SequenceText(const Value::Sequence& sequence) {
  const std::string inner = ElementsText(sequence.values);
  switch (sequence.kind) {
    case Value::Sequence::Kind::kTuple:
      return "(" + inner + (sequence.values.size() == 1 ? ",)" : ")");
    case Value::Sequence::Kind::kSet:
      return sequence.values.empty() ? "set()" : "{" + inner + "}";
    case Value::Sequence::Kind::kFrozenSet:
      return sequence.values.empty() ? "frozenset()" : "frozenset({" + inner + "})";
    case Value::Sequence::Kind::kList:
      break;
  }
  return "[" + inner + "]";
}

struct Printer {
  std::string operator()(std::monostate) const { return "None"; }
  std::string operator()(bool v) const { return v ? "True" : "False"; }
  std::string operator()(int64_t v) const { return std::to_string(v); }
  std::string operator()(const Value::BigInt& v) const { return v.decimal; }
  std::string operator()(double v) const { return DoubleText(v); }
  std::string operator()(const Value::Complex& v) const {
    const std::string sign = std::signbit(v.imag) || std::isnan(v.imag) ? "" : "+";
    return "(" + DoubleText(v.real) + sign + DoubleText(v.imag) + "j)";
  }
  std::string operator()(const std::string& v) const { return Quoted(v); }
  std::string operator()(const Value::Bytes& v) const { return Quoted(v.data, "b"); }
  std::string operator()(const Value::Sequence& v) const { return SequenceText(v); }
  std::string operator()(const Value::DictEntries& v) const { return DictText(v); }
  std::string operator()(const Value::Global& v) const { return GlobalText(v); }
  std::string operator()(const Value::Object& v) const { return ObjectText(v); }
  std::string operator()(const Value::DTypeName& v) const { return "torch." + v.name; }
  std::string operator()(const Value::DeviceName& v) const {
    return "device(" + Quoted(v.name) + ")";
  }
  std::string operator()(const Value::Size& v) const {
    return "torch.Size([" +
           Joined(v.sizes, [](int64_t size) { return std::to_string(size); }) + "])";
  }
  std::string operator()(const Value::TensorKey& v) const {
    return "<tensor " + v.key + ">";
  }
};

}  // namespace

std::string Value::ToString() const { return std::visit(Printer{}, v_); }

}  // namespace modelstore
