#include "proto/contract/architecture/architecture.h"

#include <algorithm>
#include <utility>

#include "absl/container/flat_hash_map.h"
#include "absl/container/flat_hash_set.h"
#include "absl/strings/str_cat.h"
#include "proto/contract/errors.h"
#include "proto/contract/utf8.h"

namespace modelstore {
namespace {

absl::Status TooManyModules(absl::string_view field) {
  return InvalidField(field, absl::StrCat("more than ", kMaxModules, " modules"));
}

// Checks a tree. The field path is built only for an error.
class Validator {
 public:
  explicit Validator(absl::string_view field) : field_(field) {}

  absl::Status Check(const ModuleTree& module, int depth) {
    if (depth > kMaxModuleDepth) {
      return Refuse("", absl::StrCat("more than ", kMaxModuleDepth, " levels deep"));
    }
    if (++count_ > kMaxModules) return TooManyModules(field_);
    if (module.type().empty() || module.type().size() > kMaxModuleNameBytes ||
        !IsUtf8(module.type())) {
      return Refuse(
          ".type", absl::StrCat("must be 1 to ", kMaxModuleNameBytes, " bytes of UTF-8"));
    }
    if (auto s = CheckNames(module); !s.ok()) return s;
    if (auto s = CheckForward(module); !s.ok()) return s;
    // Checked with a constant name first; the path is built only for the error.
    if (!CheckArguments("arguments", module).ok()) {
      return CheckArguments(At(".arguments"), module);
    }
    for (int i = 0; i < module.children_size(); ++i) {
      path_.push_back(i);
      if (auto s = Check(module.children(i), depth + 1); !s.ok()) return s;
      path_.pop_back();
    }
    return absl::OkStatus();
  }

 private:
  std::string At(absl::string_view below) const {
    std::string at(field_);
    for (const int index : path_) absl::StrAppend(&at, ".children[", index, "]");
    return absl::StrCat(at, below);
  }

  absl::Status Refuse(absl::string_view below, absl::string_view what) const {
    return InvalidField(At(below), what);
  }

  absl::Status CheckForward(const ModuleTree& module) const {
    if (module.forward().empty()) return absl::OkStatus();
    // As above: parsed again with the full path on error.
    const StepParser parser(module);
    for (int i = 0; i < module.forward_size(); ++i) {
      if (parser.Parse("step", module.forward(i)).ok()) continue;
      const std::string at = At(absl::StrCat(".forward[", i, "]"));
      return parser.Parse(at, module.forward(i)).status();
    }
    return absl::OkStatus();
  }

  absl::Status CheckNames(const ModuleTree& module) const {
    absl::flat_hash_set<absl::string_view> names;
    for (int i = 0; i < module.children_size(); ++i) {
      const std::string& name = module.children(i).name();
      const bool taken = !names.insert(name).second;
      if (!taken && ValidateModuleName("name", name).ok()) continue;
      const std::string at = At(absl::StrCat(".children[", i, "].name"));
      if (!taken) return ValidateModuleName(at, name);
      return InvalidField(at,
                          absl::StrCat("`", ToUtf8(name, 64), "` is taken by a sibling"));
    }
    return absl::OkStatus();
  }

  const absl::string_view field_;
  std::vector<int> path_;
  int64_t count_ = 0;
};

// Stops above kMaxModules, so that a huge tree costs no more than a valid one.
void Count(const ModuleTree& module, int64_t& count) {
  ++count;
  for (const ModuleTree& child : module.children()) {
    if (count > kMaxModules) return;
    Count(child, count);
  }
}

int Depth(const ModuleTree& module) {
  int below = 0;
  for (const ModuleTree& child : module.children()) below = std::max(below, Depth(child));
  return below + 1;
}

// Depth of the module at `path`; the root has 1.
int LevelOf(absl::string_view path) {
  return path.empty() ? 1
                      : 2 + static_cast<int>(std::count(path.begin(), path.end(), '.'));
}

// Checks that `module` at `path` keeps depth and number of modules within the limits.
// `replaced` is the number of modules that it replaces.
absl::Status CheckLimits(absl::string_view field, absl::string_view path,
                         const ModuleTree& module, int64_t replaced,
                         const ModuleTree& root) {
  if (LevelOf(path) - 1 + Depth(module) > kMaxModuleDepth) {
    return InvalidField(field,
                        absl::StrCat("more than ", kMaxModuleDepth, " levels deep"));
  }
  if (CountModules(root) - replaced + CountModules(module) > kMaxModules) {
    return TooManyModules(field);
  }
  return absl::OkStatus();
}

absl::Status NoModule(absl::string_view path) {
  return DoesNotExist("module", absl::StrCat("`", path, "`"));
}

int ChildIndex(const ModuleTree& parent, absl::string_view name) {
  for (int i = 0; i < parent.children_size(); ++i) {
    if (parent.children(i).name() == name) return i;
  }
  return -1;
}

// The parent of the module at `path`, and the module's index.
struct Place {
  ModuleTree* parent;
  int index;
};

absl::StatusOr<Place> FindPlace(absl::string_view field, absl::string_view path,
                                ModuleTree& root) {
  if (path.empty()) {
    return InvalidField(field, "must name a module below the root");
  }
  const auto [parent_path, name] = SplitModulePath(path);
  ModuleTree* parent = FindModule(root, parent_path);
  const int index = parent == nullptr ? -1 : ChildIndex(*parent, name);
  if (index < 0) return NoModule(path);
  return Place{parent, index};
}

std::string StepText(const ForwardStep& step) {
  return absl::StrCat(step.function, "(", step.operand, ")");
}

}  // namespace

absl::Status ValidateModuleName(absl::string_view field, absl::string_view name) {
  const bool fits = !name.empty() && name.size() <= kMaxModuleNameBytes && IsUtf8(name) &&
                    name.find('.') == absl::string_view::npos;
  if (fits) return absl::OkStatus();
  return InvalidField(field,
                      absl::StrCat("a module's name must be 1 to ", kMaxModuleNameBytes,
                                   " bytes of UTF-8 without dots"));
}

absl::Status ValidateArchitecture(absl::string_view field,
                                  const v1::Architecture& architecture) {
  if (!architecture.has_root()) return InvalidField(field, "has no root");
  const std::string root = absl::StrCat(field, ".root");
  return Validator(root).Check(architecture.root(), 1);
}

int64_t CountModules(const ModuleTree& root) {
  int64_t count = 0;
  Count(root, count);
  return count;
}

ModuleTree* FindModule(ModuleTree& root, absl::string_view path) {
  ModuleTree* module = &root;
  while (!path.empty()) {
    const size_t dot = path.find('.');
    const int index = ChildIndex(*module, path.substr(0, dot));
    // A path must not end in a dot.
    if (index < 0 || dot + 1 == path.size()) return nullptr;
    module = module->mutable_children(index);
    path = dot == absl::string_view::npos ? "" : path.substr(dot + 1);
  }
  return module;
}

const ModuleTree* FindModule(const ModuleTree& root, absl::string_view path) {
  return FindModule(const_cast<ModuleTree&>(root), path);
}

std::pair<absl::string_view, absl::string_view> SplitModulePath(absl::string_view path) {
  const size_t dot = path.rfind('.');
  if (dot == absl::string_view::npos) return {"", path};
  return {path.substr(0, dot), path.substr(dot + 1)};
}

std::string JoinModulePath(absl::string_view parent, absl::string_view name) {
  return parent.empty() ? std::string(name) : absl::StrCat(parent, ".", name);
}

absl::StatusOr<InForward> AddModule(absl::string_view field, absl::string_view path,
                                    ModuleTree module, bool append_to_forward,
                                    ModuleTree& root) {
  const auto [parent_path, name] = SplitModulePath(path);
  if (auto s = ValidateModuleName(field, name); !s.ok()) return s;
  ModuleTree* parent = FindModule(root, parent_path);
  if (parent == nullptr) return NoModule(parent_path);
  if (ChildIndex(*parent, name) >= 0) {
    return AlreadyExists("module", absl::StrCat("`", path, "`"));
  }
  if (auto s = CheckLimits(field, path, module, 0, root); !s.ok()) return s;
  const bool implied = parent->type() == "Sequential" && parent->forward().empty();
  const bool written = append_to_forward && !parent->forward().empty();
  if (written) parent->add_forward(std::string(name));
  module.set_name(std::string(name));
  *parent->add_children() = std::move(module);
  return implied || written ? InForward::kYes : InForward::kNo;
}

absl::Status ReplaceModule(absl::string_view field, absl::string_view path,
                           ModuleTree module, ModuleTree& root) {
  ModuleTree* old = FindModule(root, path);
  if (old == nullptr) return NoModule(path);
  if (auto s = CheckLimits(field, path, module, CountModules(*old), root); !s.ok()) {
    return s;
  }
  module.set_name(old->name());
  *old = std::move(module);
  return absl::OkStatus();
}

absl::Status RemoveModule(absl::string_view field, absl::string_view path,
                          ModuleTree& root) {
  const absl::StatusOr<Place> place = FindPlace(field, path, root);
  if (!place.ok()) return place.status();
  ModuleTree& parent = *place->parent;
  const std::string name = parent.children(place->index).name();
  std::vector<std::string> steps;
  const StepParser parser(parent);
  for (const std::string& text : parent.forward()) {
    const auto step = parser.Parse(field, text);
    const bool names_it = step.ok() && (step->child == name || step->operand == name);
    if (!names_it) steps.push_back(text);
  }
  parent.mutable_forward()->Assign(steps.begin(), steps.end());
  parent.mutable_children()->DeleteSubrange(place->index, 1);
  return absl::OkStatus();
}

absl::Status RenameChildren(absl::string_view field,
                            const std::vector<std::string>& names, ModuleTree& parent) {
  absl::flat_hash_map<std::string, std::string> new_names;
  absl::flat_hash_set<absl::string_view> taken;
  for (int c = 0; c < parent.children_size(); ++c) {
    if (auto s = ValidateModuleName(field, names[c]); !s.ok()) return s;
    if (!taken.insert(names[c]).second) {
      return AlreadyExists("module", absl::StrCat("`", names[c], "`"));
    }
    if (parent.children(c).name() != names[c]) {
      new_names.emplace(parent.children(c).name(), names[c]);
    }
  }
  if (new_names.empty()) return absl::OkStatus();
  const StepParser parser(parent);
  for (std::string& text : *parent.mutable_forward()) {
    auto step = parser.Parse(field, text);
    if (!step.ok()) continue;
    if (auto child = new_names.find(step->child); child != new_names.end()) {
      text = child->second;
    } else if (auto operand = new_names.find(step->operand); operand != new_names.end()) {
      step->operand = operand->second;
      text = StepText(*step);
    }
  }
  for (int c = 0; c < parent.children_size(); ++c) {
    parent.mutable_children(c)->set_name(names[c]);
  }
  return absl::OkStatus();
}

absl::Status RenameModule(absl::string_view field, absl::string_view path,
                          absl::string_view new_name, ModuleTree& root) {
  if (auto s = ValidateModuleName(field, new_name); !s.ok()) return s;
  const absl::StatusOr<Place> place = FindPlace(field, path, root);
  if (!place.ok()) return place.status();
  std::vector<std::string> names;
  for (const ModuleTree& child : place->parent->children()) names.push_back(child.name());
  names[place->index] = std::string(new_name);
  return RenameChildren(field, names, *place->parent);
}

std::vector<std::string> ForwardSteps(const ModuleTree& module) {
  if (!module.forward().empty() || module.type() != "Sequential") {
    return {module.forward().begin(), module.forward().end()};
  }
  std::vector<std::string> steps;
  for (const ModuleTree& child : module.children()) steps.push_back(child.name());
  return steps;
}

}  // namespace modelstore
