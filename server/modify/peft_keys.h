// The keys of PEFT's layers, and those of the plain model that is left once their
// adapters are merged.
#pragma once

#include <string>

#include "absl/container/flat_hash_set.h"
#include "absl/status/status.h"
#include "absl/strings/string_view.h"
#include "server/modify/edit_context.h"

namespace modelstore::server::modify {

// What PEFT puts before the keys of the model that it wraps.
inline constexpr absl::string_view kWrapped = "base_model.model.";

struct MergedModules {
  // Paths of the modules whose weights had an adapter, as they are called here.
  absl::flat_hash_set<std::string> modules;
  // These were found under PEFT's prefix.
  bool wrapped = false;
};

// As PEFT's merge_and_unload(): keys, `_metadata` and architecture become those of the
// plain model. `lin.base_layer.weight` becomes `lin.weight`; with `wrapped` the prefix
// goes; a module that was trained whole (`modules_to_save.default`) takes the place of
// the one that it was made of (`original_module`).
absl::Status UnwrapPeft(const MergedModules& merged, EditContext& context);

}  // namespace modelstore::server::modify
