// Changes of a model's life: a compare-and-set on its record, and one entry in
// its log for each.
#pragma once

#include <optional>

#include "absl/functional/function_ref.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "storage/core.h"

namespace modelstore::storage {

// What a change is to be.
struct ModelChange {
  // As it was read; to be altered. Generation and update time are set by
  // ChangeModel() if there is an event.
  v1::ModelRecord model;
  // Absent: nothing that an etag or a watcher would notice; then `plan` alters the
  // model in a way that no other change does.
  std::optional<v1::EventRecord> event;
  // Further conditions and changes that belong to it.
  CatalogBatch batch;
  // There is nothing to do.
  bool skip = false;
};

// Reads the model, lets `plan` fill in the change, and writes it durably; anew if
// another writer was faster. Returns the model as it was written, or planned.
// NOT_FOUND if there is no such model, or what `plan` returns.
absl::StatusOr<v1::ModelRecord> ChangeModel(
    StoreCore& core, absl::string_view model_id, StoreCore::Room room,
    absl::FunctionRef<absl::Status(ModelChange& change)> plan);

// Adds the log's entry for the model's generation, which has just been set, and
// lets the oldest go.
void AddEvent(const v1::ModelRecord& model, const v1::EventRecord& event,
              CatalogBatch& batch);

// NOT_FOUND if `uid` is given and not the model's: one of this name was deleted and
// made anew.
absl::Status CheckUid(const v1::ModelRecord& model, absl::string_view uid);

}  // namespace modelstore::storage
