#include "proto/contract/architecture/value.h"

#include <array>
#include <charconv>
#include <cmath>
#include <string>
#include <vector>

#include "absl/algorithm/container.h"
#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_join.h"
#include "proto/contract/limits.h"

namespace modelstore {
namespace {

// Python's repr() of a float: the shortest digits that parse to the same value, in
// scientific notation below 1e-4 and from 1e16 on.
std::string PrintFloat(double value) {
  if (std::isnan(value)) return "nan";
  if (std::isinf(value)) return value < 0 ? "-inf" : "inf";
  std::array<char, 32> buffer;
  auto end = std::to_chars(buffer.data(), buffer.data() + buffer.size(), value,
                           std::chars_format::scientific)
                 .ptr;
  const std::string shortest(buffer.data(), end);
  const size_t e = shortest.find('e');
  int exponent = 0;
  if (!absl::SimpleAtoi(shortest.substr(e + 1), &exponent)) return shortest;
  if (exponent < -4 || exponent >= 16) return shortest;
  // Fixed notation has up to 16 digits before the point, or 20 after it.
  std::array<char, 48> fixed;
  end = std::to_chars(fixed.data(), fixed.data() + fixed.size(), value,
                      std::chars_format::fixed)
            .ptr;
  std::string text(fixed.data(), end);
  if (text.find('.') == std::string::npos) text += ".0";
  return text;
}

std::string Quoted(absl::string_view text) {
  const bool apostrophe = absl::StrContains(text, '\'') && !absl::StrContains(text, '"');
  const char quote = apostrophe ? '"' : '\'';
  std::string out(1, quote);
  for (const char c : text) {
    if (c == quote || c == '\\') {
      absl::StrAppend(&out, "\\", std::string(1, c));
    } else if (c == '\n') {
      out += "\\n";
    } else if (static_cast<unsigned char>(c) < 0x20 || c == 0x7f) {
      absl::StrAppendFormat(&out, "\\x%02x", static_cast<unsigned char>(c));
    } else {
      out += c;
    }
  }
  return out + quote;
}

std::string Print(const v1::Value& value, int depth);

std::string PrintAll(const v1::ListValue& list, const char* open, const char* close,
                     int depth) {
  std::string out = open;
  for (int i = 0; i < list.values_size(); ++i) {
    absl::StrAppend(&out, i > 0 ? ", " : "", Print(list.values(i), depth + 1));
  }
  if (*open == '(' && list.values_size() == 1) out += ",";
  return out + close;
}

using Entries = google::protobuf::RepeatedPtrField<v1::DictValue::Entry>;

std::string PrintEntries(const Entries& entries, int depth) {
  std::string out = "{";
  for (const auto& entry : entries) {
    absl::StrAppend(&out, out.size() > 1 ? ", " : "", Print(entry.key(), depth + 1), ": ",
                    Print(entry.value(), depth + 1));
  }
  return out + "}";
}

std::string PrintDict(const v1::DictValue& dict, int depth) {
  const std::string entries = PrintEntries(dict.entries(), depth);
  return dict.ordered_dict() ? absl::StrCat("OrderedDict(", entries, ")") : entries;
}

std::string PrintGlobal(const v1::GlobalValue& global) {
  return absl::StrCat(global.module(), ".", global.qualified_name());
}

std::string PrintObject(const v1::ObjectValue& object, int depth) {
  std::vector<std::string> parts;
  for (const v1::Value& value : object.args()) parts.push_back(Print(value, depth + 1));
  for (const auto* named : {&object.keywords(), &object.attributes()}) {
    for (const auto& entry : *named) {
      parts.push_back(
          absl::StrCat(entry.key().string_value(), "=", Print(entry.value(), depth + 1)));
    }
  }
  if (object.has_state()) parts.push_back(Print(object.state(), depth + 1));
  for (const v1::Value& value : object.items()) parts.push_back(Print(value, depth + 1));
  if (object.entries_size() > 0) parts.push_back(PrintEntries(object.entries(), depth));
  return absl::StrCat(PrintGlobal(object.type()), "(", absl::StrJoin(parts, ", "), ")");
}

std::string PrintBytes(absl::string_view bytes) {
  std::string out = "b'";
  for (const char c : bytes) {
    const auto byte = static_cast<unsigned char>(c);
    if (byte < 0x20 || byte >= 0x7f) {
      absl::StrAppendFormat(&out, "\\x%02x", byte);
    } else {
      absl::StrAppend(&out, c == '\'' || c == '\\' ? "\\" : "", std::string(1, c));
    }
  }
  return out + "'";
}

std::string PrintSize(const v1::SizeValue& size) {
  std::string out = "torch.Size([";
  for (int i = 0; i < size.sizes_size(); ++i) {
    absl::StrAppend(&out, i > 0 ? ", " : "", size.sizes(i));
  }
  return out + "])";
}

std::string Print(const v1::Value& value, int depth) {
  if (depth > kMaxValueDepth) return "...";
  switch (value.kind_case()) {
    case v1::Value::kBoolValue:
      return value.bool_value() ? "True" : "False";
    case v1::Value::kIntValue:
      return absl::StrCat(value.int_value());
    case v1::Value::kBigIntValue:
      return value.big_int_value();
    case v1::Value::kDoubleValue:
      return PrintFloat(value.double_value());
    case v1::Value::kComplexValue:
      return absl::StrCat("complex(", PrintFloat(value.complex_value().real()), ", ",
                          PrintFloat(value.complex_value().imag()), ")");
    case v1::Value::kStringValue:
      return Quoted(value.string_value());
    case v1::Value::kBytesValue:
      return PrintBytes(value.bytes_value());
    case v1::Value::kListValue:
      return PrintAll(value.list_value(), "[", "]", depth);
    case v1::Value::kTupleValue:
      return PrintAll(value.tuple_value(), "(", ")", depth);
    case v1::Value::kSetValue:
      return PrintAll(value.set_value(), "{", "}", depth);
    case v1::Value::kFrozensetValue:
      return PrintAll(value.frozenset_value(), "frozenset({", "})", depth);
    case v1::Value::kGlobalValue:
      return absl::StrCat("<", PrintGlobal(value.global_value()), ">");
    case v1::Value::kObjectValue:
      return PrintObject(value.object_value(), depth);
    case v1::Value::kDictValue:
      return PrintDict(value.dict_value(), depth);
    case v1::Value::kDtypeValue:
      return absl::StrCat("torch.", value.dtype_value());
    case v1::Value::kDeviceValue:
      return absl::StrCat("device(", Quoted(value.device_value()), ")");
    case v1::Value::kSizeValue:
      return PrintSize(value.size_value());
    case v1::Value::kTensorValue:
      return absl::StrCat("<tensor ", value.tensor_value(), ">");
    case v1::Value::kNullValue:
    case v1::Value::KIND_NOT_SET:
      return "None";
  }
  return "None";
}

}  // namespace

v1::Value NoneValue() {
  v1::Value value;
  value.set_null_value(v1::NULL_VALUE);
  return value;
}

v1::Value BoolValue(bool b) {
  v1::Value value;
  value.set_bool_value(b);
  return value;
}

v1::Value IntValue(int64_t i) {
  v1::Value value;
  value.set_int_value(i);
  return value;
}

v1::Value FloatValue(double d) {
  v1::Value value;
  value.set_double_value(d);
  return value;
}

v1::Value StringValue(absl::string_view text) {
  v1::Value value;
  value.set_string_value(std::string(text));
  return value;
}

v1::Value TupleValue(absl::Span<const int64_t> values) {
  v1::Value tuple;
  tuple.mutable_tuple_value();
  for (const int64_t i : values) *tuple.mutable_tuple_value()->add_values() = IntValue(i);
  return tuple;
}

bool IsNone(const v1::Value& value) {
  return value.kind_case() == v1::Value::kNullValue ||
         value.kind_case() == v1::Value::KIND_NOT_SET;
}

std::optional<int64_t> AsInt(const v1::Value& value) {
  if (value.kind_case() == v1::Value::kIntValue) return value.int_value();
  return std::nullopt;
}

std::optional<double> AsNumber(const v1::Value& value) {
  if (value.kind_case() == v1::Value::kDoubleValue) return value.double_value();
  if (value.kind_case() == v1::Value::kIntValue) {
    return static_cast<double>(value.int_value());
  }
  return std::nullopt;
}

std::optional<std::vector<int64_t>> AsInts(const v1::Value& value) {
  if (value.kind_case() == v1::Value::kSizeValue) {
    return std::vector<int64_t>(value.size_value().sizes().begin(),
                                value.size_value().sizes().end());
  }
  const bool list = value.kind_case() == v1::Value::kListValue;
  if (!list && value.kind_case() != v1::Value::kTupleValue) return std::nullopt;
  std::vector<int64_t> ints;
  for (const v1::Value& element :
       (list ? value.list_value() : value.tuple_value()).values()) {
    const std::optional<int64_t> i = AsInt(element);
    if (!i) return std::nullopt;
    ints.push_back(*i);
  }
  return ints;
}

bool SameValue(const v1::Value& a, const v1::Value& b) {
  const std::optional<double> x = AsNumber(a), y = AsNumber(b);
  if (x && y) return *x == *y;
  return PrintValue(a) == PrintValue(b);
}

std::optional<v1::Value> ScalarFromText(absl::string_view text) {
  if (text == "None") return NoneValue();
  if (text == "True" || text == "False") return BoolValue(text == "True");
  absl::string_view digits = text;
  if (!digits.empty() && (digits[0] == '-' || digits[0] == '+')) digits.remove_prefix(1);
  if (digits == "inf" || digits == "nan") {
    const double special = digits == "inf" ? INFINITY : NAN;
    return FloatValue(text[0] == '-' ? -special : special);
  }
  if (digits.empty() || !(absl::ascii_isdigit(digits[0]) || digits[0] == '.')) {
    return std::nullopt;
  }
  if (absl::c_all_of(digits, absl::ascii_isdigit)) {
    int64_t i = 0;
    if (!absl::SimpleAtoi(text, &i)) return std::nullopt;
    return IntValue(i);
  }
  double d = 0;
  // C syntax allows hexadecimal floats, Python does not.
  if (absl::StrContains(digits, 'x') || absl::StrContains(digits, 'X') ||
      !absl::SimpleAtod(text, &d)) {
    return std::nullopt;
  }
  return FloatValue(d);
}

std::string PrintValue(const v1::Value& value) { return Print(value, 0); }

std::string FormatValue(const v1::Value& value) {
  if (value.kind_case() == v1::Value::kStringValue) return value.string_value();
  return PrintValue(value);
}

}  // namespace modelstore
