// The parameters and buffers that modules have, computed from their arguments, and
// the check of a state dict against them.
#pragma once

#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "proto/contract/architecture/types.h"
#include "proto/contract/dtype.h"

namespace modelstore {

struct TensorSpec {
  // Of a module its own name (`weight`), of a tree the state-dict key.
  std::string key;
  std::vector<int64_t> shape;
  // Of a module as its constructor leaves it.
  DType dtype = DType::kFloat32;
  bool buffer = false;
};

// The module's own tensors, not its children's: parameters, then buffers, each in
// the order of PyTorch's state_dict(). Buffers that PyTorch does not store are not
// among them. Empty for a type that is not known. INVALID_ARGUMENT if a known type
// lacks arguments, or a size is beyond what a tensor can have.
absl::StatusOr<std::vector<TensorSpec>> ModuleTensors(const ModuleTree& module);

struct ArchitectureTensors {
  // In state_dict() order, under their keys.
  std::vector<TensorSpec> tensors;
  // Paths of modules whose own tensors cannot be told: of unknown type and not a
  // mere container, incomplete, or with arguments that make no sense. The root's is
  // the empty path.
  std::vector<std::string> unknown;
};

// Of the module at `path` and all below it. INVALID_ARGUMENT if they are more than
// a checkpoint may hold.
absl::StatusOr<ArchitectureTensors> TensorsOf(const ModuleTree& module,
                                              absl::string_view path = "");

// What a state dict and an architecture disagree on.
struct Misfit {
  enum class Kind : uint8_t {
    kMissing,     // the architecture has it, the state dict does not
    kUnexpected,  // the state dict has it, no module of the architecture does
    kShape,
  };
  Kind kind;
  std::string key;
  // By the architecture, and by the state dict; empty where it has none.
  std::vector<int64_t> expected, found;

  // `classifier.6.weight: shape [10, 4096] by the architecture, [1000, 4096] stored`.
  std::string ToString() const;
};

using KeysAndShapes = std::vector<std::pair<std::string, std::vector<int64_t>>>;

// In the order of the architecture, then what is unexpected in the order given. A
// key right below a module whose own tensors are unknown fits.
absl::StatusOr<std::vector<Misfit>> FindMisfits(const v1::Architecture& architecture,
                                                const KeysAndShapes& state_dict);

}  // namespace modelstore
