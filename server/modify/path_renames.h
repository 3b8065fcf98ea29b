// Derives the new paths of modules from a rename of tensor keys.
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

// Recognizes two kinds of rename. Either all keys get or lose one prefix, which adds
// modules around the root or replaces the root by a module below it. Or modules get other
// names and keep their place in the tree: each key keeps its depth, and the tensors of a
// module agree on its new name. If they disagree, a module keeps its name if one of its
// tensors keeps it. Any other change of keys is no rename of modules. Immutable, so
// thread-safe.
class PathRenames {
 public:
  // Keeps views of `keys`, which must outlive this. Takes WorkingCheckpoint::PathBytes()
  // of memory.
  explicit PathRenames(const KeyPairs& keys);

  // The new path of the module at `path`; absent if the keys do not determine it. A
  // module without tensors keeps its name within its parent.
  std::optional<std::string> Of(absl::string_view path) const;
  // Paths of the modules that an added prefix puts around the old root, the outermost
  // (the empty path) first. Empty if no prefix was added.
  std::vector<std::string> Wrappers() const;
  // Renames the modules of a tree. Returns an empty string, or the reason why the tree
  // cannot be renamed; it is then partly changed. A module whose own parameters got other
  // names is marked incomplete, and its new path is added to `incomplete`.
  std::string Apply(ModuleTree& root, std::vector<std::string>& incomplete) const;

 private:
  // Sets `stripped_` or `added_` if one prefix explains all keys.
  void FindPrefix(const KeyPairs& keys);
  // Records what one key says about the names of the modules above it.
  void FindNames(absl::string_view old_key, absl::string_view new_key);
  std::string ApplyBelow(ModuleTree& module, const std::string& path,
                         const std::string& new_path,
                         std::vector<std::string>& incomplete) const;

  // The prefix, ending in a dot, that all keys have lost or got. At most one is set, and
  // then the members below are empty.
  std::string stripped_;
  std::string added_;
  // New name (last element of the path) of each module, by its old path. Absent if keys
  // give it different names and none keeps the old one, or if a key moved to another
  // depth.
  absl::flat_hash_map<absl::string_view, std::optional<absl::string_view>> names_;
  // Old paths of modules whose own tensors got other names, such as `weight` to `kernel`.
  absl::flat_hash_set<absl::string_view> changed_;
  // Describes the first key that moved to another depth; empty if none did.
  std::string moved_;
};

// Updates the paths in the section's `_metadata` and, for section `model`, the
// architecture after a rename of keys. An architecture that cannot follow is dropped,
// with a warning.
absl::Status FollowKeys(const std::string& section, const KeyPairs& keys,
                        EditContext& context);

}  // namespace modelstore::server::modify
