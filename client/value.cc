#include "modelstore/value.h"

#include <cstring>
#include <type_traits>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "proto/contract/utf8.h"

namespace modelstore {
namespace {

// Equal numbers (0 and -0 too) or equal bits (a NaN equals itself).
bool SameBits(double a, double b) {
  uint64_t x, y;
  std::memcpy(&x, &a, sizeof(x));
  std::memcpy(&y, &b, sizeof(y));
  return a == b || x == y;
}

// Compares two alternatives of the same type.
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
    return a.ordered == b.ordered && a.entries == b.entries &&
           a.attributes == b.attributes;
  }
  bool operator()(const Value::Global& a, const Value::Global& b) const {
    return a.module == b.module && a.qualified_name == b.qualified_name;
  }
  bool operator()(const Value::Object& a, const Value::Object& b) const {
    return (*this)(a.type, b.type) && a.construction == b.construction &&
           a.args == b.args && a.keywords == b.keywords && a.attributes == b.attributes &&
           a.state == b.state && a.items == b.items && a.entries == b.entries;
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

Value MakeSequence(Value::Sequence::Kind kind, std::vector<Value> values) {
  return Value(Value::Sequence{kind, std::move(values)});
}

// The value of a string key; null if it is absent or `entries` is null.
const Value* FindIn(const Value::Entries* entries, std::string_view key) {
  if (entries == nullptr) return nullptr;
  for (const auto& [name, value] : *entries) {
    const auto* text = std::get_if<std::string>(&name.variant());
    if (text != nullptr && *text == key) return &value;
  }
  return nullptr;
}

// The entries of a dict or object; null for other kinds.
const Value::Entries* EntriesOf(const Value& value) {
  if (const auto* dict = std::get_if<Value::DictEntries>(&value.variant())) {
    return &dict->entries;
  }
  const auto* object = std::get_if<Value::Object>(&value.variant());
  return object != nullptr ? &object->entries : nullptr;
}

// Returns the value of `key` converted by `as`, or an error that names the key.
template <typename As>
auto Get(const Value& dict, std::string_view key, const char* wanted, As as)
    -> absl::StatusOr<typename std::invoke_result_t<As, const Value&>::value_type> {
  constexpr size_t kShown = 64;  // maximum bytes of the value in the message
  const Value* value = dict.Find(key);
  if (value == nullptr) {
    if (EntriesOf(dict) == nullptr)
      return absl::InvalidArgumentError("the value is no dict");
    return absl::NotFoundError(
        absl::StrCat("the dict has no key ", Value(key).ToString()));
  }
  if (auto found = as(*value); found.has_value()) return *std::move(found);
  std::string text = value->ToString();
  if (text.size() > kShown) text = ToUtf8(text, kShown) + "...";
  return absl::InvalidArgumentError(absl::StrCat(
      "the value of key ", Value(key).ToString(), " is not ", wanted, ": ", text));
}

}  // namespace

Value Value::List(std::vector<Value> values) {
  return MakeSequence(Sequence::Kind::kList, std::move(values));
}

Value Value::Tuple(std::vector<Value> values) {
  return MakeSequence(Sequence::Kind::kTuple, std::move(values));
}

Value Value::SetOf(std::vector<Value> values) {
  return MakeSequence(Sequence::Kind::kSet, std::move(values));
}

Value Value::FrozenSet(std::vector<Value> values) {
  return MakeSequence(Sequence::Kind::kFrozenSet, std::move(values));
}

Value Value::Dict(Entries entries) { return Value(DictEntries{std::move(entries)}); }

Value Value::OrderedDict(Entries entries, Entries attributes) {
  return Value(DictEntries{std::move(entries), true, std::move(attributes)});
}

const Value* Value::Find(std::string_view key) const {
  return FindIn(EntriesOf(*this), key);
}

const Value* Value::FindAttribute(std::string_view name) const {
  if (const auto* dict = std::get_if<DictEntries>(&v_)) {
    return FindIn(&dict->attributes, name);
  }
  const auto* object = std::get_if<Object>(&v_);
  return object != nullptr ? FindIn(&object->attributes, name) : nullptr;
}

bool Value::Set(std::string_view key, Value value) {
  if (Value* existing = const_cast<Value*>(Find(key))) {
    *existing = std::move(value);
    return true;
  }
  if (IsNull()) v_ = DictEntries{};
  auto* entries = const_cast<Entries*>(EntriesOf(*this));
  if (entries == nullptr) return false;
  entries->emplace_back(Value(key), std::move(value));
  return true;
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
  // An int64_t near its maximum rounds up to 2^63, which does not convert back: check it
  // before the cast, which would be undefined.
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

bool operator==(const Value& a, const Value& b) {
  if (a.v_.index() != b.v_.index()) return false;
  return std::visit(
      [&b](const auto& x) {
        return SameValue{}(x, std::get<std::decay_t<decltype(x)>>(b.v_));
      },
      a.v_);
}

}  // namespace modelstore
