#include "client/torch/settings.h"

#include <algorithm>
#include <variant>

#include "absl/strings/str_cat.h"
#include "client/torch/optimizer_table.h"

namespace modelstore::torch_internal {

const std::vector<Value>* ListOf(const Value* value) {
  const auto* sequence =
      value ? std::get_if<Value::Sequence>(&value->variant()) : nullptr;
  return sequence ? &sequence->values : nullptr;
}

bool IsNumber(const Value& value) { return NumberOf(value).has_value(); }

std::string TextOf(const Value& value) {
  return value.AsString().value_or(value.ToString());
}

bool SameSetting(const Value& a, const Value& b) {
  if (IsNumber(a) && IsNumber(b)) return *NumberOf(a) == *NumberOf(b);
  const std::vector<Value>*x = ListOf(&a), *y = ListOf(&b);
  if (x != nullptr && y != nullptr) {
    return std::equal(x->begin(), x->end(), y->begin(), y->end(), SameSetting);
  }
  return a == b;
}

std::string SettingsText(const std::vector<LoadReport::SettingChange>& changes) {
  std::string text;
  for (const LoadReport::SettingChange& change : changes) {
    absl::StrAppend(&text, text.empty() ? "" : "; ", "`", change.name, "` is ",
                    change.stored.empty() ? "not set" : change.stored,
                    " in the checkpoint and ",
                    change.here.empty() ? "not known" : change.here, " here");
  }
  return text;
}

}  // namespace modelstore::torch_internal
