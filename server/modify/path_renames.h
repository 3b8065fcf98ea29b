// What new keys of tensors say of the modules that they belong to: their new paths.
#pragma once

#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/container/flat_hash_set.h"
#include "absl/status/status.h"
#include "absl/strings/string_view.h"
#include "proto/contract/architecture/types.h"
#include "server/modify/edit_context.h"

namespace modelstore::server::modify {

// The old and the new key of every tensor of a section, also of those that stay.
using KeyPairs = std::vector<std::pair<std::string, std::string>>;

// Modules that keep their place in the tree and get other names, or all keys that get
// or lose one prefix. A module stays where one of its tensors does, whatever becomes of
// the others. Anything else is no rename of modules.
class PathRenames {
 public:
  // Keeps views of `keys`, which outlive this. Takes WorkingCheckpoint::PathBytes().
  explicit PathRenames(const KeyPairs& keys);

  // The new path of the module at `path`; nothing if the keys do not tell it. A module
  // without tensors keeps its name within its parent.
  std::optional<std::string> Of(absl::string_view path) const;
  // Modules that an added prefix puts around the root, the outermost (the empty path)
  // first.
  std::vector<std::string> Wrappers() const;
  // Brings a tree to the new names. Returns why it cannot be, the tree then left half
  // changed; empty if it was. Modules of which a parameter got another name are marked
  // incomplete, and their new paths added to `incomplete`.
  std::string Apply(ModuleTree& root, std::vector<std::string>& incomplete) const;

 private:
  void FindPrefix(const KeyPairs& keys);
  void FindNames(absl::string_view old_key, absl::string_view new_key);
  std::string ApplyBelow(ModuleTree& module, const std::string& path,
                         const std::string& new_path,
                         std::vector<std::string>& incomplete) const;

  // Of all keys: was taken off, or put before them.
  std::string stripped_;
  std::string added_;
  // By old path, the new name of the module; none where keys contradict each other, and
  // none of them keeps the old name.
  absl::flat_hash_map<absl::string_view, std::optional<absl::string_view>> names_;
  // Old paths of modules whose own tensors have other names within them.
  absl::flat_hash_set<absl::string_view> changed_;
  // A key that moved to another depth.
  std::string moved_;
};

// After a rename of keys: the `_metadata` of the section and, for `model`, the
// architecture follow. An architecture that cannot is dropped, with a warning.
absl::Status FollowKeys(const std::string& section, const KeyPairs& keys,
                        EditContext& context);

}  // namespace modelstore::server::modify
