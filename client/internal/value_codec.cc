#include "client/internal/value_codec.h"

#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "proto/contract/errors.h"
#include "proto/contract/limits.h"

namespace modelstore::internal {
namespace {

using Values = google::protobuf::RepeatedPtrField<v1::Value>;
using Entries = google::protobuf::RepeatedPtrField<v1::DictValue::Entry>;

absl::Status UnknownKind() {
  return absl::InternalError("the server sent a value of a kind unknown to this client");
}

// Visitor for the alternatives of Value. `depth` is the level of `out`, starting at 1.
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
    return NestedAll(v.values, ListOf(v.kind)->mutable_values());
  }
  absl::Status operator()(const Value::DictEntries& v) {
    v1::DictValue* dict = out_->mutable_dict_value();
    dict->set_ordered_dict(v.ordered);
    absl::Status s = NestedEntries(v.entries, dict->mutable_entries());
    return s.ok() ? NestedEntries(v.attributes, dict->mutable_attributes()) : s;
  }
  absl::Status operator()(const Value::Global& v) {
    SetGlobal(v, out_->mutable_global_value());
    return absl::OkStatus();
  }
  absl::Status operator()(const Value::Object& v) {
    v1::ObjectValue* object = out_->mutable_object_value();
    SetGlobal(v.type, object->mutable_type());
    object->set_construction(v.construction == Value::Object::Construction::kNew
                                 ? v1::ObjectValue::CONSTRUCTION_NEW
                                 : v1::ObjectValue::CONSTRUCTION_CALL);
    if (v.state.size() > 1) return InvalidField(field_, "an object has over one state");
    absl::Status s = NestedAll(v.args, object->mutable_args());
    if (s.ok()) s = NestedEntries(v.keywords, object->mutable_keywords());
    if (s.ok()) s = NestedEntries(v.attributes, object->mutable_attributes());
    if (s.ok() && !v.state.empty()) s = Nested(v.state[0], object->mutable_state());
    if (s.ok()) s = NestedAll(v.items, object->mutable_items());
    return s.ok() ? NestedEntries(v.entries, object->mutable_entries()) : s;
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
  v1::ListValue* ListOf(Value::Sequence::Kind kind) {
    switch (kind) {
      case Value::Sequence::Kind::kTuple:
        return out_->mutable_tuple_value();
      case Value::Sequence::Kind::kSet:
        return out_->mutable_set_value();
      case Value::Sequence::Kind::kFrozenSet:
        return out_->mutable_frozenset_value();
      case Value::Sequence::Kind::kList:
        break;
    }
    return out_->mutable_list_value();
  }

  static void SetGlobal(const Value::Global& global, v1::GlobalValue* out) {
    out->set_module(global.module);
    out->set_qualified_name(global.qualified_name);
  }

  absl::Status NestedAll(const std::vector<Value>& values, Values* out) {
    for (const Value& value : values) {
      if (absl::Status s = Nested(value, out->Add()); !s.ok()) return s;
    }
    return absl::OkStatus();
  }

  absl::Status NestedEntries(const Value::Entries& entries, Entries* out) {
    for (const auto& [key, value] : entries) {
      v1::DictValue::Entry* entry = out->Add();
      if (absl::Status s = Nested(key, entry->mutable_key()); !s.ok()) return s;
      if (absl::Status s = Nested(value, entry->mutable_value()); !s.ok()) return s;
    }
    return absl::OkStatus();
  }

  absl::Status Nested(const Value& value, v1::Value* out) {
    // Checked here, not only in CheckValue(), so that the recursion itself is bounded.
    if (depth_ + 1 > kMaxValueDepth) {
      return InvalidField(field_,
                          absl::StrCat("more than ", kMaxValueDepth, " levels deep"));
    }
    return std::visit(Encoder(field_, out, depth_ + 1), value.variant());
  }

  absl::string_view field_;
  v1::Value* out_;
  int depth_;
};

// Decodes the parts of one value and keeps the first error.
class Decoder {
 public:
  std::vector<Value> All(const Values& values) {
    std::vector<Value> out;
    out.reserve(values.size());
    for (const v1::Value& value : values) out.push_back(One(value));
    return out;
  }
  Value::Entries AllEntries(const Entries& entries) {
    Value::Entries out;
    out.reserve(entries.size());
    for (const auto& entry : entries)
      out.emplace_back(One(entry.key()), One(entry.value()));
    return out;
  }
  Value One(const v1::Value& value) {
    if (!status_.ok()) return Value();
    absl::StatusOr<Value> decoded = DecodeValue(value);
    if (decoded.ok()) return *std::move(decoded);
    status_ = decoded.status();
    return Value();
  }
  // Returns `value`, or the first error.
  absl::StatusOr<Value> Done(Value value) {
    if (!status_.ok()) return status_;
    return value;
  }

 private:
  absl::Status status_;
};

absl::StatusOr<Value> DecodeSequence(Value::Sequence::Kind kind,
                                     const v1::ListValue& list) {
  Decoder decoder;
  return decoder.Done(Value::Sequence{kind, decoder.All(list.values())});
}

absl::StatusOr<Value> DecodeDict(const v1::DictValue& dict) {
  Decoder decoder;
  return decoder.Done(Value::DictEntries{decoder.AllEntries(dict.entries()),
                                         dict.ordered_dict(),
                                         decoder.AllEntries(dict.attributes())});
}

Value::Global GlobalOf(const v1::GlobalValue& global) {
  return {global.module(), global.qualified_name()};
}

absl::StatusOr<Value> DecodeObject(const v1::ObjectValue& object) {
  Decoder decoder;
  Value::Object out;
  out.type = GlobalOf(object.type());
  if (object.construction() == v1::ObjectValue::CONSTRUCTION_NEW) {
    out.construction = Value::Object::Construction::kNew;
  } else if (object.construction() != v1::ObjectValue::CONSTRUCTION_CALL) {
    return UnknownKind();
  }
  out.args = decoder.All(object.args());
  out.keywords = decoder.AllEntries(object.keywords());
  out.attributes = decoder.AllEntries(object.attributes());
  if (object.has_state()) out.state.push_back(decoder.One(object.state()));
  out.items = decoder.All(object.items());
  out.entries = decoder.AllEntries(object.entries());
  return decoder.Done(std::move(out));
}

}  // namespace

absl::Status EncodeValue(absl::string_view field, const Value& value, v1::Value* out,
                         std::vector<NamedTensor>* tensors) {
  absl::Status s = std::visit(Encoder(field, out, 1), value.variant());
  return s.ok() ? CheckValue(field, "value", *out, kMaxValueDepth, tensors) : s;
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
      return Value(Value::BigInt{value.big_int_value()});
    case v1::Value::kDoubleValue:
      return Value(value.double_value());
    case v1::Value::kComplexValue:
      return Value(
          Value::Complex{value.complex_value().real(), value.complex_value().imag()});
    case v1::Value::kStringValue:
      return Value(value.string_value());
    case v1::Value::kBytesValue:
      return Value(Value::Bytes{value.bytes_value()});
    case v1::Value::kListValue:
      return DecodeSequence(Kind::kList, value.list_value());
    case v1::Value::kTupleValue:
      return DecodeSequence(Kind::kTuple, value.tuple_value());
    case v1::Value::kSetValue:
      return DecodeSequence(Kind::kSet, value.set_value());
    case v1::Value::kDictValue:
      return DecodeDict(value.dict_value());
    case v1::Value::kFrozensetValue:
      return DecodeSequence(Kind::kFrozenSet, value.frozenset_value());
    case v1::Value::kGlobalValue:
      return Value(GlobalOf(value.global_value()));
    case v1::Value::kObjectValue:
      return DecodeObject(value.object_value());
    case v1::Value::kDtypeValue:
      return Value(Value::DTypeName{value.dtype_value()});
    case v1::Value::kDeviceValue:
      return Value(Value::DeviceName{value.device_value()});
    case v1::Value::kSizeValue: {
      const auto& sizes = value.size_value().sizes();
      return Value(Value::Size{{sizes.begin(), sizes.end()}});
    }
    case v1::Value::kTensorValue:
      return Value::Tensor(value.tensor_value());
    case v1::Value::KIND_NOT_SET:
      break;
  }
  return UnknownKind();
}

}  // namespace modelstore::internal
