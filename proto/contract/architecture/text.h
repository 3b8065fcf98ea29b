// Modules as text: printed as by print(model) in PyTorch 1.13, and parsed from the same
// notation.
#pragma once

#include <string>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "proto/contract/architecture/types.h"

namespace modelstore {

// The output of Python's print(module), without the final newline. It contains the names
// of the children but not of the module itself. Arguments of an unknown type are printed
// as `name=value`.
std::string PrintModule(const ModuleTree& module);

enum class UnknownTypes : uint8_t {
  kRefuse,
  kKeep,  // keeps the arguments unchanged; the module can be printed but not built
};

// `Linear(in_features=4096, out_features=10, bias=True)`, `Linear(4096, 10)`,
// `nn.Conv2d(3, 64, 3, padding=1)`, `Sequential(Linear(10, 10), ReLU())`,
// `ModuleList([Linear(1, 1)])`, `ModuleDict({'a': ReLU()})`,
// `TransformerEncoder(TransformerEncoderLayer(512, 8), num_layers=6)`. The result is
// unnamed and in training mode, as PyTorch's constructors create it. INVALID_ARGUMENT
// names `field` and the position or the argument.
absl::StatusOr<ModuleTree> ParseModule(absl::string_view field, absl::string_view text,
                                       UnknownTypes unknown = UnknownTypes::kRefuse);

}  // namespace modelstore
