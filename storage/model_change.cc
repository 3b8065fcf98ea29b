#include "storage/model_change.h"

#include <string>
#include <utility>

#include "absl/strings/str_cat.h"
#include "proto/contract/errors.h"
#include "proto/contract/names.h"
#include "storage/keys.h"
#include "storage/random_id.h"
#include "storage/record_codec.h"
#include "storage/status_macros.h"

namespace modelstore::storage {
namespace {

// Attempts of a change that loses to other writers.
constexpr int kMaxAttempts = 1000;
// Entries of a model's log. A watcher that was away for longer gets the model's present
// state instead.
constexpr uint64_t kMaxEvents = 1024;

}  // namespace

void AddEvent(const v1::ModelRecord& model, const v1::EventRecord& event,
              CatalogBatch& batch) {
  batch.Put(Space::kRecords, keys::Event(model.uid(), model.generation()), Encode(event));
  if (model.generation() > kMaxEvents) {
    batch.Delete(Space::kRecords,
                 keys::Event(model.uid(), model.generation() - kMaxEvents));
  }
}

absl::StatusOr<v1::ModelRecord> ChangeModel(
    StoreCore& core, absl::string_view model_id, StoreCore::Room room,
    absl::FunctionRef<absl::Status(ModelChange&)> plan) {
  const std::string key = keys::Model(model_id);
  std::string uid;
  for (int attempt = 0; attempt < kMaxAttempts; ++attempt) {
    ASSIGN_OR_RETURN(const std::optional<std::string> bytes,
                     core.catalog().Get(Space::kRecords, key));
    if (!bytes.has_value()) return DoesNotExist("model", ModelName(model_id));
    ModelChange change;
    ASSIGN_OR_RETURN(change.model, Decode<v1::ModelRecord>(*bytes));
    // Another writer may have deleted the model, and a new one may have its name now.
    RETURN_IF_ERROR(CheckUid(change.model, uid));
    uid = change.model.uid();
    RETURN_IF_ERROR(plan(change));
    v1::ModelRecord& model = change.model;
    if (change.skip) return std::move(model);
    std::function<absl::StatusOr<bool>()> applied;
    if (change.event.has_value()) {
      model.set_generation(model.generation() + 1);
      model.set_update_time_us(core.NowUs());
      // Makes the entry unique, so that KeyIs() recognizes this change.
      change.event->set_change_id(RandomNumber());
      AddEvent(model, *change.event, change.batch);
      applied = core.KeyIs(Space::kRecords, keys::Event(model.uid(), model.generation()),
                           Encode(*change.event));
    } else {
      applied = core.KeyIs(Space::kRecords, key, Encode(model));
    }
    change.batch.Expect(Space::kRecords, key, *bytes);
    change.batch.Put(Space::kRecords, key, Encode(model));
    // Only estimates the size: `plan` checks the space for larger changes.
    if (room == StoreCore::Room::kNormalWrite) {
      RETURN_IF_ERROR(core.space.CheckSpace(static_cast<int64_t>(bytes->size())));
    }
    const absl::Status status =
        core.WriteResolved(change.batch, Durability::kDurable, room, applied);
    if (absl::IsAborted(status)) continue;
    RETURN_IF_ERROR(status);
    if (change.event.has_value()) core.Changed(model.uid());
    return std::move(model);
  }
  return Overloaded(absl::StrCat(ModelName(model_id), " was not changed: ", kMaxAttempts,
                                 " other changes came first: retry later"));
}

absl::Status CheckUid(const v1::ModelRecord& model, absl::string_view uid) {
  if (uid.empty() || uid == model.uid()) return absl::OkStatus();
  return DoesNotExist("model",
                      absl::StrCat(ModelName(model.model_id()), " of uid ", uid));
}

}  // namespace modelstore::storage
