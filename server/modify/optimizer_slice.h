// Slices optimizer state: if an edit kept only some rows of a parameter, its state keeps
// the same rows.
#pragma once

#include <string>

#include "absl/container/flat_hash_set.h"
#include "absl/status/status.h"
#include "server/modify/edit_context.h"
#include "server/modify/working_checkpoint.h"

namespace modelstore::server::modify {

// Whether SliceState() can be applied: it is known which rows of `parameter` were kept,
// and each tensor of its state in `section` is either a scalar or has the original shape
// of the parameter and a constant as its initial value. False if `state` is null.
bool CanSliceState(const WorkingTensor& parameter, absl::string_view section,
                   const v1::Value* state, WorkingCheckpoint& checkpoint);

// Gives each tensor of the state the rows that the parameter has. New rows are zeros, or
// `sum` in Adagrad's field `sum`. CanSliceState() must be true. Adds the keys of the
// tensors to `sliced`. INVALID_ARGUMENT if one is there already: a tensor shared by two
// parameters cannot follow both. RESOURCE_EXHAUSTED if `resources` has no room for the
// ranges of rows.
absl::Status SliceState(const WorkingTensor& parameter, absl::string_view section,
                        const v1::Value& state, double sum, WorkingCheckpoint& checkpoint,
                        EditResources& resources,
                        absl::flat_hash_set<std::string>& sliced);

}  // namespace modelstore::server::modify
