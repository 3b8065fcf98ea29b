// Checks what prevents deletion of versions: aliases, pins and leases. A refusal names
// all of them at once.
#pragma once

#include "absl/status/status.h"
#include "storage/core.h"

namespace modelstore::storage {

// FAILED_PRECONDITION naming everything that holds the version. A batch that expects the
// model's record as read before this call is refused if a holder was added meanwhile,
// because adding one changes the record.
absl::Status CheckNotHeld(StoreCore& core, const v1::ModelRecord& model,
                          const v1::CheckpointRecord& checkpoint);
// The same for all versions of a model.
absl::Status CheckNoneHeld(StoreCore& core, const v1::ModelRecord& model);

// Whether a lease still counts. Nothing expires during StoreOptions::start_grace.
bool IsLive(const StoreCore& core, const v1::LeaseRecord& lease);

}  // namespace modelstore::storage
