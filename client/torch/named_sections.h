// Sections of optimizers and schedulers: `optimizer` for the unnamed one, and
// `optimizer.generator` for one named `generator`.
#pragma once

#include <map>
#include <string>

#include "absl/status/statusor.h"
#include "absl/strings/str_cat.h"
#include "modelstore/torch.h"
#include "proto/contract/errors.h"
#include "proto/contract/names.h"

namespace modelstore::torch_internal {

// Returns `one`, if not null, and the objects of `named` by section. INVALID_ARGUMENT,
// with field `{kind}s["{name}"]`, for a name that gives no valid section id, and for a
// null pointer.
template <typename T>
absl::StatusOr<std::map<std::string, T*>> BySection(
    absl::string_view kind, T* one, const std::map<std::string, T*>& named) {
  std::map<std::string, T*> sections;
  if (one != nullptr) sections.emplace(std::string(kind), one);
  for (const auto& [name, object] : named) {
    const std::string field = absl::StrCat(kind, "s[\"", name, "\"]");
    const std::string section = absl::StrCat(kind, ".", name);
    if (name.empty()) return InvalidField(field, "the name is empty");
    if (absl::Status s = ValidateSectionId(field, section); !s.ok()) return s;
    if (object == nullptr) return InvalidField(field, "is null");
    sections.emplace(section, object);
  }
  return sections;
}

using OptimizersBySection = std::map<std::string, torch::optim::Optimizer*>;

// The optimizers of SaveArgs or LoadArgs by section.
template <typename Args>
absl::StatusOr<OptimizersBySection> OptimizersOf(const Args& args) {
  return BySection<torch::optim::Optimizer>("optimizer", args.optimizer, args.optimizers);
}

}  // namespace modelstore::torch_internal
