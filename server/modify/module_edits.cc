// Edits of the tree of modules, and of the tensors that come and go with them.
#include <algorithm>
#include <optional>
#include <utility>

#include "absl/container/flat_hash_map.h"
#include "absl/container/flat_hash_set.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "proto/contract/architecture/architecture.h"
#include "proto/contract/architecture/text.h"
#include "server/modify/module_edit.h"
#include "server/modify/module_metadata.h"
#include "server/modify/optimizer_index.h"

namespace modelstore::server::modify {
namespace {

std::vector<WorkingTensor> AsWorking(std::vector<NewTensor> made,
                                     absl::string_view path) {
  std::vector<WorkingTensor> tensors;
  for (NewTensor& fresh : made) {
    WorkingTensor& tensor = tensors.emplace_back();
    tensor.section = "model";
    tensor.key = JoinModulePath(path, fresh.spec.key);
    tensor.dtype = fresh.spec.dtype;
    tensor.shape = std::move(fresh.spec.shape);
    tensor.role = fresh.spec.buffer ? v1::BUFFER : v1::PARAMETER;
    tensor.requires_grad = !fresh.spec.buffer;
    tensor.source = std::move(fresh.source);
  }
  return tensors;
}

// Paths of the modules before the one at `path` in the order of state_dict().
// Returns whether it was reached.
bool PathsBefore(const ModuleTree& module, const std::string& at, absl::string_view path,
                 absl::flat_hash_set<std::string>& paths) {
  if (at == path) return true;
  paths.insert(at);
  for (const ModuleTree& child : module.children()) {
    if (PathsBefore(child, JoinModulePath(at, child.name()), path, paths)) return true;
  }
  return false;
}

// Where the tensors of a new module go in the table: behind those of the modules
// before it; without a tree behind its siblings.
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

// The group that an edit names, or the one that follows from `groups`.
absl::StatusOr<std::optional<int>> ChooseGroup(std::optional<int> given,
                                               const std::vector<int>& groups,
                                               const OptimizerIndex& index,
                                               const EditContext& context) {
  if (given.has_value()) {
    if (*given >= 0 && *given < index.group_count()) return given;
    return context.Invalid(
        "optimizer_group",
        absl::StrCat("the optimizer has ", index.group_count(), " parameter group(s)"));
  }
  if (groups.size() > 1) {
    return context.Invalid(
        "optimizer_group",
        absl::StrCat("is required: the nearest parameters are in several groups, such "
                     "as ",
                     absl::StrJoin(groups, " and ")));
  }
  if (groups.size() == 1) return std::optional<int>(groups[0]);
  if (index.group_count() == 1) return std::optional<int>(0);
  if (index.group_count() == 0) return std::optional<int>();
  return context.Invalid(
      "optimizer_group",
      absl::StrCat("is required: the optimizer has ", index.group_count(),
                   " parameter groups, and it is not known which holds what is near"));
}

bool HasParameters(const std::vector<WorkingTensor>& tensors) {
  return std::any_of(tensors.begin(), tensors.end(), [](const WorkingTensor& tensor) {
    return tensor.role == v1::PARAMETER;
  });
}

// Settles which group the new parameters join: of the same name in what they
// replace, else of all that they replace, else of what is nearest.
absl::Status SettleGroups(std::optional<int> given, absl::string_view path,
                          std::vector<WorkingTensor>& tensors, EditContext& context) {
  if (!HasParameters(tensors) || !context.checkpoint.HasSection(kOptimizer)) {
    return absl::OkStatus();
  }
  auto optimizer = context.workshop.Optimizer();
  if (!optimizer.ok()) return optimizer.status();
  const OptimizerIndex* index = *optimizer;
  absl::flat_hash_map<std::string, int> by_key;
  std::vector<int> replaced;
  for (const WorkingTensor& tensor : context.checkpoint.tensors()) {
    if (!IsUnder(tensor, path)) continue;
    const std::optional<int> group = index->GroupOf(tensor);
    if (!group.has_value()) continue;
    by_key.emplace(tensor.key, *group);
    // ChooseGroup() refuses several: two are enough.
    if (replaced.size() > 1 || (!replaced.empty() && replaced[0] == *group)) continue;
    replaced.push_back(*group);
  }
  std::vector<int> near = std::move(replaced);
  if (near.empty()) {
    const auto borrowed = context.workshop.Borrow(context.checkpoint.PathBytes("model"));
    if (!borrowed.ok()) return borrowed.status();
    near = NearGroups(*index, context.checkpoint).Of(path);
  }
  for (WorkingTensor& tensor : tensors) {
    if (tensor.role != v1::PARAMETER) continue;
    auto same = by_key.find(tensor.key);
    if (!given.has_value() && same != by_key.end()) {
      tensor.optimizer_group = same->second;
      continue;
    }
    auto group = ChooseGroup(given, near, *index, context);
    if (!group.ok()) return group.status();
    tensor.optimizer_group = *group;
  }
  return absl::OkStatus();
}

std::optional<int> GivenGroup(const auto& edit) {
  if (!edit.has_optimizer_group()) return std::nullopt;
  return edit.optimizer_group();
}

absl::Status CheckNameFromKeys(const EditContext& context, absl::string_view path) {
  const auto [parent, name] = SplitModulePath(path);
  if (auto s = ValidateModuleName(context.Field("path"), name); !s.ok()) return s;
  if (!parent.empty() && !HasTensorsUnder(context.checkpoint, parent)) {
    return context.Missing("path", "module", parent);
  }
  if (HasTensorsUnder(context.checkpoint, path)) {
    return context.Taken("path", "module", path);
  }
  return absl::OkStatus();
}

absl::StatusOr<ModuleTree> ParseNew(const EditContext& context, const std::string& path,
                                    const std::string& text) {
  if (path.empty()) return context.Invalid("path", "is required");
  if (text.empty()) return context.Invalid("module", "is required");
  return ParseModule(context.Field("module"), text);
}

// Gives way to new tensors, except what is tied to a tensor elsewhere: that gets the
// new bytes together with its group, unless the edit unties it.
absl::Status KeepTies(absl::string_view path, std::vector<WorkingTensor>& tensors,
                      absl::flat_hash_set<std::string>& stay, EditContext& context) {
  absl::Status status;
  std::erase_if(tensors, [&](WorkingTensor& fresh) {
    WorkingTensor* old = context.checkpoint.Find("model", fresh.key);
    if (old == nullptr || context.untie || !status.ok()) return false;
    status.Update(context.workshop.CheckGoOn());
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
    return context.Taken("path", "tensor", edit.path());
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
      context.Warn(Warning::NOT_IN_FORWARD, edit.path(),
                   "was registered, as PyTorch's add_module does: no forward reaches "
                   "it; in_forward appends it to one that is written down");
    }
  }
  std::vector<WorkingTensor> tensors = AsWorking(*std::move(made), edit.path());
  auto s = SettleGroups(GivenGroup(edit), edit.path(), tensors, context);
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
  auto s = SettleGroups(GivenGroup(edit), edit.path(), tensors, context);
  if (!s.ok()) return s;
  size_t place = PlaceOf(context.checkpoint, edit.path());
  const auto& present = context.checkpoint.tensors();
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
    return context.Taken("new_name", "module", target);
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
