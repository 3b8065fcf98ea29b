#include "client/internal/value_codec.h"

#include <string>
#include <utility>

#include "absl/strings/str_cat.h"
#include "proto/contract/errors.h"
#include "proto/contract/limits.h"

namespace modelstore::internal {
namespace {

bool IsDecimal(const std::string& text) {
  const size_t sign = !text.empty() && text[0] == '-' ? 1 : 0;
  return text.size() > sign &&
         text.find_first_not_of("0123456789", sign) == std::string::npos;
}

bool IsKey(const Value& value) {
  const Value::Variant& v = value.variant();
  return std::holds_alternative<std::monostate>(v) || std::holds_alternative<bool>(v) ||
         std::holds_alternative<int64_t>(v) || std::holds_alternative<double>(v) ||
         std::holds_alternative<std::string>(v) ||
         std::holds_alternative<Value::Bytes>(v) ||
         std::holds_alternative<Value::BigInt>(v);
}

class Encoder {
 public:
  Encoder(absl::string_view field, v1::Value* out, int depth)
      : field_(field), out_(out), depth_(depth) {}

  absl::Status operator()(std::monostate) {
    out_->set_null_value(v1::NULL_VALUE);
    return absl::OkStatus();
  }
  absl::Status operator()(bool v) {
    out_->set_bool_value(v);
    return absl::OkStatus();
  }
  absl::Status operator()(int64_t v) {
    out_->set_int_value(v);
    return absl::OkStatus();
  }
  absl::Status operator()(const Value::BigInt& v) {
    if (!IsDecimal(v.decimal)) {
      return InvalidField(field_, absl::StrCat("`", v.decimal, "` is no integer"));
    }
    out_->set_big_int_value(v.decimal);
    return absl::OkStatus();
  }
  absl::Status operator()(double v) {
    out_->set_double_value(v);
    return absl::OkStatus();
  }
  absl::Status operator()(const Value::Complex& v) {
    out_->mutable_complex_value()->set_real(v.real);
    out_->mutable_complex_value()->set_imag(v.imag);
    return absl::OkStatus();
  }
  absl::Status operator()(const std::string& v) {
    out_->set_string_value(v);
    return absl::OkStatus();
  }
  absl::Status operator()(const Value::Bytes& v) {
    out_->set_bytes_value(v.data);
    return absl::OkStatus();
  }
  absl::Status operator()(const Value::Sequence& v) {
    v1::ListValue* list =
        v.kind == Value::Sequence::Kind::kList    ? out_->mutable_list_value()
        : v.kind == Value::Sequence::Kind::kTuple ? out_->mutable_tuple_value()
                                                  : out_->mutable_set_value();
    for (const Value& item : v.values) {
      if (absl::Status s = Nested(item, list->add_values()); !s.ok()) return s;
    }
    return absl::OkStatus();
  }
  absl::Status operator()(const Value::DictEntries& v) {
    v1::DictValue* dict = out_->mutable_dict_value();
    for (const auto& [key, value] : v.entries) {
      if (!IsKey(key)) {
        return InvalidField(
            field_, absl::StrCat("a dict key must be a scalar, not ", key.ToString()));
      }
      v1::DictValue::Entry* entry = dict->add_entries();
      if (absl::Status s = Nested(key, entry->mutable_key()); !s.ok()) return s;
      if (absl::Status s = Nested(value, entry->mutable_value()); !s.ok()) return s;
    }
    return absl::OkStatus();
  }
  absl::Status operator()(const Value::DTypeName& v) {
    out_->set_dtype_value(v.name);
    return absl::OkStatus();
  }
  absl::Status operator()(const Value::DeviceName& v) {
    out_->set_device_value(v.name);
    return absl::OkStatus();
  }
  absl::Status operator()(const Value::Size& v) {
    v1::SizeValue* size = out_->mutable_size_value();
    size->mutable_sizes()->Add(v.sizes.begin(), v.sizes.end());
    return absl::OkStatus();
  }
  absl::Status operator()(const Value::TensorKey& v) {
    out_->set_tensor_value(v.key);
    return absl::OkStatus();
  }

 private:
  absl::Status Nested(const Value& value, v1::Value* out) {
    if (depth_ + 1 > kMaxValueDepth) {
      return InvalidField(field_,
                          absl::StrCat("deeper than ", kMaxValueDepth, " levels"));
    }
    return std::visit(Encoder(field_, out, depth_ + 1), value.variant());
  }

  absl::string_view field_;
  v1::Value* out_;
  int depth_;
};

absl::StatusOr<Value> DecodeSequence(Value::Sequence::Kind kind,
                                     const v1::ListValue& list) {
  Value::Sequence sequence{kind, {}};
  sequence.values.reserve(list.values_size());
  for (const v1::Value& item : list.values()) {
    absl::StatusOr<Value> value = DecodeValue(item);
    if (!value.ok()) return value.status();
    sequence.values.push_back(*std::move(value));
  }
  return Value(Value::Variant(std::move(sequence)));
}

absl::StatusOr<Value> DecodeDict(const v1::DictValue& dict) {
  Value::DictEntries out;
  out.entries.reserve(dict.entries_size());
  for (const v1::DictValue::Entry& entry : dict.entries()) {
    absl::StatusOr<Value> key = DecodeValue(entry.key());
    if (!key.ok()) return key.status();
    absl::StatusOr<Value> value = DecodeValue(entry.value());
    if (!value.ok()) return value.status();
    out.entries.emplace_back(*std::move(key), *std::move(value));
  }
  return Value(Value::Variant(std::move(out)));
}

}  // namespace

absl::Status EncodeValue(absl::string_view field, const Value& value, v1::Value* out) {
  return std::visit(Encoder(field, out, 1), value.variant());
}

absl::StatusOr<Value> DecodeValue(const v1::Value& value) {
  using Kind = Value::Sequence::Kind;
  switch (value.kind_case()) {
    case v1::Value::kNullValue:
      return Value();
    case v1::Value::kBoolValue:
      return Value(value.bool_value());
    case v1::Value::kIntValue:
      return Value(int64_t{value.int_value()});
    case v1::Value::kBigIntValue:
      return Value(Value::Variant(Value::BigInt{value.big_int_value()}));
    case v1::Value::kDoubleValue:
      return Value(value.double_value());
    case v1::Value::kComplexValue:
      return Value(Value::Variant(
          Value::Complex{value.complex_value().real(), value.complex_value().imag()}));
    case v1::Value::kStringValue:
      return Value(value.string_value());
    case v1::Value::kBytesValue:
      return Value(Value::Variant(Value::Bytes{value.bytes_value()}));
    case v1::Value::kListValue:
      return DecodeSequence(Kind::kList, value.list_value());
    case v1::Value::kTupleValue:
      return DecodeSequence(Kind::kTuple, value.tuple_value());
    case v1::Value::kSetValue:
      return DecodeSequence(Kind::kSet, value.set_value());
    case v1::Value::kDictValue:
      return DecodeDict(value.dict_value());
    case v1::Value::kDtypeValue:
      return Value(Value::Variant(Value::DTypeName{value.dtype_value()}));
    case v1::Value::kDeviceValue:
      return Value(Value::Variant(Value::DeviceName{value.device_value()}));
    case v1::Value::kSizeValue: {
      const auto& sizes = value.size_value().sizes();
      return Value(Value::Variant(Value::Size{{sizes.begin(), sizes.end()}}));
    }
    case v1::Value::kTensorValue:
      return Value::Tensor(value.tensor_value());
    case v1::Value::KIND_NOT_SET:
      break;
  }
  return absl::InternalError("the server sent a value of a kind unknown to this client");
}

}  // namespace modelstore::internal
