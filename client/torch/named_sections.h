// The sections of one optimizer or scheduler, and of several that have names:
// `optimizer`, `optimizer.generator`.
#pragma once

#include <map>
#include <string>

#include "absl/status/statusor.h"
#include "absl/strings/str_cat.h"
#include "modelstore/torch.h"
#include "proto/contract/errors.h"
#include "proto/contract/names.h"

namespace modelstore::torch_internal {

// What is given, by its section: `one`, if any, and those of `named`. INVALID_ARGUMENT at
// `{kind}s["{name}"]` for a name that makes no section's id, and for a null pointer.
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

// Of SaveArgs and LoadArgs.
template <typename Args>
absl::StatusOr<OptimizersBySection> OptimizersOf(const Args& args) {
  return BySection<torch::optim::Optimizer>("optimizer", args.optimizer, args.optimizers);
}

}  // namespace modelstore::torch_internal
