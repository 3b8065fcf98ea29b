// Changes of a model: a compare-and-set on its record and one entry in its log of events.
// Everything that changes a model, its versions, aliases or leases goes through it, a
// commit, or the deletion of the model, each of which expects the record unchanged. So
// two changes never miss each other.
#pragma once

#include <optional>

#include "absl/functional/function_ref.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "storage/core.h"

namespace modelstore::storage {

// One planned change.
struct ModelChange {
  // The model as it was read, for `plan` to change. ChangeModel() sets generation and
  // update time if there is an event.
  v1::ModelRecord model;
  // The entry for the log. Absent: etags and watchers do not see the change, and `plan`
  // must set a value in the model that no other change sets, such as a random number, so
  // that an undecided write can be recognized.
  std::optional<v1::EventRecord> event;
  // Further conditions and changes of the same batch.
  CatalogBatch batch;
  // Writes nothing; the model is returned as planned.
  bool skip = false;
};

// Reads the model, calls `plan` to fill in the change, and writes it durably. If another
// writer was faster it starts again, so `plan` may be called several times. Returns the
// model as written or, if skipped, as planned. NOT_FOUND if there is no such model, or it
// was deleted and created again between two attempts; the error of `plan`; or the errors
// of StoreCore::WriteResolved().
absl::StatusOr<v1::ModelRecord> ChangeModel(
    StoreCore& core, absl::string_view model_id, StoreCore::Room room,
    absl::FunctionRef<absl::Status(ModelChange& change)> plan);

// Adds the log entry for the model's generation, which the caller has just incremented,
// and deletes the entry that is 1024 generations older.
void AddEvent(const v1::ModelRecord& model, const v1::EventRecord& event,
              CatalogBatch& batch);

// NOT_FOUND if `uid` is not empty and is not the model's: the model was deleted and
// created again.
absl::Status CheckUid(const v1::ModelRecord& model, absl::string_view uid);

}  // namespace modelstore::storage
