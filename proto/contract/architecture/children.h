// The children that a module's own constructor makes: MultiheadAttention's
// out_proj, the layers of a Transformer.
#pragma once

#include <optional>

#include "absl/status/status.h"
#include "absl/strings/string_view.h"
#include "proto/contract/architecture/types.h"

namespace modelstore {

// `module` has its arguments and no children yet. Types that make no children
// stay without.
absl::Status AddOwnChildren(absl::string_view field, ModuleTree& module);

// The children of a TransformerEncoder or TransformerDecoder: `layers`, so many
// copies of `layer` as its num_layers says, and `norm` if there is one.
// INVALID_ARGUMENT where that would be more than an architecture may hold.
absl::Status AddLayers(absl::string_view field, const ModuleTree& layer,
                       const std::optional<ModuleTree>& norm, ModuleTree& module);

}  // namespace modelstore
