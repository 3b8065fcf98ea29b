// Takes a module or a tensor from another checkpoint. Its chunks are shared.
#include <utility>

#include "absl/container/flat_hash_map.h"
#include "absl/container/flat_hash_set.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "proto/contract/architecture/architecture.h"
#include "server/modify/apply_edit.h"
#include "server/modify/module_metadata.h"

namespace modelstore::server::modify {
namespace {

constexpr absl::string_view kModel = "model";

// Position for new tensors of `model`: before the first tensor for which `belongs` is
// true, or else after the last one of the section.
template <typename Belongs>
size_t PlaceOf(const WorkingCheckpoint& checkpoint, Belongs belongs) {
  const auto& tensors = checkpoint.tensors();
  size_t end = tensors.size();
  for (size_t t = 0; t < tensors.size(); ++t) {
    if (tensors[t].section != kModel) continue;
    if (belongs(tensors[t])) return t;
    end = t + 1;
  }
  return end;
}

// A new tensor with the content of `source`. It has no origin in this checkpoint and is
// not tied.
WorkingTensor NewFrom(const WorkingTensor& source, std::string key) {
  WorkingTensor tensor = source;
  tensor.key = std::move(key);
  tensor.tied_group = 0;
  tensor.origin.reset();
  return tensor;
}

absl::Status TakeTensor(const WorkingTensor& source, const std::string& target,
                        EditContext& context) {
  WorkingTensor* existing = context.checkpoint.Find(kModel, target);
  if (existing != nullptr) {
    return ReplaceBytes(context, *existing, source.source, source.dtype, source.shape);
  }
  const size_t place =
      PlaceOf(context.checkpoint, [](const WorkingTensor&) { return false; });
  return context.At("target",
                    context.checkpoint.Insert(place, {NewFrom(source, target)}));
}

// Copies the tensors under one path of `from` to another path of the checkpoint. Existing
// tensors there are erased, except those that are tied to a tensor elsewhere: they get
// the new bytes together with their group.
class ModuleTensors {
 public:
  ModuleTensors(WorkingCheckpoint& from, absl::string_view source,
                absl::string_view target, EditContext& context)
      : from_(from),
        source_(absl::StrCat(source, ".")),
        target_(absl::StrCat(target, ".")),
        context_(context) {}

  bool empty() const {
    for (const WorkingTensor& tensor : from_.tensors()) {
      if (IsUnder(tensor, source_)) return false;
    }
    return true;
  }

  absl::Status Take() {
    // Collects the new tensors first, then erases the old ones, and inserts the new ones
    // where the first old one was.
    std::vector<WorkingTensor> added;
    absl::flat_hash_set<std::string> stay;
    for (const WorkingTensor& tensor : from_.tensors()) {
      if (!IsUnder(tensor, source_)) continue;
      if (auto s = context_.resources.CheckCancelled(); !s.ok()) return s;
      std::string key = absl::StrCat(target_, tensor.key.substr(source_.size()));
      WorkingTensor* existing = context_.checkpoint.Find(kModel, key);
      if (existing != nullptr && !context_.untie && IsTiedElsewhere(*existing)) {
        auto s =
            ReplaceBytes(context_, *existing, tensor.source, tensor.dtype, tensor.shape);
        if (!s.ok()) return s;
        stay.insert(std::move(key));
        continue;
      }
      WorkingTensor fresh = NewFrom(tensor, std::move(key));
      if (tensor.tied_group != 0) fresh.tied_group = GroupOf(tensor.tied_group);
      added.push_back(std::move(fresh));
    }
    const size_t place = PlaceOf(context_.checkpoint, [&](const WorkingTensor& tensor) {
      return IsUnder(tensor, target_) && !stay.contains(tensor.key);
    });
    auto erased = context_.checkpoint.EraseIf([&](const WorkingTensor& tensor) {
      return IsUnder(tensor, target_) && !stay.contains(tensor.key);
    });
    if (!erased.ok()) return erased.status();
    return context_.At("target", context_.checkpoint.Insert(place, std::move(added)));
  }

 private:
  static bool IsUnder(const WorkingTensor& tensor, absl::string_view prefix) {
    return tensor.section == kModel && absl::StartsWith(tensor.key, prefix);
  }
  bool IsTiedElsewhere(WorkingTensor& tensor) {
    for (const WorkingTensor* other : context_.checkpoint.TiedTo(tensor)) {
      if (!IsUnder(*other, target_)) return true;
    }
    return false;
  }
  // The tied group here for one of `from`, so that tensors tied to each other there are
  // tied here.
  int GroupOf(int source_group) {
    auto [group, added] = groups_.try_emplace(source_group, 0);
    if (added) group->second = context_.checkpoint.NewTiedGroup();
    return group->second;
  }

  WorkingCheckpoint& from_;
  const std::string source_;
  const std::string target_;
  EditContext& context_;
  absl::flat_hash_map<int, int> groups_;
};

// Copies the module's `_metadata` entries, or, if `from` has none, makes those that
// PyTorch writes for such modules.
absl::Status TakeMetadata(WorkingCheckpoint& from, const std::string& source,
                          const std::string& target, EditContext& context) {
  auto s = context.resources.Reserve(from.UndecodedBytes(kModel));
  if (!s.ok()) return context.At("checkpoint", s);
  auto entries = MetadataUnder(from, source, target);
  if (!entries.ok()) return entries.status();
  const ModuleTree* taken = from.architecture().has_value()
                                ? FindModule(from.architecture()->root(), source)
                                : nullptr;
  if (entries->empty() && taken != nullptr) *entries = MetadataOf(*taken, target);
  return ReplaceMetadata(target, *std::move(entries), context.checkpoint);
}

// Copies the module's subtree if both architectures are known.
absl::Status TakeModuleTree(const WorkingCheckpoint& from, const std::string& source,
                            const std::string& target, EditContext& context) {
  auto& tree = context.checkpoint.architecture();
  if (!tree.has_value()) return absl::OkStatus();
  ModuleTree& root = *tree->mutable_root();
  ModuleTree* place = FindModule(root, target);
  const ModuleTree* taken = from.architecture().has_value()
                                ? FindModule(from.architecture()->root(), source)
                                : nullptr;
  if (taken == nullptr) {
    context.Warn(Warning::KIND_ARCHITECTURE_INCOMPLETE, target,
                 "comes from a checkpoint whose architecture does not show it: only its "
                 "tensors were taken");
    if (place != nullptr) place->set_incomplete(true);
    return absl::OkStatus();
  }
  if (place != nullptr) {
    return ReplaceModule(context.Field("target"), target, *taken, root);
  }
  auto added = AddModule(context.Field("target"), target, *taken,
                         /*append_to_forward=*/false, root);
  if (!added.ok()) return context.At("target", added.status());
  if (*added == InForward::kNo) {
    context.Warn(Warning::KIND_NOT_IN_FORWARD, target,
                 "was registered: no forward reaches it");
  }
  return absl::OkStatus();
}

}  // namespace

absl::Status ApplyTakeFrom(const v1::Edit::TakeFrom& edit, EditContext& context) {
  if (edit.source().empty()) return context.Invalid("source", "is required");
  auto from = context.sources.Open(edit.checkpoint());
  if (!from.ok()) return context.At("checkpoint", from.status());
  context.resolved.mutable_take_from()->set_checkpoint(NameOf(*(*from)->base()));
  const std::string& target = edit.target().empty() ? edit.source() : edit.target();
  const WorkingTensor* tensor = (*from)->Find(kModel, edit.source());
  if (tensor != nullptr) return TakeTensor(*tensor, target, context);
  if (context.checkpoint.Find(kModel, target) != nullptr) {
    return context.Invalid("target", "is a tensor, while source is none");
  }
  ModuleTensors tensors(**from, edit.source(), target, context);
  const bool in_tree =
      (*from)->architecture().has_value() &&
      FindModule((*from)->architecture()->root(), edit.source()) != nullptr;
  if (tensors.empty() && !in_tree) {
    return context.Missing("source", "module or tensor",
                           absl::StrCat(NameOf(*(*from)->base()), "/", edit.source()));
  }
  if (auto s = tensors.Take(); !s.ok()) return s;
  auto s = TakeMetadata(**from, edit.source(), target, context);
  if (!s.ok()) return s;
  return TakeModuleTree(**from, edit.source(), target, context);
}

}  // namespace modelstore::server::modify
