// Edits that add, replace, remove and rename modules, with their tensors.
#include <algorithm>
#include <optional>
#include <set>
#include <utility>

#include "absl/algorithm/container.h"
#include "absl/container/flat_hash_map.h"
#include "absl/container/flat_hash_set.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "proto/contract/architecture/architecture.h"
#include "proto/contract/architecture/text.h"
#include "server/modify/apply_edit.h"
#include "server/modify/module_metadata.h"
#include "server/modify/module_tensors.h"
#include "server/modify/optimizer_index.h"

namespace modelstore::server::modify {
namespace {

// Converts new tensors of the module at `path` to records for the table.
std::vector<WorkingTensor> AsWorking(std::vector<NewTensor> made,
                                     absl::string_view path) {
  std::vector<WorkingTensor> tensors;
  for (NewTensor& fresh : made) {
    WorkingTensor& tensor = tensors.emplace_back();
    tensor.section = "model";
    tensor.key = JoinModulePath(path, fresh.spec.key);
    tensor.dtype = fresh.spec.dtype;
    tensor.shape = std::move(fresh.spec.shape);
    tensor.role = fresh.spec.buffer ? v1::TENSOR_ROLE_BUFFER : v1::TENSOR_ROLE_PARAMETER;
    tensor.requires_grad = !fresh.spec.buffer;
    tensor.source = std::move(fresh.source);
  }
  return tensors;
}

// Adds to `paths` the modules that precede the one at `path` in state_dict() order: depth
// first, each before its children. Returns whether `path` was found.
bool PathsBefore(const ModuleTree& module, const std::string& at, absl::string_view path,
                 absl::flat_hash_set<std::string>& paths) {
  if (at == path) return true;
  paths.insert(at);
  for (const ModuleTree& child : module.children()) {
    if (PathsBefore(child, JoinModulePath(at, child.name()), path, paths)) return true;
  }
  return false;
}

// Position in the table for the tensors of a new module at `path`: after the tensors of
// all modules before it. Without an architecture, after the tensors of its siblings.
size_t PlaceOf(const WorkingCheckpoint& checkpoint, absl::string_view path) {
  const auto& tensors = checkpoint.tensors();
  const auto& architecture = checkpoint.architecture();
  absl::flat_hash_set<std::string> before;
  if (architecture.has_value()) PathsBefore(architecture->root(), "", path, before);
  const absl::string_view parent = SplitModulePath(path).first;
  size_t place = 0, end = 0;
  for (size_t t = 0; t < tensors.size(); ++t) {
    if (tensors[t].section != "model") continue;
    end = t + 1;
    const bool behind = architecture.has_value()
                            ? before.contains(SplitModulePath(tensors[t].key).first)
                            : parent.empty() || IsUnder(tensors[t], parent);
    if (behind) place = t + 1;
  }
  return place == 0 && !architecture.has_value() ? end : place;
}

// The parameter group that an edit requests for its new parameters.
struct RequestedGroup {
  std::string optimizer;  // its section; empty: not given
  std::optional<int> group;
};

std::string GroupsText(const OptimizerGroups& groups, const OptimizerIndexes& all) {
  return absl::StrJoin(groups, ", ", [&](std::string* text, const OptimizerGroup& group) {
    absl::StrAppend(text, "group ", group.group, " of `", all[group.optimizer]->section(),
                    "`");
  });
}

// The optimizers that new parameters may join: the one that the edit names, or all whose
// section still exists.
absl::StatusOr<OptimizerIndexes> ChooseOptimizers(const std::string& given,
                                                  const OptimizerIndexes& all,
                                                  const EditContext& context) {
  const std::vector<std::string> there = context.checkpoint.SectionNames();
  OptimizerIndexes chosen;
  for (const OptimizerIndex* index : all) {
    if (!given.empty() && index->section() != given) continue;
    if (index->is_optimizer() && absl::c_linear_search(there, index->section())) {
      chosen.push_back(index);
    }
  }
  if (given.empty() || !chosen.empty()) return chosen;
  return context.Invalid("optimizer",
                         absl::StrCat("there is no optimizer in section `", given, "`"));
}

// The optimizer that is meant if an edit gives a group by its number alone: the only one,
// or the only one that has parameters near the module.
absl::StatusOr<const OptimizerIndex*> OptimizerOfGroup(
    const std::vector<OptimizerGroups>& near, const OptimizerIndexes& all,
    const OptimizerIndexes& chosen, const EditContext& context) {
  if (chosen.size() == 1) return chosen[0];
  std::set<int> positions;
  for (const OptimizerGroups& groups : near) {
    for (const OptimizerGroup& group : groups) positions.insert(group.optimizer);
  }
  if (positions.size() == 1) return all[*positions.begin()];
  return context.Invalid(
      "optimizer", absl::StrCat("is required: the checkpoint has ", chosen.size(),
                                " optimizers, such as `", chosen[0]->section(), "` and `",
                                chosen[1]->section(), "`"));
}

// The groups for one new parameter: the requested ones, or those in `near` if they agree.
// An error asks for a choice if there are several.
absl::StatusOr<OptimizerGroups> ChooseGroups(const RequestedGroup& given,
                                             const std::vector<OptimizerGroups>& near,
                                             const OptimizerIndexes& all,
                                             const OptimizerIndexes& chosen,
                                             const EditContext& context) {
  if (given.group.has_value()) {
    auto index = OptimizerOfGroup(near, all, chosen, context);
    if (!index.ok()) return index.status();
    if (*given.group >= 0 && *given.group < (*index)->group_count()) {
      return OptimizerGroups{{(*index)->position(), *given.group}};
    }
    return context.Invalid("optimizer_group",
                           absl::StrCat("`", (*index)->section(), "` has ",
                                        (*index)->group_count(), " parameter group(s)"));
  }
  if (near.size() > 1) {
    const bool same_optimizers = absl::c_equal(
        near[0], near[1],
        [](const auto& a, const auto& b) { return a.optimizer == b.optimizer; });
    return context.Invalid(
        same_optimizers ? "optimizer_group" : "optimizer",
        absl::StrCat("is required: the nearest parameters are in several groups, such "
                     "as ",
                     GroupsText(near[0], all), " and ", GroupsText(near[1], all)));
  }
  if (near.size() == 1) return near[0];
  // Nothing is near, or the optimizers are not resolved: a choice is needed if there is
  // more than one group.
  OptimizerGroups any;
  int groups = 0;
  for (const OptimizerIndex* index : chosen) {
    groups += index->group_count();
    if (index->group_count() > 0) any.push_back({index->position(), 0});
  }
  if (groups <= 1) return any;
  return context.Invalid(
      any.size() > 1 ? "optimizer" : "optimizer_group",
      absl::StrCat("is required: there are ", groups,
                   " parameter groups, and it is not known which holds what is near"));
}

bool HasParameters(const std::vector<WorkingTensor>& tensors) {
  return std::any_of(tensors.begin(), tensors.end(), [](const WorkingTensor& tensor) {
    return tensor.role == v1::TENSOR_ROLE_PARAMETER;
  });
}

// Chooses the groups for the new parameters of the module at `path`. Unless the edit
// requests one, a parameter joins the groups of the one that it replaces by key, else
// those of all parameters that the module replaces, else those of the nearest parameters.
absl::Status AssignGroups(const RequestedGroup& given, absl::string_view path,
                          std::vector<WorkingTensor>& tensors, EditContext& context) {
  if (!HasParameters(tensors)) return absl::OkStatus();
  auto all = context.resources.Optimizers();
  if (!all.ok()) return all.status();
  auto chosen = ChooseOptimizers(given.optimizer, *all, context);
  if (!chosen.ok()) return chosen.status();
  if (chosen->empty()) return absl::OkStatus();
  absl::flat_hash_map<std::string, OptimizerGroups> by_key;
  std::vector<OptimizerGroups> near;
  for (const WorkingTensor& tensor : context.checkpoint.tensors()) {
    if (!IsUnder(tensor, path)) continue;
    OptimizerGroups groups = GroupsOf(*chosen, tensor);
    if (groups.empty()) continue;
    // Two different sets are enough for the error of ChooseGroups().
    if (near.empty() || (near.size() == 1 && near[0] != groups)) near.push_back(groups);
    by_key.emplace(tensor.key, std::move(groups));
  }
  if (near.empty()) {
    const auto borrowed = context.resources.Borrow(context.checkpoint.PathBytes("model"));
    if (!borrowed.ok()) return borrowed.status();
    near = NearGroups(*chosen, context.checkpoint).Of(path);
  }
  for (WorkingTensor& tensor : tensors) {
    if (tensor.role != v1::TENSOR_ROLE_PARAMETER) continue;
    auto same = by_key.find(tensor.key);
    if (!given.group.has_value() && same != by_key.end()) {
      tensor.optimizer_groups = same->second;
      continue;
    }
    auto groups = ChooseGroups(given, near, *all, *chosen, context);
    if (!groups.ok()) return groups.status();
    tensor.optimizer_groups = *std::move(groups);
  }
  return absl::OkStatus();
}

RequestedGroup GivenBy(const auto& edit) {
  std::optional<int> group;
  if (edit.has_optimizer_group()) group = edit.optimizer_group();
  return {edit.optimizer(), group};
}

// Checks the path of a new module by the keys of tensors, if there is no architecture.
absl::Status CheckNameFromKeys(const EditContext& context, absl::string_view path) {
  const auto [parent, name] = SplitModulePath(path);
  if (auto s = ValidateModuleName(context.Field("path"), name); !s.ok()) return s;
  if (!parent.empty() && !HasTensorsUnder(context.checkpoint, parent)) {
    return context.Missing("path", "module", parent);
  }
  if (HasTensorsUnder(context.checkpoint, path)) {
    return context.NameInUse("path", "module", path);
  }
  return absl::OkStatus();
}

// Parses the module that an edit adds, after checking that its arguments are given.
absl::StatusOr<ModuleTree> ParseNew(const EditContext& context, const std::string& path,
                                    const std::string& text) {
  if (path.empty()) return context.Invalid("path", "is required");
  if (text.empty()) return context.Invalid("module", "is required");
  return ParseModule(context.Field("module"), text);
}

// Handles the old tensors under `path` that are tied to a tensor outside it, unless the
// edit says `untie`: they and their group get the new bytes and are not replaced. Removes
// their counterparts from `tensors` and adds their keys to `stay`.
absl::Status KeepTies(absl::string_view path, std::vector<WorkingTensor>& tensors,
                      absl::flat_hash_set<std::string>& stay, EditContext& context) {
  absl::Status status;
  std::erase_if(tensors, [&](WorkingTensor& fresh) {
    WorkingTensor* old = context.checkpoint.Find("model", fresh.key);
    // erase_if() cannot be stopped: after an error, the rest is skipped.
    if (old == nullptr || context.untie || !status.ok()) return false;
    status.Update(context.resources.CheckCancelled());
    const auto group = context.checkpoint.TiedTo(*old);
    const bool tied_elsewhere =
        std::any_of(group.begin(), group.end(),
                    [&](const WorkingTensor* other) { return !IsUnder(*other, path); });
    if (!tied_elsewhere) return false;
    status.Update(ReplaceBytes(context, *old, fresh.source, fresh.dtype, fresh.shape));
    stay.insert(fresh.key);
    return true;
  });
  return status;
}

}  // namespace

absl::Status ApplyAddModule(const v1::Edit::AddModule& edit, EditContext& context) {
  auto module = ParseNew(context, edit.path(), edit.module());
  if (!module.ok()) return module.status();
  if (context.checkpoint.Find("model", edit.path()) != nullptr) {
    return context.NameInUse("path", "tensor", edit.path());
  }
  const NeighbourWatch watch(context);
  ModuleTree* tree = TreeOf(context, edit.path());
  MetadataEntries metadata = MetadataOf(*module, edit.path());
  v1::Initialization how = edit.initialization();
  auto made = MakeTensors(*module, how, context);
  if (!made.ok()) return made.status();
  if (how.has_seed()) {
    *context.resolved.mutable_add_module()->mutable_initialization() = how;
  }
  if (tree == nullptr) {
    if (auto s = CheckNameFromKeys(context, edit.path()); !s.ok()) return s;
  } else {
    auto flow = AddModule(context.Field("path"), edit.path(), *std::move(module),
                          edit.in_forward(), *tree);
    if (!flow.ok()) return AtPath(context, flow.status());
    if (*flow == InForward::kNo) {
      context.Warn(Warning::KIND_NOT_IN_FORWARD, edit.path(),
                   "was registered, as PyTorch's add_module does: no forward reaches "
                   "it; in_forward appends it to one that is written down");
    }
  }
  std::vector<WorkingTensor> tensors = AsWorking(*std::move(made), edit.path());
  auto s = AssignGroups(GivenBy(edit), edit.path(), tensors, context);
  if (!s.ok()) return s;
  s = context.checkpoint.Insert(PlaceOf(context.checkpoint, edit.path()),
                                std::move(tensors));
  if (!s.ok()) return context.At("path", s);
  watch.Warn(context);
  return ReplaceMetadata(edit.path(), std::move(metadata), context.checkpoint);
}

absl::Status ApplyReplaceModule(const v1::Edit::ReplaceModule& edit,
                                EditContext& context) {
  auto module = ParseNew(context, edit.path(), edit.module());
  if (!module.ok()) return module.status();
  const NeighbourWatch watch(context);
  ModuleTree* tree = TreeOf(context, edit.path());
  MetadataEntries metadata = MetadataOf(*module, edit.path());
  v1::Initialization how = edit.initialization();
  auto made = MakeTensors(*module, how, context);
  if (!made.ok()) return made.status();
  if (how.has_seed()) {
    *context.resolved.mutable_replace_module()->mutable_initialization() = how;
  }
  if (tree != nullptr) {
    auto s = ReplaceModule(context.Field("path"), edit.path(), *std::move(module), *tree);
    if (!s.ok()) return AtPath(context, s);
  } else if (!HasTensorsUnder(context.checkpoint, edit.path())) {
    return context.Missing("path", "module", edit.path());
  }
  std::vector<WorkingTensor> tensors = AsWorking(*std::move(made), edit.path());
  auto s = AssignGroups(GivenBy(edit), edit.path(), tensors, context);
  if (!s.ok()) return s;
  // Groups are assigned above, before the old tensors are erased: the new ones inherit
  // theirs.
  size_t place = PlaceOf(context.checkpoint, edit.path());
  const auto& present = context.checkpoint.tensors();
  // The new tensors go where the first old one was.
  for (size_t t = present.size(); t-- > 0;) {
    if (IsUnder(present[t], edit.path())) place = t;
  }
  absl::flat_hash_set<std::string> stay;
  if (s = KeepTies(edit.path(), tensors, stay, context); !s.ok()) return s;
  auto erased = context.checkpoint.EraseIf([&](const WorkingTensor& tensor) {
    return IsUnder(tensor, edit.path()) && !stay.contains(tensor.key);
  });
  if (!erased.ok()) return erased.status();
  s = context.checkpoint.Insert(place, std::move(tensors));
  if (!s.ok()) return context.At("path", s);
  watch.Warn(context);
  return ReplaceMetadata(edit.path(), std::move(metadata), context.checkpoint);
}

absl::Status ApplyRemoveModule(const v1::Edit::RemoveModule& edit, EditContext& context) {
  if (edit.path().empty()) return context.Invalid("path", "is required");
  const NeighbourWatch watch(context);
  ModuleTree* tree = TreeOf(context, edit.path());
  if (tree != nullptr) {
    auto s = RemoveModule(context.Field("path"), edit.path(), *tree);
    if (!s.ok()) return AtPath(context, s);
  } else if (!HasTensorsUnder(context.checkpoint, edit.path())) {
    return context.Missing("path", "module", edit.path());
  }
  auto erased = context.checkpoint.EraseIf(
      [&](const WorkingTensor& tensor) { return IsUnder(tensor, edit.path()); });
  if (!erased.ok()) return erased.status();
  watch.Warn(context);
  return ReplaceMetadata(edit.path(), {}, context.checkpoint);
}

absl::Status ApplyRenameModule(const v1::Edit::RenameModule& edit, EditContext& context) {
  if (edit.path().empty()) return context.Invalid("path", "is required");
  auto s = ValidateModuleName(context.Field("new_name"), edit.new_name());
  if (!s.ok()) return s;
  const std::string target =
      JoinModulePath(SplitModulePath(edit.path()).first, edit.new_name());
  if (target == edit.path()) return absl::OkStatus();
  ModuleTree* tree = TreeOf(context, edit.path());
  const bool moves = HasTensorsUnder(context.checkpoint, edit.path());
  if (tree == nullptr && !moves) return context.Missing("path", "module", edit.path());
  if (HasTensorsUnder(context.checkpoint, target) ||
      context.checkpoint.Find("model", target) != nullptr) {
    return context.NameInUse("new_name", "module", target);
  }
  if (tree != nullptr) {
    s = RenameModule(context.Field("new_name"), edit.path(), edit.new_name(), *tree);
    const bool taken = s.code() == absl::StatusCode::kAlreadyExists;
    if (!s.ok()) return taken ? context.At("new_name", s) : AtPath(context, s);
  }
  s = context.checkpoint.Rename("model", [&](const WorkingTensor& tensor) {
    if (!IsUnder(tensor, edit.path())) return tensor.key;
    return absl::StrCat(target, tensor.key.substr(edit.path().size()));
  });
  if (!s.ok()) return context.At("new_name", s);
  s = context.checkpoint.RenameMetadata(
      "model", [&](absl::string_view path) -> std::optional<std::string> {
        const std::string prefix = absl::StrCat(edit.path(), ".");
        if (path == edit.path()) return target;
        if (!absl::StartsWith(path, prefix)) return std::string(path);
        return absl::StrCat(target, path.substr(edit.path().size()));
      });
  return context.At("new_name", s);
}

}  // namespace modelstore::server::modify
