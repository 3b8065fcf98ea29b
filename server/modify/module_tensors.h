// Common parts of the edits of modules: finding the tensors of a module, making new ones,
// and warnings after a change of the tree. See module_tree_edits.cc and resize_output.cc.
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

// Whether the tensor belongs to section `model` and to the module at `path` or one below
// it.
bool IsUnder(const WorkingTensor& tensor, absl::string_view path);
bool HasTensorsUnder(const WorkingCheckpoint& checkpoint, absl::string_view path);

// The root of the module tree. Null, with a warning, if the architecture is unknown: the
// edit then changes only tensors.
ModuleTree* TreeOf(EditContext& context, absl::string_view path);

// Adds the field `path` to an error of the functions on module trees, unless it is
// INVALID_ARGUMENT, which names its field already.
absl::Status AtPath(const EditContext& context, const absl::Status& status);

// Makes the tensors of a new module. If numbers must be drawn and `how` has no seed, sets
// a random one. INVALID_ARGUMENT if the edits of the call make too many elements,
// RESOURCE_EXHAUSTED if the server has no room for the states of the generator.
absl::StatusOr<std::vector<NewTensor>> MakeTensors(const ModuleTree& module,
                                                   v1::Initialization& how,
                                                   const EditContext& context);

// Warns about consecutive modules whose sizes no longer fit but did when this was made.
class NeighbourWatch {
 public:
  explicit NeighbourWatch(const EditContext& context);
  void Warn(const EditContext& context) const;

 private:
  // Path and message of the mismatches before the edit.
  absl::flat_hash_set<std::pair<std::string, std::string>> before_;
};

}  // namespace modelstore::server::modify
