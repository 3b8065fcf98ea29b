// First values of the tensors of a new module: what PyTorch's constructors and
// torch.nn.init give. Torch-free: numbers are drawn behind random_source.h.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "modelstore/v1/edits.pb.h"
#include "proto/contract/architecture/tensors.h"
#include "server/modify/draws_module.h"
#include "server/modify/tensor_source.h"

namespace modelstore::server::modify {

// What one edit may make: 4 GiB of parameters.
inline constexpr int64_t kMaxNewElements = int64_t{1} << 30;

struct NewTensor {
  // Key, shape, dtype; the key is relative to the module.
  TensorSpec spec;
  SourcePtr source;
};

// INVALID_ARGUMENT naming a field below `field`, such as `{field}.std`.
absl::Status CheckInitialization(absl::string_view field, const v1::Initialization& how);

// Parameters and buffers of the module and all below it, in state_dict() order.
// With `how.seed` they are bit for bit those of
//
//   torch.manual_seed(seed); m = Linear(4096, 10)
//   for p in m.parameters(): torch.nn.init.xavier_uniform_(p)   # such as `scheme`
//
// in Python. A copied layer (TransformerEncoder) is drawn once, as Python copies it.
// `keep_going` is asked while numbers are drawn: its error ends it. INVALID_ARGUMENT if
// the module's tensors cannot be told or are too many, UNIMPLEMENTED if numbers are to be
// drawn and the server has no torch.
absl::StatusOr<std::vector<NewTensor>> InitializeModule(
    const ModuleTree& module, const v1::Initialization& how,
    KeepGoing keep_going = [] { return absl::OkStatus(); });

}  // namespace modelstore::server::modify
