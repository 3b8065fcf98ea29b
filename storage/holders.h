// What keeps versions from being deleted: aliases, pins, leases. A refusal names
// all of it at once, so that a caller need not find one after the other.
#pragma once

#include "absl/status/status.h"
#include "storage/core.h"

namespace modelstore::storage {

// FAILED_PRECONDITION naming everything that holds the version. A batch that expects
// the model's bytes as they were read for this misses none that comes meanwhile.
absl::Status CheckNotHeld(StoreCore& core, const v1::ModelRecord& model,
                          const v1::CheckpointRecord& checkpoint);
// The same for all versions of a model.
absl::Status CheckNoneHeld(StoreCore& core, const v1::ModelRecord& model);

// Whether a lease still counts. For a while after a start nothing expires.
bool IsLive(const StoreCore& core, const v1::LeaseRecord& lease);

}  // namespace modelstore::storage
