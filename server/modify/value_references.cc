#include "server/modify/value_references.h"

#include <utility>

namespace modelstore::server::modify {
namespace {

// Returns whether the value itself named a tensor that is gone.
bool ChangeValue(v1::Value* value, KeyChange change, bool* changed);

void ChangeElements(v1::ListValue* list, KeyChange change, bool* changed) {
  for (v1::Value& element : *list->mutable_values()) {
    if (ChangeValue(&element, change, changed)) element.set_null_value(v1::NULL_VALUE);
  }
}

void ChangeEntries(v1::DictValue* dict, KeyChange change, bool* changed) {
  auto& entries = *dict->mutable_entries();
  int kept = 0;
  for (int i = 0; i < entries.size(); ++i) {
    if (ChangeValue(entries[i].mutable_value(), change, changed)) continue;
    if (kept != i) entries.SwapElements(kept, i);
    ++kept;
  }
  while (entries.size() > kept) entries.RemoveLast();
}

bool ChangeValue(v1::Value* value, KeyChange change, bool* changed) {
  switch (value->kind_case()) {
    case v1::Value::kListValue:
      ChangeElements(value->mutable_list_value(), change, changed);
      return false;
    case v1::Value::kTupleValue:
      ChangeElements(value->mutable_tuple_value(), change, changed);
      return false;
    case v1::Value::kSetValue:
      ChangeElements(value->mutable_set_value(), change, changed);
      return false;
    case v1::Value::kDictValue:
      ChangeEntries(value->mutable_dict_value(), change, changed);
      return false;
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
