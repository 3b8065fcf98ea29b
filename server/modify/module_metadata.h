// Entries of modules in a state dict's `_metadata`, which tells PyTorch's modules the
// version of the layout that their tensors have: {"": {"version": 1}, "bn": ...}.
#pragma once

#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/string_view.h"
#include "proto/contract/architecture/types.h"
#include "server/modify/working_checkpoint.h"

namespace modelstore::server::modify {

// Path of a module and its dict.
using MetadataEntries = std::vector<std::pair<std::string, v1::Value>>;

// What PyTorch's state_dict() writes of `module`, at `path`, and of all below it.
MetadataEntries MetadataOf(const ModuleTree& module, const std::string& path);

// Entries of section `model` of `from` of the module at `source` and of those below
// it, as they are called below `target`. Empty if it has none.
absl::StatusOr<MetadataEntries> MetadataUnder(WorkingCheckpoint& from,
                                              absl::string_view source,
                                              absl::string_view target);

// Puts these in the place of the entries of the module at `path` and of those below
// it; of a new module behind those of its parent. Does nothing where section `model`
// has no `_metadata`.
absl::Status ReplaceMetadata(absl::string_view path, MetadataEntries entries,
                             WorkingCheckpoint& checkpoint);

}  // namespace modelstore::server::modify
