#include "server/modify/peft_keys.h"

#include <optional>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/strip.h"
#include "proto/contract/architecture/architecture.h"

namespace modelstore::server::modify {
namespace {

constexpr absl::string_view kModel = "model";
constexpr absl::string_view kBaseLayer = ".base_layer";
constexpr absl::string_view kOriginal = ".original_module";
constexpr absl::string_view kTrained = ".modules_to_save.default";

// Splits a path at the element `name`: `a.base_layer.weight` into `a` and `.weight`,
// `a.base_layer` into `a` and an empty string. Absent if the path does not have it.
std::optional<std::pair<absl::string_view, absl::string_view>> Around(
    absl::string_view path, absl::string_view name) {
  const size_t at = path.find(absl::StrCat(name, "."));
  if (at != absl::string_view::npos) {
    return std::make_pair(path.substr(0, at), path.substr(at + name.size()));
  }
  if (!absl::EndsWith(path, name)) return std::nullopt;
  return std::make_pair(path.substr(0, path.size() - name.size()), absl::string_view());
}

class Unwrapper {
 public:
  Unwrapper(const MergedModules& merged, EditContext& context)
      : merged_(merged), context_(context) {
    for (const WorkingTensor& tensor : context_.checkpoint.tensors()) {
      if (tensor.section != kModel) continue;
      if (auto around = Around(tensor.key, kTrained)) trained_.emplace(around->first);
    }
  }

  absl::Status Run() {
    auto erased = context_.checkpoint.EraseIf([&](const WorkingTensor& tensor) {
      return tensor.section == kModel && IsReplaced(tensor.key);
    });
    if (!erased.ok()) return erased.status();
    auto s = context_.checkpoint.Rename(
        kModel, [&](const WorkingTensor& tensor) { return Plain(tensor.key); });
    if (!s.ok()) return context_.At("checkpoint", s);
    s = context_.checkpoint.RenameMetadata(
        kModel, [&](absl::string_view path) { return PlainPath(path); });
    if (!s.ok()) return context_.At("checkpoint", s);
    UnwrapTree();
    return absl::OkStatus();
  }

 private:
  // Whether an adapter was merged into the layer of this module.
  bool IsMerged(absl::string_view module) const {
    return merged_.modules.contains(module);
  }
  // Whether the path belongs to an original module that a trained one replaces.
  bool IsReplaced(absl::string_view path) const {
    const auto around = Around(path, kOriginal);
    return around.has_value() && trained_.contains(around->first);
  }
  absl::string_view WithoutPrefix(absl::string_view path) const {
    return merged_.wrapped ? absl::StripPrefix(path, kWrapped) : path;
  }

  // The name in the plain model of a key or a module path that remains.
  std::string Plain(absl::string_view path) const {
    if (auto around = Around(path, kBaseLayer); around && IsMerged(around->first)) {
      return absl::StrCat(WithoutPrefix(around->first), around->second);
    }
    if (auto around = Around(path, kTrained)) {
      return absl::StrCat(WithoutPrefix(around->first), around->second);
    }
    return std::string(WithoutPrefix(path));
  }

  // The new path for an entry of `_metadata`; absent if the entry is removed. The entry
  // of a wrapper is removed and that of the wrapped layer takes its path.
  std::optional<std::string> PlainPath(absl::string_view path) const {
    if (merged_.wrapped) {
      if (absl::StrCat(path, ".") == kWrapped) return std::string();
      if (!absl::StartsWith(path, kWrapped)) return std::nullopt;
    }
    if (IsReplaced(path)) return std::nullopt;
    const bool wrapper = wrappers().contains(path) || trained_.contains(path);
    if (wrapper) return std::nullopt;
    for (absl::string_view at = path; !at.empty(); at = SplitModulePath(at).first) {
      const auto [parent, name] = SplitModulePath(at);
      if (IsMerged(parent) && absl::StartsWith(name, "lora_")) return std::nullopt;
      if (trained_.contains(parent) && name == "modules_to_save" && at == path) {
        return std::nullopt;
      }
    }
    return Plain(path);
  }

  // Merged modules whose layer has an entry of its own in `_metadata`, which replaces
  // theirs. Computed at the first call.
  const absl::flat_hash_set<std::string>& wrappers() const {
    if (wrappers_.has_value()) return *wrappers_;
    wrappers_.emplace();
    auto metadata = context_.checkpoint.Metadata(kModel);
    if (!metadata.ok() || *metadata == nullptr) return *wrappers_;
    for (const auto& entry : (*metadata)->entries()) {
      absl::string_view path = entry.key().string_value();
      if (absl::ConsumeSuffix(&path, kBaseLayer) && IsMerged(path)) {
        wrappers_->emplace(path);
      }
    }
    return *wrappers_;
  }

  void UnwrapTree() {
    auto& architecture = context_.checkpoint.architecture();
    if (!architecture.has_value()) return;
    ModuleTree& root = *architecture->mutable_root();
    for (const std::string& path : merged_.modules) Replace(path, "base_layer", root);
    for (const std::string& path : trained_) {
      Replace(path, "modules_to_save.default", root);
    }
    if (!merged_.wrapped) return;
    const ModuleTree* model = FindModule(root, absl::StripSuffix(kWrapped, "."));
    if (model == nullptr) return;
    ModuleTree plain = *model;
    plain.clear_name();
    root = std::move(plain);
  }

  // Replaces a module by the one at path `below` in it. If there is none, only removes
  // the module's adapters.
  void Replace(const std::string& path, absl::string_view below, ModuleTree& root) {
    ModuleTree* module = FindModule(root, path);
    if (module == nullptr) return;
    if (const ModuleTree* layer = FindModule(*module, below)) {
      ModuleTree plain = *layer;
      plain.set_name(module->name());
      *module = std::move(plain);
      return;
    }
    auto& children = *module->mutable_children();
    for (int c = children.size(); c-- > 0;) {
      if (absl::StartsWith(children[c].name(), "lora_")) children.DeleteSubrange(c, 1);
    }
  }

  const MergedModules& merged_;
  EditContext& context_;
  // Paths of modules that were trained as a whole.
  absl::flat_hash_set<std::string> trained_;
  mutable std::optional<absl::flat_hash_set<std::string>> wrappers_;
};

}  // namespace

absl::Status UnwrapPeft(const MergedModules& merged, EditContext& context) {
  return Unwrapper(merged, context).Run();
}

}  // namespace modelstore::server::modify
