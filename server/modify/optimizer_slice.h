// State of a parameter of which an edit kept rows: its rows are kept alike.
#pragma once

#include <string>

#include "absl/container/flat_hash_set.h"
#include "absl/status/status.h"
#include "server/modify/edit_context.h"
#include "server/modify/working_checkpoint.h"

namespace modelstore::server::modify {

// Whether the rows of `parameter` are known, and each tensor of its state in `section` is
// a scalar or has the shape that the parameter had, and is known to begin as one number.
bool CanSliceState(const WorkingTensor& parameter, absl::string_view section,
                   const v1::Value* state, WorkingCheckpoint& checkpoint);

// Gives the tensors of the state the parameter's rows. New ones begin as zeros, those
// of Adagrad's `sum` as `sum`. CanSliceState() must be true. INVALID_ARGUMENT if a
// tensor is in `sliced`, to which this adds: two parameters cannot share one.
// RESOURCE_EXHAUSTED if the resources has no room for the ranges of rows.
absl::Status SliceState(const WorkingTensor& parameter, absl::string_view section,
                        const v1::Value& state, double sum, WorkingCheckpoint& checkpoint,
                        EditResources& resources,
                        absl::flat_hash_set<std::string>& sliced);

}  // namespace modelstore::server::modify
