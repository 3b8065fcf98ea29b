// Converts the keys of a model that PEFT has wrapped to those of the plain model, once
// its adapters are merged.
#pragma once

#include <string>

#include "absl/container/flat_hash_set.h"
#include "absl/status/status.h"
#include "absl/strings/string_view.h"
#include "server/modify/edit_context.h"

namespace modelstore::server::modify {

// The prefix that PEFT adds to the keys of the model that it wraps.
inline constexpr absl::string_view kWrapped = "base_model.model.";

struct MergedModules {
  // Paths of the modules whose weights had an adapter, as they are in the checkpoint
  // under edit.
  absl::flat_hash_set<std::string> modules;
  // Whether these paths start with PEFT's prefix.
  bool wrapped = false;
};

// Does what PEFT's merge_and_unload() does to names: keys, `_metadata` and architecture
// become those of the plain model. `lin.base_layer.weight` becomes `lin.weight`; with
// `wrapped` the prefix is removed; and a module that was trained as a whole
// (`modules_to_save.default`) replaces the original (`original_module`).
absl::Status UnwrapPeft(const MergedModules& merged, EditContext& context);

}  // namespace modelstore::server::modify
