// Children that the constructor of a module creates: MultiheadAttention's out_proj, the
// layers of a Transformer.
#pragma once

#include <optional>

#include "absl/status/status.h"
#include "absl/strings/string_view.h"
#include "proto/contract/architecture/types.h"

namespace modelstore {

// Adds the children that the constructor of `module` creates, if any. `module` must have
// its arguments and no children.
absl::Status AddOwnChildren(absl::string_view field, ModuleTree& module);

// Adds the children of a TransformerEncoder or TransformerDecoder: `layers`, with
// num_layers copies of `layer`, and `norm` if given. INVALID_ARGUMENT if that exceeds the
// limits of an architecture.
absl::Status AddLayers(absl::string_view field, const ModuleTree& layer,
                       const std::optional<ModuleTree>& norm, ModuleTree& module);

}  // namespace modelstore
