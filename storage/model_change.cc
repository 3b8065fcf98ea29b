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

constexpr int kLostRaces = 1000;
// Entries of a model's log. A watcher that was away for longer sees the sum.
constexpr uint64_t kKeptEvents = 1024;

absl::Status HeldBy(const v1::ModelRecord& model, int64_t version,
                    absl::string_view holder, absl::string_view remedy) {
  return absl::FailedPreconditionError(
      absl::StrCat(CheckpointNameOf(model.model_id(), version), " is held by ", holder,
                   ": ", remedy));
}

absl::Status HeldByAlias(const v1::ModelRecord& model, absl::string_view alias,
                         int64_t version) {
  return HeldBy(model, version, absl::StrCat("the alias ", alias),
                "move or delete the alias first");
}

absl::Status HeldByPin(const v1::ModelRecord& model, int64_t version) {
  return HeldBy(model, version, "its pin", "unpin it by UpdateCheckpoint first");
}

// The first lease under `prefix` that counts.
absl::Status CheckLeases(StoreCore& core, const v1::ModelRecord& model,
                         const std::string& prefix) {
  absl::Status held;
  RETURN_IF_ERROR(core.catalog().Scan(
      Space::kRecords, PrefixRange(prefix),
      [&](absl::string_view key, absl::string_view value) {
        absl::StatusOr<v1::LeaseRecord> lease = Decode<v1::LeaseRecord>(value);
        if (lease.ok() && !IsLive(core, *lease)) return true;
        const keys::LeaseKey named = keys::ParseLeaseKey(key);
        held = HeldBy(model, named.version, absl::StrCat("the lease of ", named.holder),
                      "let it expire, or release it");
        return false;
      }));
  return held;
}

}  // namespace

void AddEvent(const v1::ModelRecord& model, const v1::EventRecord& event,
              CatalogBatch& batch) {
  batch.Put(Space::kRecords, keys::Event(model.uid(), model.generation()), Encode(event));
  if (model.generation() > kKeptEvents) {
    batch.Delete(Space::kRecords,
                 keys::Event(model.uid(), model.generation() - kKeptEvents));
  }
}

absl::StatusOr<v1::ModelRecord> ChangeModel(
    StoreCore& core, absl::string_view model_id, StoreCore::Room room,
    absl::FunctionRef<absl::Status(ModelChange&)> plan) {
  const std::string key = keys::Model(model_id);
  for (int attempt = 0; attempt < kLostRaces; ++attempt) {
    ASSIGN_OR_RETURN(const std::optional<std::string> bytes,
                     core.catalog().Get(Space::kRecords, key));
    if (!bytes.has_value()) return NoSuch("model", ModelName(model_id));
    ModelChange change;
    ASSIGN_OR_RETURN(change.model, Decode<v1::ModelRecord>(*bytes));
    RETURN_IF_ERROR(plan(change));
    v1::ModelRecord& model = change.model;
    if (change.skip) return std::move(model);
    std::function<absl::StatusOr<bool>()> applied;
    if (change.event.has_value()) {
      model.set_generation(model.generation() + 1);
      model.set_update_time_us(core.NowUs());
      change.event->set_change_id(RandomNumber());
      AddEvent(model, *change.event, change.batch);
      applied =
          core.KeyIs(Space::kRecords, keys::Event(model.uid(), model.generation()),
                     Encode(*change.event));
    } else {
      applied = core.KeyIs(Space::kRecords, key, Encode(model));
    }
    change.batch.Expect(Space::kRecords, key, *bytes);
    change.batch.Put(Space::kRecords, key, Encode(model));
    if (room == StoreCore::Room::kOrdinary) {
      RETURN_IF_ERROR(core.space.CheckRoom(static_cast<int64_t>(bytes->size())));
    }
    const absl::Status status =
        core.WriteSettled(change.batch, Durability::kDurable, room, applied);
    if (absl::IsAborted(status)) continue;
    RETURN_IF_ERROR(status);
    if (change.event.has_value()) core.Changed(model.uid());
    return std::move(model);
  }
  return absl::AbortedError(
      absl::StrCat(ModelName(model_id), ": too many writers change it at once"));
}

bool IsLive(const StoreCore& core, const v1::LeaseRecord& lease) {
  const absl::Time now = core.options.now();
  return now < core.started_at() + core.options.start_grace ||
         now < absl::FromUnixMicros(lease.expire_time_us());
}

absl::Status CheckNotHeld(StoreCore& core, const v1::ModelRecord& model,
                          const v1::CheckpointRecord& checkpoint) {
  const int64_t version = checkpoint.version();
  for (const auto& [alias, named] : model.aliases()) {
    if (named == version) return HeldByAlias(model, alias, version);
  }
  if (checkpoint.pinned()) return HeldByPin(model, version);
  return CheckLeases(core, model, keys::Leases(model.uid(), version));
}

absl::Status CheckNoneHeld(StoreCore& core, const v1::ModelRecord& model) {
  for (const auto& [alias, version] : model.aliases()) {
    return HeldByAlias(model, alias, version);
  }
  if (model.pinned_count() > 0) {
    int64_t pinned = 0;
    RETURN_IF_ERROR(core.catalog().Scan(
        Space::kRecords, PrefixRange(keys::Versions(model.uid())),
        [&](absl::string_view key, absl::string_view value) {
          absl::StatusOr<v1::CheckpointRecord> record =
              Decode<v1::CheckpointRecord>(value);
          if (record.ok() && record->pinned()) pinned = keys::VersionOf(key);
          return pinned == 0;
        }));
    if (pinned != 0) return HeldByPin(model, pinned);
  }
  return CheckLeases(core, model, keys::Leases(model.uid()));
}

}  // namespace modelstore::storage
