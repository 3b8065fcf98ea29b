// Computes the parameters and buffers of modules from their arguments, and compares them
// with a state dict.
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
  // The name in the module (`weight`), or the state-dict key in a tree.
  std::string key;
  std::vector<int64_t> shape;
  // The dtype that the constructor gives it.
  DType dtype = DType::kFloat32;
  bool buffer = false;
};

// The tensors of the module without its children: parameters, then buffers, each in the
// order of PyTorch's state_dict(). Excludes buffers that PyTorch does not store. Empty
// for an unknown type. INVALID_ARGUMENT if a known type lacks arguments, or a size
// exceeds the limits of a tensor.
absl::StatusOr<std::vector<TensorSpec>> ModuleTensors(const ModuleTree& module);

struct ArchitectureTensors {
  // In state_dict() order, under their keys.
  std::vector<TensorSpec> tensors;
  // Paths of modules whose own tensors are unknown: the type is unknown and no container,
  // arguments are missing, or arguments are invalid. The root is the empty path.
  std::vector<std::string> unknown;
};

// The tensors of `module`, which is at `path`, and all modules below it. INVALID_ARGUMENT
// if they exceed the limit of a checkpoint.
absl::StatusOr<ArchitectureTensors> TensorsOf(const ModuleTree& module,
                                              absl::string_view path = "");

// A difference between a state dict and an architecture.
struct Inconsistency {
  enum class Kind : uint8_t {
    kMissing,     // only the architecture has it
    kUnexpected,  // only the state dict has it
    kShape,
  };
  Kind kind;
  std::string key;
  // Shape by the architecture, and in the state dict; empty if absent there.
  std::vector<int64_t> expected, found;

  // `classifier.6.weight: shape [10, 4096] by the architecture, [1000, 4096] stored`.
  std::string ToString() const;
};

using KeysAndShapes = std::vector<std::pair<std::string, std::vector<int64_t>>>;

// Returns the differences in the order of the architecture, then unexpected keys in the
// given order. A key directly below a module whose tensors are unknown is accepted.
absl::StatusOr<std::vector<Inconsistency>> FindInconsistencies(
    const v1::Architecture& architecture, const KeysAndShapes& state_dict);

}  // namespace modelstore
