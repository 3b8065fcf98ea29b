#include "server/modify/value_references.h"

#include <utility>

namespace modelstore::server::modify {
namespace {

// Changes references in `value`. Returns true if the value itself must be removed,
// because it is a reference to a removed tensor or an object made from one.
bool ChangeValue(v1::Value* value, KeyChange change, bool* changed);

using Values = google::protobuf::RepeatedPtrField<v1::Value>;
using Entries = google::protobuf::RepeatedPtrField<v1::DictValue::Entry>;

void ChangeElements(Values* values, KeyChange change, bool* changed) {
  for (v1::Value& element : *values) {
    if (ChangeValue(&element, change, changed)) element.set_null_value(v1::NULL_VALUE);
  }
}

// Changes the values of entries. Their keys contain no references.
void ChangeEntries(Entries* of, KeyChange change, bool* changed) {
  Entries& entries = *of;
  int kept = 0;
  for (int i = 0; i < entries.size(); ++i) {
    if (ChangeValue(entries[i].mutable_value(), change, changed)) continue;
    if (kept != i) entries.SwapElements(kept, i);
    ++kept;
  }
  while (entries.size() > kept) entries.RemoveLast();
}

// Returns true if the object must be removed: it cannot be made without the tensors among
// its arguments and in its state.
bool ChangeObject(v1::ObjectValue* object, KeyChange change, bool* changed) {
  for (v1::Value& argument : *object->mutable_args()) {
    if (ChangeValue(&argument, change, changed)) return true;
  }
  const int keywords = object->keywords_size();
  ChangeEntries(object->mutable_keywords(), change, changed);
  if (object->keywords_size() < keywords) return true;
  if (object->has_state() && ChangeValue(object->mutable_state(), change, changed)) {
    return true;
  }
  ChangeEntries(object->mutable_attributes(), change, changed);
  ChangeElements(object->mutable_items(), change, changed);
  ChangeEntries(object->mutable_entries(), change, changed);
  return false;
}

bool ChangeValue(v1::Value* value, KeyChange change, bool* changed) {
  switch (value->kind_case()) {
    case v1::Value::kListValue:
      ChangeElements(value->mutable_list_value()->mutable_values(), change, changed);
      return false;
    case v1::Value::kTupleValue:
      ChangeElements(value->mutable_tuple_value()->mutable_values(), change, changed);
      return false;
    // Only checkpoints of earlier releases have tensors in sets.
    case v1::Value::kSetValue:
      ChangeElements(value->mutable_set_value()->mutable_values(), change, changed);
      return false;
    case v1::Value::kDictValue:
      ChangeEntries(value->mutable_dict_value()->mutable_entries(), change, changed);
      ChangeEntries(value->mutable_dict_value()->mutable_attributes(), change, changed);
      return false;
    case v1::Value::kObjectValue:
      return ChangeObject(value->mutable_object_value(), change, changed);
    case v1::Value::kTensorValue: {
      std::optional<std::string> key = change(value->tensor_value());
      if (!key.has_value()) {
        *changed = true;
        return true;
      }
      if (*key == value->tensor_value()) return false;
      value->set_tensor_value(*std::move(key));
      *changed = true;
      return false;
    }
    default:
      return false;
  }
}

}  // namespace

bool ChangeReferences(v1::Value* value, KeyChange change) {
  bool changed = false;
  if (ChangeValue(value, change, &changed)) value->set_null_value(v1::NULL_VALUE);
  return changed;
}

}  // namespace modelstore::server::modify
