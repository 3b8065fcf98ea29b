// Entries of modules in a state dict's `_metadata`. It maps each module path to a dict
// with the version of the module's state layout: {"": {"version": 1}, "bn": {"version":
// 2}}.
#pragma once

#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/string_view.h"
#include "proto/contract/architecture/types.h"
#include "server/modify/working_checkpoint.h"

namespace modelstore::server::modify {

// Module paths with their dicts, in order.
using MetadataEntries = std::vector<std::pair<std::string, v1::Value>>;

// Returns the entries that PyTorch's state_dict() writes for `module` at `path` and for
// all modules below it.
MetadataEntries MetadataOf(const ModuleTree& module, const std::string& path);

// Returns the entries in section `model` of `from` for the module at `source` and the
// modules below it, with their paths moved from `source` to `target`. Empty if there are
// none.
absl::StatusOr<MetadataEntries> MetadataUnder(WorkingCheckpoint& from,
                                              absl::string_view source,
                                              absl::string_view target);

// Replaces the entries of the module at `path` and of the modules below it. If there are
// none, the new entries go after the last one at or below the parent of `path`. Does
// nothing if section `model` has no `_metadata`.
absl::Status ReplaceMetadata(absl::string_view path, MetadataEntries entries,
                             WorkingCheckpoint& checkpoint);

}  // namespace modelstore::server::modify
