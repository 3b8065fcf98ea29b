#include "modelstore/value.h"

#include <charconv>
#include <cmath>
#include <cstring>
#include <type_traits>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "proto/contract/utf8.h"

namespace modelstore {
namespace {

bool SameBits(double a, double b) {
  uint64_t x, y;
  std::memcpy(&x, &a, sizeof(x));
  std::memcpy(&y, &b, sizeof(y));
  return a == b || x == y;
}

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

// The shortest text that reads back to the same number, with a point as Python
// prints it.
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

std::string SequenceText(const Value::Sequence& sequence) {
  const std::string inner =
      Joined(sequence.values, [](const Value& v) { return v.ToString(); });
  switch (sequence.kind) {
    case Value::Sequence::Kind::kTuple:
      return "(" + inner + (sequence.values.size() == 1 ? ",)" : ")");
    case Value::Sequence::Kind::kSet:
      return sequence.values.empty() ? "set()" : "{" + inner + "}";
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
  std::string operator()(const Value::DictEntries& v) const {
    return "{" +
           Joined(v.entries,
                  [](const auto& entry) {
                    return entry.first.ToString() + ": " + entry.second.ToString();
                  }) +
           "}";
  }
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

// Called with two alternatives of one type only.
struct SameValue {
  bool operator()(std::monostate, std::monostate) const { return true; }
  bool operator()(bool a, bool b) const { return a == b; }
  bool operator()(int64_t a, int64_t b) const { return a == b; }
  bool operator()(double a, double b) const { return SameBits(a, b); }
  bool operator()(const std::string& a, const std::string& b) const { return a == b; }
  bool operator()(const Value::BigInt& a, const Value::BigInt& b) const {
    return a.decimal == b.decimal;
  }
  bool operator()(const Value::Complex& a, const Value::Complex& b) const {
    return SameBits(a.real, b.real) && SameBits(a.imag, b.imag);
  }
  bool operator()(const Value::Bytes& a, const Value::Bytes& b) const {
    return a.data == b.data;
  }
  bool operator()(const Value::Sequence& a, const Value::Sequence& b) const {
    return a.kind == b.kind && a.values == b.values;
  }
  bool operator()(const Value::DictEntries& a, const Value::DictEntries& b) const {
    return a.entries == b.entries;
  }
  bool operator()(const Value::DTypeName& a, const Value::DTypeName& b) const {
    return a.name == b.name;
  }
  bool operator()(const Value::DeviceName& a, const Value::DeviceName& b) const {
    return a.name == b.name;
  }
  bool operator()(const Value::Size& a, const Value::Size& b) const {
    return a.sizes == b.sizes;
  }
  bool operator()(const Value::TensorKey& a, const Value::TensorKey& b) const {
    return a.key == b.key;
  }
};

// What `as` finds under `key`.
template <typename As>
auto Get(const Value& dict, std::string_view key, const char* wanted, As as)
    -> absl::StatusOr<typename std::invoke_result_t<As, const Value&>::value_type> {
  constexpr size_t kShown = 64;
  const Value* value = dict.Find(key);
  if (value == nullptr) {
    if (!dict.IsDict()) return absl::InvalidArgumentError("the value is no dict");
    return absl::NotFoundError(absl::StrCat("the dict has no key ", Quoted(key)));
  }
  if (auto found = as(*value); found.has_value()) return *std::move(found);
  std::string text = value->ToString();
  if (text.size() > kShown) text = ToUtf8(text, kShown) + "...";
  return absl::InvalidArgumentError(
      absl::StrCat("the value of key ", Quoted(key), " is not ", wanted, ": ", text));
}

}  // namespace

Value Value::List(std::vector<Value> values) {
  return Value(Variant(Sequence{Sequence::Kind::kList, std::move(values)}));
}

Value Value::Tuple(std::vector<Value> values) {
  return Value(Variant(Sequence{Sequence::Kind::kTuple, std::move(values)}));
}

Value Value::Dict(std::vector<std::pair<Value, Value>> entries) {
  return Value(Variant(DictEntries{std::move(entries)}));
}

const Value* Value::Find(std::string_view key) const {
  const auto* dict = std::get_if<DictEntries>(&v_);
  if (dict == nullptr) return nullptr;
  for (const auto& [name, value] : dict->entries) {
    const auto* text = std::get_if<std::string>(&name.v_);
    if (text != nullptr && *text == key) return &value;
  }
  return nullptr;
}

void Value::Set(std::string_view key, Value value) {
  if (Value* existing = const_cast<Value*>(Find(key))) {
    *existing = std::move(value);
    return;
  }
  if (IsNull()) v_ = DictEntries{};
  if (auto* dict = std::get_if<DictEntries>(&v_)) {
    dict->entries.emplace_back(Value(key), std::move(value));
  }
}

std::optional<bool> Value::AsBool() const {
  const auto* v = std::get_if<bool>(&v_);
  return v != nullptr ? std::optional(*v) : std::nullopt;
}

std::optional<int64_t> Value::AsInt() const {
  const auto* v = std::get_if<int64_t>(&v_);
  return v != nullptr ? std::optional(*v) : std::nullopt;
}

std::optional<double> Value::AsDouble() const {
  if (const auto* v = std::get_if<double>(&v_)) return *v;
  const auto* v = std::get_if<int64_t>(&v_);
  // 2^63 is the one double above every int64_t that a conversion may round to.
  if (v == nullptr || static_cast<double>(*v) == 0x1p63 ||
      static_cast<int64_t>(static_cast<double>(*v)) != *v) {
    return std::nullopt;
  }
  return static_cast<double>(*v);
}

std::optional<std::string> Value::AsString() const {
  const auto* v = std::get_if<std::string>(&v_);
  return v != nullptr ? std::optional(*v) : std::nullopt;
}

absl::StatusOr<bool> Value::GetBool(std::string_view key) const {
  return Get(*this, key, "a bool", [](const Value& v) { return v.AsBool(); });
}

absl::StatusOr<int64_t> Value::GetInt(std::string_view key) const {
  return Get(*this, key, "an integer of 64 bits",
             [](const Value& v) { return v.AsInt(); });
}

absl::StatusOr<double> Value::GetDouble(std::string_view key) const {
  return Get(*this, key, "a number", [](const Value& v) { return v.AsDouble(); });
}

absl::StatusOr<std::string> Value::GetString(std::string_view key) const {
  return Get(*this, key, "a string", [](const Value& v) { return v.AsString(); });
}

std::string Value::ToString() const { return std::visit(Printer{}, v_); }

bool operator==(const Value& a, const Value& b) {
  if (a.v_.index() != b.v_.index()) return false;
  return std::visit(
      [&b](const auto& x) {
        return SameValue{}(x, std::get<std::decay_t<decltype(x)>>(b.v_));
      },
      a.v_);
}

}  // namespace modelstore
