// Changes of a model: a compare-and-set on its record and one entry in its log.
#pragma once

#include <optional>

#include "absl/functional/function_ref.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "storage/core.h"

namespace modelstore::storage {

// One planned change.
struct ModelChange {
  // As it was read; to be altered. Generation and update time are set by
  // ChangeModel() if there is an event.
  v1::ModelRecord model;
  // Absent: etags and watchers do not see the change; `plan` must then make the model
  // different from what any other change makes of it.
  std::optional<v1::EventRecord> event;
  // Further conditions and changes of the same batch.
  CatalogBatch batch;
  // Write nothing.
  bool skip = false;
};

// Reads the model, calls `plan` to fill in the change, and writes it durably; retries
// if another writer was faster. Returns the model as written or, if skipped, as
// planned. NOT_FOUND if there is no such model; else the error of `plan`.
absl::StatusOr<v1::ModelRecord> ChangeModel(
    StoreCore& core, absl::string_view model_id, StoreCore::Room room,
    absl::FunctionRef<absl::Status(ModelChange& change)> plan);

// Adds the log entry of the model's generation, which was just set, and trims the log.
void AddEvent(const v1::ModelRecord& model, const v1::EventRecord& event,
              CatalogBatch& batch);

// NOT_FOUND if `uid` is given and not the model's: the model was deleted and created
// again.
absl::Status CheckUid(const v1::ModelRecord& model, absl::string_view uid);

}  // namespace modelstore::storage
