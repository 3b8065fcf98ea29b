// What the edits of modules share: the tensors of a module, the making of new ones,
// and the warnings that follow from a changed tree.
// See module_tree_edits.cc and resize_output.cc.
#pragma once

#include <string>
#include <utility>
#include <vector>

#include "absl/container/flat_hash_set.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "server/modify/edit_context.h"
#include "server/modify/initialize.h"
#include "server/modify/neighbours.h"

namespace modelstore::server::modify {

// A tensor of section `model` of the module at `path` or of one below it.
bool IsUnder(const WorkingTensor& tensor, absl::string_view path);
bool HasTensorsUnder(const WorkingCheckpoint& checkpoint, absl::string_view path);

// The root of the tree, or null where the architecture is not known: then the edit
// does what keys alone allow, and this has warned of it.
ModuleTree* TreeOf(EditContext& context, absl::string_view path);

// Puts the edit's field before a status of the contract's functions on trees, which
// name `field` where they refuse an argument and nothing where a path is wrong.
absl::Status AtPath(const EditContext& context, const absl::Status& status);

// New tensors of a module. Where numbers are to be drawn and `how` has no seed, it is
// given one. INVALID_ARGUMENT if the call's edits make too much, RESOURCE_EXHAUSTED if
// the server has no room for what is kept of it.
absl::StatusOr<std::vector<NewTensor>> MakeTensors(const ModuleTree& module,
                                                   v1::Initialization& how,
                                                   const EditContext& context);

// Warns of neighbours that no longer fit, though they did when it was made.
class NeighbourWatch {
 public:
  explicit NeighbourWatch(const EditContext& context);
  void Warn(const EditContext& context) const;

 private:
  // Path and message of each.
  absl::flat_hash_set<std::pair<std::string, std::string>> before_;
};

}  // namespace modelstore::server::modify
