#include "proto/contract/value_equality.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <cstdio>
#include <cstring>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"

namespace modelstore {
namespace {

// Classes of objects that have no hash, or whose hash is not that of their value.
bool IsUnhashable(const v1::GlobalValue& type) {
  const std::pair<const char*, const char*> unhashable[] = {
      {"builtins", "bytearray"},      {"builtins", "slice"},
      {"collections", "Counter"},     {"collections", "deque"},
      {"collections", "defaultdict"}, {"numpy", "ndarray"}};
  return std::any_of(std::begin(unhashable), std::end(unhashable), [&](const auto& name) {
    return type.module() == name.first && type.qualified_name() == name.second;
  });
}

class Writer {
 public:
  absl::Status Write(const v1::Value& value, std::string& out) {
    switch (value.kind_case()) {
      case v1::Value::kBoolValue:
        WriteInteger(value.bool_value() ? "1" : "0", out);
        return absl::OkStatus();
      case v1::Value::kIntValue:
        WriteInteger(absl::StrCat(value.int_value()), out);
        return absl::OkStatus();
      case v1::Value::kBigIntValue:
        WriteInteger(value.big_int_value(), out);
        return absl::OkStatus();
      case v1::Value::kDoubleValue:
        WriteReal(value.double_value(), out);
        return absl::OkStatus();
      case v1::Value::kComplexValue:
        WriteReal(value.complex_value().real(), out);
        if (value.complex_value().imag() == 0) return absl::OkStatus();
        out += 'j';
        WriteReal(value.complex_value().imag(), out);
        return absl::OkStatus();
      case v1::Value::kStringValue:
        WriteText('s', value.string_value(), out);
        return absl::OkStatus();
      case v1::Value::kBytesValue:
        WriteText('b', value.bytes_value(), out);
        return absl::OkStatus();
      case v1::Value::kDtypeValue:
        WriteText('t', value.dtype_value(), out);
        return absl::OkStatus();
      case v1::Value::kDeviceValue:
        WriteText('d', value.device_value(), out);
        return absl::OkStatus();
      case v1::Value::kTupleValue:
        return WriteTuple(value.tuple_value(), out);
      case v1::Value::kSizeValue:
        out += '(';
        for (const int64_t size : value.size_value().sizes()) {
          WriteInteger(absl::StrCat(size), out);
        }
        out += ')';
        return absl::OkStatus();
      case v1::Value::kFrozensetValue:
        return WriteSet(value.frozenset_value(), out);
      case v1::Value::kGlobalValue:
        WriteGlobal(value.global_value(), out);
        return absl::OkStatus();
      case v1::Value::kObjectValue:
        return WriteObject(value.object_value(), out);
      case v1::Value::kNullValue:
        out += 'n';
        return absl::OkStatus();
      case v1::Value::kListValue:
        return absl::InvalidArgumentError("a list");
      case v1::Value::kSetValue:
        return absl::InvalidArgumentError("a set");
      case v1::Value::kDictValue:
        return absl::InvalidArgumentError("a dict");
      case v1::Value::kTensorValue:
        return absl::InvalidArgumentError("a tensor");
      case v1::Value::KIND_NOT_SET:
        break;
    }
    return absl::InvalidArgumentError("a value without a kind");
  }

  bool equals_nothing() const { return equals_nothing_; }

 private:
  static void WriteText(char kind, const std::string& text, std::string& out) {
    absl::StrAppend(&out, std::string(1, kind), text.size(), ":", text);
  }

  // `digits` may have leading zeros and be `-0`.
  static void WriteInteger(absl::string_view digits, std::string& out) {
    const bool negative = !digits.empty() && digits[0] == '-';
    if (negative) digits.remove_prefix(1);
    while (digits.size() > 1 && digits[0] == '0') digits.remove_prefix(1);
    absl::StrAppend(&out, "i", negative && digits != "0" ? "-" : "", digits, ";");
  }

  void WriteReal(double value, std::string& out) {
    if (std::isnan(value)) equals_nothing_ = true;
    if (!std::isfinite(value) || std::trunc(value) != value) {
      uint64_t bits;
      std::memcpy(&bits, &value, sizeof(bits));
      absl::StrAppend(&out, "f", bits, ";");
      return;
    }
    // Exact: the largest double has 309 digits.
    std::array<char, 320> digits;
    std::snprintf(digits.data(), digits.size(), "%.0f", value);
    WriteInteger(digits.data(), out);
  }

  absl::Status WriteTuple(const v1::ListValue& tuple, std::string& out) {
    out += '(';
    for (const v1::Value& element : tuple.values()) {
      if (auto s = Write(element, out); !s.ok()) return s;
    }
    out += ')';
    return absl::OkStatus();
  }

  absl::Status WriteSet(const v1::ListValue& set, std::string& out) {
    std::vector<std::string> elements;
    for (const v1::Value& element : set.values()) {
      auto s = Write(element, elements.emplace_back());
      if (!s.ok()) return s;
    }
    std::sort(elements.begin(), elements.end());
    out += '{';
    for (const std::string& element : elements) out += element;
    out += '}';
    return absl::OkStatus();
  }

  static void WriteGlobal(const v1::GlobalValue& global, std::string& out) {
    WriteText('g', global.module(), out);
    WriteText('.', global.qualified_name(), out);
  }

  absl::Status WriteObject(const v1::ObjectValue& object, std::string& out) {
    if (IsUnhashable(object.type()) || object.items_size() > 0 ||
        object.entries_size() > 0) {
      return absl::InvalidArgumentError(absl::StrCat(
          "an object of ", object.type().module(), ".", object.type().qualified_name()));
    }
    // A scalar of numpy equals the number or text that it holds.
    if (object.type().module() == "numpy" && object.args_size() == 1) {
      return Write(object.args(0), out);
    }
    out += 'o';
    WriteGlobal(object.type(), out);
    out += '(';
    for (const v1::Value& argument : object.args()) {
      // The class decides what of them it hashes.
      if (!Write(argument, out).ok()) out += argument.SerializeAsString();
    }
    out += ')';
    v1::ObjectValue rest = object;
    rest.clear_type();
    rest.clear_args();
    out += rest.SerializeAsString();
    return absl::OkStatus();
  }

  bool equals_nothing_ = false;
};

}  // namespace

absl::StatusOr<std::string> HashIdentity(const v1::Value& value) {
  Writer writer;
  std::string identity;
  if (auto s = writer.Write(value, identity); !s.ok()) return s;
  if (writer.equals_nothing()) return std::string();
  return identity;
}

}  // namespace modelstore
