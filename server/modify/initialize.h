// Initial values for the tensors of a new module: the values that PyTorch's constructors
// and torch.nn.init produce. Does not include torch: random_source.h draws the numbers.
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

// Maximum number of new elements of one edit: 4 GiB of float32.
inline constexpr int64_t kMaxNewElements = int64_t{1} << 30;

struct NewTensor {
  // Key, shape and dtype. The key is relative to the module.
  TensorSpec spec;
  SourcePtr source;
};

// Checks the arguments of an initialization. INVALID_ARGUMENT naming a field below
// `field`, such as `{field}.std`.
absl::Status CheckInitialization(absl::string_view field, const v1::Initialization& how);

// Makes the parameters and buffers of `module` and of all modules below it, in
// state_dict() order. With `how.seed` they are bit for bit those of
//
//   torch.manual_seed(seed); m = Linear(4096, 10)
//   for p in m.parameters(): torch.nn.init.xavier_uniform_(p)   # `how.scheme`
//
// in Python. The layers of a TransformerEncoder or -Decoder are equal, because Python
// copies the first one. Calls `keep_going` while it draws numbers and stops at its first
// error. INVALID_ARGUMENT if the tensors of the module are unknown or have more than
// kMaxNewElements elements; UNIMPLEMENTED if numbers must be drawn and the server has no
// torch.
absl::StatusOr<std::vector<NewTensor>> InitializeModule(
    const ModuleTree& module, const v1::Initialization& how,
    KeepGoing keep_going = [] { return absl::OkStatus(); });

}  // namespace modelstore::server::modify
