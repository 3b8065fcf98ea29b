#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "client/torch/element_type.h"
#include "client/torch/settings.h"
#include "modelstore/torch.h"

namespace modelstore {
namespace {

absl::string_view Name(DType dtype) {
  const std::string_view name = DTypeName(dtype);
  return absl::string_view(name.data(), name.size());
}

void AddList(std::string& text, absl::string_view what,
             const std::vector<std::string>& keys) {
  if (keys.empty()) return;
  absl::StrAppend(&text, what, " (", keys.size(), "): ", absl::StrJoin(keys, ", "), "\n");
}

void AddChanges(std::string& text, absl::string_view what,
                const std::vector<LoadReport::SettingChange>& changes) {
  if (changes.empty()) return;
  absl::StrAppend(&text, what, ": ", torch_internal::SettingsText(changes), "\n");
}

}  // namespace

std::string LoadReport::ToString() const {
  std::string text;
  AddList(text, "missing", missing);
  AddList(text, "unexpected", unexpected);
  for (const ShapeMismatch& m : shape_mismatch) {
    absl::StrAppend(&text, "shape: ", m.key, " is ", torch_internal::ShapeText(m.stored),
                    " in the checkpoint and ", torch_internal::ShapeText(m.wanted),
                    " here\n");
  }
  for (const DTypeChange& c : dtype_change) {
    absl::StrAppend(&text, "dtype: ", c.key, " is ", Name(c.stored),
                    " in the checkpoint and ", Name(c.wanted), " here\n");
  }
  AddList(text, "sections that the checkpoint does not have", absent_sections);
  AddChanges(text, "taken from the checkpoint", hyperparameters);
  AddChanges(text, "left as it is here", settings);
  for (const auto& [name, other] : overwritten) {
    absl::StrAppend(&text, "overwritten: ", name, " shares memory with ", other,
                    ", which has other values\n");
  }
  AddList(text, "not cast, as not of floating point", uncast);
  AddList(text, "skipped", skipped);
  for (const auto& [stored, here] : renamed) {
    absl::StrAppend(&text, "renamed: ", stored, " is ", here, " here\n");
  }
  AddList(text, "state adopted in parameter order, without names", inferred);
  for (const std::string& why : fell_back) {
    absl::StrAppend(&text, "on the cpu instead: ", why, "\n");
  }
  AddList(text, "placement patterns that placed no tensor", unused_placement);
  AddList(text, "loaded", loaded);
  AddList(text, "untouched", untouched);
  AddList(text, "undefined", undefined);
  return text;
}

}  // namespace modelstore
