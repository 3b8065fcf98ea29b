#include "server/modify/path_renames.h"

#include <algorithm>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "absl/strings/strip.h"
#include "proto/contract/architecture/architecture.h"
#include "server/modify/module_metadata.h"

namespace modelstore::server::modify {
namespace {

// The path of a module once its keys have lost `prefix`. With prefix `module.`, `module`
// becomes the root (the empty path), `module.fc` becomes `fc`, and `fc` has no new path.
std::optional<std::string> StripPath(absl::string_view path, absl::string_view prefix) {
  if (absl::StrCat(path, ".") == prefix) return std::string();
  if (absl::StartsWith(path, prefix)) return std::string(absl::StripPrefix(path, prefix));
  return std::nullopt;
}

// The path of a module once its keys have got `prefix`.
std::string AddPath(absl::string_view path, absl::string_view prefix) {
  if (path.empty()) return std::string(absl::StripSuffix(prefix, "."));
  return absl::StrCat(prefix, path);
}

// The prefix that `longer` has before `shorter`, if it ends in a dot; else empty.
std::string PrefixBefore(absl::string_view longer, absl::string_view shorter) {
  if (!absl::ConsumeSuffix(&longer, shorter)) return "";
  return absl::EndsWith(longer, ".") ? std::string(longer) : "";
}

// Replaces the root by the module at the path of `prefix`. Each module on the way must be
// the only child of its parent, because its siblings would be lost. Returns the reason if
// not.
std::string Promote(absl::string_view prefix, ModuleTree& root) {
  const ModuleTree* module = &root;
  for (const absl::string_view name :
       absl::StrSplit(absl::StripSuffix(prefix, "."), '.')) {
    if (module->children_size() != 1 || module->children(0).name() != name) {
      return absl::StrCat("`", prefix, "` is no module that stands alone");
    }
    module = &module->children(0);
  }
  ModuleTree promoted = *module;
  promoted.clear_name();
  root = std::move(promoted);
  return "";
}

// Puts a Sequential around the root for each name in `prefix`, the innermost first: it
// runs its child and gives the keys that name. Returns the reason if the result is
// invalid.
std::string Wrap(absl::string_view prefix, ModuleTree& root) {
  std::vector<std::string> names = absl::StrSplit(absl::StripSuffix(prefix, "."), '.');
  std::reverse(names.begin(), names.end());
  for (const std::string& name : names) {
    if (!ValidateModuleName("prefix", name).ok()) {
      return absl::StrCat("`", prefix, "` is no path of a module");
    }
    ModuleTree outer;
    outer.set_type("Sequential");
    outer.set_training(root.training());
    *outer.add_children() = std::move(root);
    outer.mutable_children(0)->set_name(name);
    root = std::move(outer);
  }
  v1::Architecture architecture;
  *architecture.mutable_root() = root;
  const auto fits = ValidateArchitecture("architecture", architecture);
  return fits.ok() ? "" : std::string(fits.message());
}

}  // namespace

PathRenames::PathRenames(const KeyPairs& keys) {
  FindPrefix(keys);
  if (!stripped_.empty() || !added_.empty()) return;
  for (const auto& [old_key, new_key] : keys) FindNames(old_key, new_key);
}

void PathRenames::FindPrefix(const KeyPairs& keys) {
  if (keys.empty()) return;
  // The first key gives the candidates, and the other keys must agree.
  const auto& [old_key, new_key] = keys.front();
  std::string stripped = PrefixBefore(old_key, new_key);
  std::string added = PrefixBefore(new_key, old_key);
  for (const auto& [old_one, new_one] : keys) {
    if (stripped.empty() || old_one != absl::StrCat(stripped, new_one)) stripped.clear();
    if (added.empty() || new_one != absl::StrCat(added, old_one)) added.clear();
    if (stripped.empty() && added.empty()) return;
  }
  stripped_ = std::move(stripped);
  added_ = std::move(added);
}

void PathRenames::FindNames(absl::string_view old_key, absl::string_view new_key) {
  const std::vector<absl::string_view> before = absl::StrSplit(old_key, '.');
  const std::vector<absl::string_view> after = absl::StrSplit(new_key, '.');
  absl::string_view path;
  const bool moved = before.size() != after.size();
  if (moved && moved_.empty()) moved_ = absl::StrCat(old_key, " became ", new_key);
  // All elements but the last are modules. `path` runs through their old paths, as views
  // of `old_key`.
  for (size_t i = 0; i + 1 < before.size(); ++i) {
    path = old_key.substr(0, before[i].data() + before[i].size() - old_key.data());
    std::optional<absl::string_view> name;
    if (!moved) name = after[i];
    auto [known, fresh] = names_.try_emplace(path, name);
    if (fresh || known->second == name) continue;
    // A module keeps its name if one of its tensors does, whatever the others say.
    const bool stays = name == before[i] || known->second == before[i];
    known->second.reset();
    if (stays) known->second = before[i];
  }
  // `path` is now that of the innermost module, which owns the tensor.
  if (!moved && before.back() != after.back()) changed_.insert(path);
}

std::optional<std::string> PathRenames::Of(absl::string_view path) const {
  if (!stripped_.empty()) return StripPath(path, stripped_);
  if (!added_.empty()) return AddPath(path, added_);
  if (path.empty()) return std::string();
  std::string new_path;
  // Replaces the names one by one, from the root: [begin, end) is a name in `path`.
  for (size_t end = 0; end < path.size(); ++end) {
    const size_t begin = end;
    end = std::min(path.find('.', begin), path.size());
    auto known = names_.find(path.substr(0, end));
    if (known != names_.end() && !known->second.has_value()) return std::nullopt;
    absl::StrAppend(
        &new_path, new_path.empty() ? "" : ".",
        known == names_.end() ? path.substr(begin, end - begin) : *known->second);
  }
  return new_path;
}

std::vector<std::string> PathRenames::Wrappers() const {
  std::vector<std::string> paths;
  absl::string_view path = absl::StripSuffix(added_, ".");
  while (!path.empty()) {
    path = SplitModulePath(path).first;
    paths.emplace_back(path);
  }
  std::reverse(paths.begin(), paths.end());
  return paths;
}

std::string PathRenames::Apply(ModuleTree& root,
                               std::vector<std::string>& incomplete) const {
  if (!stripped_.empty()) return Promote(stripped_, root);
  if (!added_.empty()) return Wrap(added_, root);
  if (!moved_.empty()) return moved_;
  return ApplyBelow(root, "", "", incomplete);
}

std::string PathRenames::ApplyBelow(ModuleTree& module, const std::string& path,
                                    const std::string& new_path,
                                    std::vector<std::string>& incomplete) const {
  if (changed_.contains(path)) {
    module.set_incomplete(true);
    incomplete.push_back(new_path);
  }
  std::vector<std::string> names, paths;
  for (const ModuleTree& child : module.children()) {
    paths.push_back(JoinModulePath(path, child.name()));
    auto known = names_.find(paths.back());
    if (known != names_.end() && !known->second.has_value()) {
      return absl::StrCat("tensors of ", paths.back(), " went to several modules");
    }
    // Unknown children have no tensors and keep their names.
    names.emplace_back(known == names_.end() ? child.name() : *known->second);
  }
  if (auto s = RenameChildren("replacement", names, module); !s.ok()) {
    return std::string(s.message());
  }
  for (int c = 0; c < module.children_size(); ++c) {
    std::string why = ApplyBelow(*module.mutable_children(c), paths[c],
                                 JoinModulePath(new_path, names[c]), incomplete);
    if (!why.empty()) return why;
  }
  return "";
}

namespace {

// Adds the `_metadata` entries of the modules that a new prefix puts around the root,
// before those of the old root, as state_dict() orders them.
absl::Status AddWrappers(const std::string& section, const PathRenames& renames,
                         WorkingCheckpoint& checkpoint) {
  auto metadata = checkpoint.Metadata(section);
  if (!metadata.ok()) return metadata.status();
  if (*metadata == nullptr) return absl::OkStatus();
  ModuleTree wrapper;
  wrapper.set_type("Sequential");
  v1::DictValue with;
  for (const std::string& path : renames.Wrappers()) {
    auto* entry = with.add_entries();
    entry->mutable_key()->set_string_value(path);
    *entry->mutable_value() = MetadataOf(wrapper, path)[0].second;
  }
  if (with.entries().empty()) return absl::OkStatus();
  for (auto& entry : *(*metadata)->mutable_entries()) {
    *with.add_entries() = std::move(entry);
  }
  **metadata = std::move(with);
  return absl::OkStatus();
}

}  // namespace

absl::Status FollowKeys(const std::string& section, const KeyPairs& keys,
                        EditContext& context) {
  const PathRenames renames(keys);
  auto s = context.checkpoint.RenameMetadata(
      section, [&](absl::string_view path) { return renames.Of(path); });
  if (!s.ok()) return s;
  if (s = AddWrappers(section, renames, context.checkpoint); !s.ok()) return s;
  // The architecture describes section `model` alone.
  auto& architecture = context.checkpoint.architecture();
  if (section != "model" || !architecture.has_value()) return absl::OkStatus();
  std::vector<std::string> incomplete;
  const std::string why = renames.Apply(*architecture->mutable_root(), incomplete);
  if (!why.empty()) {
    architecture.reset();
    context.Warn(Warning::KIND_ARCHITECTURE_INCOMPLETE, "",
                 absl::StrCat("the new keys are no new names of modules (", why,
                              "): the architecture was dropped"));
    return absl::OkStatus();
  }
  for (const std::string& path : incomplete) {
    context.Warn(Warning::KIND_ARCHITECTURE_INCOMPLETE, path,
                 "has tensors of other names than its type has: it cannot be built");
  }
  return absl::OkStatus();
}

}  // namespace modelstore::server::modify
