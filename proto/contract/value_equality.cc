#include "proto/contract/value_equality.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <cstdio>
#include <cstring>
#include <optional>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"

namespace modelstore {
namespace {

constexpr double kTwoTo63 = 9223372036854775808.0;
constexpr size_t kDigitsOf63Bits = 19;
// Number of digits of the largest double.
constexpr size_t kMaxRealDigits = 309;

// Classes of objects that are unhashable, or whose hash does not depend on their value.
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

  // `digits` may have leading zeros, and may be `-0`.
  static void WriteInteger(absl::string_view digits, std::string& out) {
    const bool negative = !digits.empty() && digits[0] == '-';
    if (negative) digits.remove_prefix(1);
    while (digits.size() > 1 && digits[0] == '0') digits.remove_prefix(1);
    if (const std::optional<double> real = LargeReal(digits)) {
      return WriteBits(negative ? -*real : *real, out);
    }
    absl::StrAppend(&out, "i", negative && digits != "0" ? "-" : "", digits, ";");
  }

  // The double of at least 2^63 that exactly equals this integer; absent if none does.
  static std::optional<double> LargeReal(absl::string_view digits) {
    double value;
    if (digits.size() < kDigitsOf63Bits || digits.size() > kMaxRealDigits ||
        !absl::SimpleAtod(digits, &value) || !(value >= kTwoTo63)) {
      return std::nullopt;
    }
    std::array<char, kMaxRealDigits + 11> exact;
    std::snprintf(exact.data(), exact.size(), "%.0f", value);
    if (digits != exact.data()) return std::nullopt;
    return value;
  }

  static void WriteBits(double value, std::string& out) {
    uint64_t bits;
    std::memcpy(&bits, &value, sizeof(bits));
    absl::StrAppend(&out, "f", bits, ";");
  }

  void WriteReal(double value, std::string& out) {
    if (std::isnan(value)) equals_nothing_ = true;
    const bool small = std::abs(value) < kTwoTo63;
    if (!small || std::trunc(value) != value) return WriteBits(value, out);
    absl::StrAppend(&out, "i", static_cast<int64_t>(value), ";");
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
    out += '{';
    const size_t begin = out.size();
    std::vector<std::pair<size_t, size_t>> places;
    for (const v1::Value& element : set.values()) {
      const size_t at = out.size();
      if (auto s = Write(element, out); !s.ok()) return s;
      places.emplace_back(at, out.size() - at);
    }
    auto element = [&out](const std::pair<size_t, size_t>& place) {
      return absl::string_view(out).substr(place.first, place.second);
    };
    auto before = [&](const auto& a, const auto& b) { return element(a) < element(b); };
    if (!std::is_sorted(places.begin(), places.end(), before)) {
      std::sort(places.begin(), places.end(), before);
      std::string sorted;
      sorted.reserve(out.size() - begin);
      for (const auto& place : places) absl::StrAppend(&sorted, element(place));
      out.replace(begin, std::string::npos, sorted);
    }
    out += '}';
    return absl::OkStatus();
  }

  static void WriteMessage(const google::protobuf::MessageLite& message,
                           std::string& out) {
    absl::StrAppend(&out, "m", message.ByteSizeLong(), ":");
    message.AppendToString(&out);
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
    // A numpy scalar equals its number or text.
    if (object.type().module() == "numpy" && object.args_size() == 1) {
      return Write(object.args(0), out);
    }
    out += 'o';
    WriteGlobal(object.type(), out);
    out += '(';
    for (const v1::Value& argument : object.args()) {
      // The class decides what it hashes, so an unhashable argument is no error: its
      // serialized form is used.
      const size_t begin = out.size();
      if (Write(argument, out).ok()) continue;
      out.resize(begin);
      WriteMessage(argument, out);
    }
    absl::StrAppend(&out, ")", object.construction());
    for (const auto& keyword : object.keywords()) WriteMessage(keyword, out);
    out += ';';
    for (const auto& attribute : object.attributes()) WriteMessage(attribute, out);
    if (object.has_state()) WriteMessage(object.state(), out);
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
