// Modules as text: printed as print(model) prints them in PyTorch 1.13, and read
// from one string in the same notation.
#pragma once

#include <string>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "proto/contract/architecture/types.h"

namespace modelstore {

// What Python's print(module) shows, without the line's end. The module's own name
// does not appear, its children's do. Arguments of a type that modelstore does not
// know appear as `name=value`.
std::string PrintModule(const ModuleTree& module);

enum class UnknownTypes : uint8_t {
  kRefuse,
  kKeep,  // with the arguments as they stand; it can be printed, not built
};

// `Linear(in_features=4096, out_features=10, bias=True)`, `Linear(4096, 10)`,
// `nn.Conv2d(3, 64, 3, padding=1)`, `Sequential(Linear(10, 10), ReLU())`,
// `ModuleList([Linear(1, 1)])`, `ModuleDict({'a': ReLU()})`,
// `TransformerEncoder(TransformerEncoderLayer(512, 8), num_layers=6)`. The module
// is unnamed and in training mode, as PyTorch's constructors leave it.
// INVALID_ARGUMENT names `field`, and where in the text or which argument.
absl::StatusOr<ModuleTree> ParseModule(absl::string_view field, absl::string_view text,
                                       UnknownTypes unknown = UnknownTypes::kRefuse);

}  // namespace modelstore
