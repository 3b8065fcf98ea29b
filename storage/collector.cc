#include "storage/collector.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "proto/contract/errors.h"
#include "storage/copy_forward.h"
#include "storage/keys.h"
#include "storage/record_codec.h"
#include "storage/status_macros.h"

namespace modelstore::storage {
namespace {

// A deletion waits so long for a running collection.
constexpr absl::Duration kDeletionPatience = absl::Milliseconds(200);
constexpr absl::Duration kCollectionPatience = absl::Minutes(5);
constexpr size_t kSpreadAtOnce = 500;
constexpr int64_t kProgressEvery = 256;

// Each once.
std::vector<uint64_t> PacksOf(const std::vector<v1::DeadCheckpointRecord>& dead) {
  absl::flat_hash_set<uint64_t> packs;
  for (const auto& one : dead) packs.insert(one.packs().begin(), one.packs().end());
  return std::vector<uint64_t>(packs.begin(), packs.end());
}

}  // namespace

class Collector::Turn {
 public:
  Turn(Collector* collector, absl::Duration patience)
      : collector_(collector), taken_(collector->Begin(patience)) {}
  ~Turn() {
    if (taken_) collector_->End();
  }
  bool taken() const { return taken_; }

 private:
  Collector* const collector_;
  const bool taken_;
};

bool Collector::Begin(absl::Duration patience) {
  MutexLock lock(mutex_);
  if (!ended_.WaitFor(mutex_, patience,
                      [this]() REQUIRES(mutex_) { return !collecting_; })) {
    return false;
  }
  collecting_ = true;
  return true;
}

void Collector::End() {
  MutexLock lock(mutex_);
  collecting_ = false;
  ended_.NotifyAll();
}

DeadBytes Collector::last_measure() {
  MutexLock lock(mutex_);
  return last_;
}

absl::StatusOr<std::vector<v1::DeadCheckpointRecord>> Collector::ReadDead(
    const std::string& prefix) {
  std::vector<v1::DeadCheckpointRecord> dead;
  absl::Status status;
  RETURN_IF_ERROR(core_.catalog().Scan(Space::kRecords, PrefixRange(prefix),
                                       [&](absl::string_view, absl::string_view value) {
                                         absl::StatusOr<v1::DeadCheckpointRecord> record =
                                             Decode<v1::DeadCheckpointRecord>(value);
                                         if (!record.ok()) {
                                           status = record.status();
                                           return false;
                                         }
                                         dead.push_back(*std::move(record));
                                         return true;
                                       }));
  RETURN_IF_ERROR(status);
  return dead;
}

absl::StatusOr<Freed> Collector::AfterDeletion(
    const std::string& model_uid, const absl::flat_hash_set<int64_t>& versions) {
  // They are deleted, durably: whatever fails from here on is no failure of the
  // deletion, and the next collection goes on with it.
  Freed freed;
  std::vector<v1::DeadCheckpointRecord> dead;
  for (int64_t version : versions) {
    absl::StatusOr<std::vector<v1::DeadCheckpointRecord>> one =
        ReadDead(keys::DeadCheckpoint(model_uid, version));
    if (!one.ok()) return freed;
    dead.insert(dead.end(), one->begin(), one->end());
  }
  absl::StatusOr<PackSizes> sizes = ReadPackSizes(core_);
  if (!sizes.ok() || dead.empty()) return freed;
  absl::StatusOr<Liveness> measured = MeasureLiveness(
      core_, *sizes, PacksOf(dead), [&](const std::string& uid, int64_t version) {
        return uid == model_uid && versions.contains(version);
      });
  Turn turn(this, kDeletionPatience);
  if (turn.taken()) {
    GarbageResult result;
    absl::StatusOr<int64_t> went = Finalize(dead, *sizes, result);
    if (went.ok()) freed.freed_bytes = *went;
  }
  if (measured.ok()) {
    freed.waiting_bytes =
        std::max<int64_t>(0, measured->bytes.waiting_bytes - freed.freed_bytes);
  }
  return freed;
}

absl::StatusOr<Freed> Collector::AfterModelDeletion(const v1::ModelRecord& model) {
  Freed freed;
  absl::StatusOr<PackSizes> sizes = ReadPackSizes(core_);
  Turn turn(this, kDeletionPatience);
  if (!turn.taken() || !sizes.ok()) {
    freed.waiting_bytes = model.stored_bytes();
    return freed;
  }
  const std::string uid = model.uid();
  absl::StatusOr<std::optional<v1::DeadModelRecord>> record =
      GetRecord<v1::DeadModelRecord>(core_.catalog(), keys::DeadModel(uid));
  if (!record.ok() || !record->has_value() || !SpreadDeadModel(**record).ok()) {
    freed.waiting_bytes = model.stored_bytes();
    return freed;
  }
  std::string prefix = keys::DeadCheckpoint(uid, 0);
  prefix.resize(prefix.size() - sizeof(int64_t));
  absl::StatusOr<std::vector<v1::DeadCheckpointRecord>> dead = ReadDead(prefix);
  if (!dead.ok()) {
    freed.waiting_bytes = model.stored_bytes();
    return freed;
  }
  absl::StatusOr<Liveness> measured =
      MeasureLiveness(core_, *sizes, PacksOf(*dead),
                      [&](const std::string& other, int64_t) { return other == uid; });
  GarbageResult result;
  absl::StatusOr<int64_t> went = Finalize(*dead, *sizes, result);
  if (went.ok()) freed.freed_bytes = *went;
  if (measured.ok()) {
    freed.waiting_bytes =
        std::max<int64_t>(0, measured->bytes.waiting_bytes - freed.freed_bytes);
  }
  return freed;
}

void Collector::AfterUploadDeletion() {
  Turn turn(this, kDeletionPatience);
  absl::StatusOr<PackSizes> sizes = ReadPackSizes(core_);
  if (!turn.taken() || !sizes.ok()) return;
  GarbageResult result;
  DropUnnamed(/*validate_only=*/false, *sizes, nullptr, result).IgnoreError();
}

// Turns the versions of a deleted model into deleted versions, some at a time:
// there may be very many.
absl::Status Collector::SpreadDeadModel(const v1::DeadModelRecord& model) {
  bool more = true;
  while (more) {
    CatalogBatch batch;
    std::string last_key;
    more = false;
    RETURN_IF_ERROR(core_.catalog().Scan(
        Space::kRecords, PrefixRange(keys::Versions(model.model_uid())),
        [&](absl::string_view key, absl::string_view value) {
          if (batch.changes().size() >= 2 * kSpreadAtOnce) {
            more = true;
            return false;
          }
          absl::StatusOr<v1::CheckpointRecord> version =
              Decode<v1::CheckpointRecord>(value);
          v1::DeadCheckpointRecord dead;
          dead.set_model_uid(model.model_uid());
          dead.set_model_id(model.model_id());
          dead.set_version(keys::VersionOf(key));
          if (version.ok()) {
            dead.set_manifest_id(version->manifest_id());
            *dead.mutable_packs() = version->packs();
          }
          dead.set_dead_since_us(model.dead_since_us());
          batch.Delete(Space::kRecords, std::string(key));
          batch.Put(Space::kRecords,
                    keys::DeadCheckpoint(model.model_uid(), dead.version()),
                    Encode(dead));
          return true;
        }));
    for (const std::string& remains :
         {keys::Requests(model.model_uid()), keys::Aliases(model.model_uid()),
          keys::AliasMoves(model.model_uid()), keys::Events(model.model_uid()),
          keys::Leases(model.model_uid())}) {
      RETURN_IF_ERROR(
          core_.catalog().Scan(Space::kRecords, PrefixRange(remains),
                               [&](absl::string_view key, absl::string_view) {
                                 if (batch.changes().size() >= 4 * kSpreadAtOnce) {
                                   more = true;
                                   return false;
                                 }
                                 batch.Delete(Space::kRecords, std::string(key));
                                 return true;
                               }));
    }
    if (!more) batch.Delete(Space::kRecords, keys::DeadModel(model.model_uid()));
    RETURN_IF_ERROR(core_.WriteSettled(
        batch, Durability::kBuffered, StoreCore::Room::kFreesSpace,
        [] { return absl::StatusOr<bool>(false); }));  // may be written twice
  }
  return absl::OkStatus();
}

absl::Status Collector::SpreadDeadModels() {
  std::vector<v1::DeadModelRecord> models;
  RETURN_IF_ERROR(core_.catalog().Scan(Space::kRecords, PrefixRange(keys::DeadModels()),
                                       [&](absl::string_view, absl::string_view value) {
                                         absl::StatusOr<v1::DeadModelRecord> model =
                                             Decode<v1::DeadModelRecord>(value);
                                         if (model.ok())
                                           models.push_back(*std::move(model));
                                         return true;
                                       }));
  for (const auto& model : models) RETURN_IF_ERROR(SpreadDeadModel(model));
  return absl::OkStatus();
}

absl::Status Collector::FinalizeOne(const v1::DeadCheckpointRecord& dead,
                                    Durability durability, Unused& unused) {
  CatalogBatch batch;
  const std::string key = keys::DeadCheckpoint(dead.model_uid(), dead.version());
  batch.Delete(Space::kRecords, key);
  Unused mine;
  std::vector<uint64_t> gone;
  for (uint64_t pack : dead.packs()) {
    const std::string own = keys::PackUse(pack, dead.model_uid(), dead.version());
    batch.Delete(Space::kRecords, own);
    bool others = false;
    v1::PackRecord record;
    RETURN_IF_ERROR(core_.catalog().Scan(
        Space::kRecords, PrefixRange(keys::Pack(pack)),
        [&](absl::string_view found, absl::string_view value) {
          if (found == keys::Pack(pack)) {
            record.ParseFromArray(value.data(), static_cast<int>(value.size()));
          } else if (found != own) {
            others = true;
          }
          return !others;
        }));
    if (others) continue;
    batch.Delete(Space::kRecords, keys::Pack(pack));
    gone.push_back(pack);
    if (keys::IsInlinePack(pack)) {
      for (uint32_t c = 0; c < record.chunk_count(); ++c) {
        batch.Delete(Space::kChunks, keys::Chunk(pack, c));
      }
      mine.inline_bytes += record.chunk_bytes();
    } else if (record.has_place()) {
      mine.shared.push_back(record.place().pack());
    } else {
      mine.packs.push_back(pack);
    }
  }
  RETURN_IF_ERROR(core_.catalog().Scan(
      Space::kManifests, PrefixRange(keys::ManifestPages(dead.manifest_id())),
      [&](absl::string_view page, absl::string_view) {
        batch.Delete(Space::kManifests, std::string(page));
        return true;
      }));
  RETURN_IF_ERROR(core_.WriteSettled(batch, durability, StoreCore::Room::kFreesSpace,
                                     core_.KeyIs(Space::kRecords, key, std::nullopt)));
  for (uint64_t pack : gone) core_.places.Forget(pack);
  unused.packs.insert(unused.packs.end(), mine.packs.begin(), mine.packs.end());
  unused.shared.insert(unused.shared.end(), mine.shared.begin(), mine.shared.end());
  unused.inline_bytes += mine.inline_bytes;
  return absl::OkStatus();
}

absl::StatusOr<int64_t> Collector::Finalize(
    const std::vector<v1::DeadCheckpointRecord>& dead, const PackSizes& sizes,
    GarbageResult& result) {
  std::vector<const v1::DeadCheckpointRecord*> ending;
  for (const v1::DeadCheckpointRecord& one : dead) {
    if (core_.holds.BeginFinalize(one.model_uid(), one.version(),
                                  absl::FromUnixMicros(one.dead_since_us()))) {
      ending.push_back(&one);
    }
  }
  Unused unused;
  absl::Status status;
  for (const v1::DeadCheckpointRecord* one : ending) {
    // A pack may go only once the records that named it are gone for good; the
    // last durable write covers those before it.
    const Durability durability =
        one == ending.back() ? Durability::kDurable : Durability::kBuffered;
    if (status.ok()) status = FinalizeOne(*one, durability, unused);
    core_.holds.EndFinalize(one->model_uid(), one->version());
  }
  RETURN_IF_ERROR(status);
  absl::flat_hash_set<uint64_t> going(unused.packs.begin(), unused.packs.end());
  if (!unused.shared.empty()) {
    going.insert(unused.shared.begin(), unused.shared.end());
    ASSIGN_OR_RETURN(const std::vector<uint64_t> named, core_.NamedPacks());
    for (uint64_t pack : named) going.erase(pack);
  }
  int64_t freed = unused.inline_bytes;
  for (uint64_t pack : going) {
    auto size = sizes.find(pack);
    if (size != sizes.end()) freed += size->second;
  }
  if (!going.empty()) {
    core_.garbage_possible = true;  // until they are dropped
    RETURN_IF_ERROR(
        core_.chunks().DropPacks(std::vector<uint64_t>(going.begin(), going.end())));
  }
  result.dropped_packs += static_cast<int64_t>(going.size());
  result.freed_bytes += freed;
  return freed;
}

absl::Status Collector::SweepManifests() {
  std::vector<std::string> rows;
  RETURN_IF_ERROR(core_.catalog().Scan(Space::kRecords,
                                       PrefixRange(keys::RunningManifests()),
                                       [&](absl::string_view key, absl::string_view) {
                                         rows.emplace_back(key);
                                         return true;
                                       }));
  // Read after the rows: one that is in neither has ended, and if its row is
  // there still, it came to nothing.
  const absl::flat_hash_set<uint64_t> running = core_.running_manifests.All();
  for (const std::string& row : rows) {
    const uint64_t id = keys::RunningManifestOf(row);
    if (running.contains(id)) continue;
    CatalogBatch batch;
    batch.Expect(Space::kRecords, row, "");
    batch.Delete(Space::kRecords, row);
    RETURN_IF_ERROR(
        core_.catalog().Scan(Space::kManifests, PrefixRange(keys::ManifestPages(id)),
                             [&](absl::string_view key, absl::string_view) {
                               batch.Delete(Space::kManifests, std::string(key));
                               return true;
                             }));
    const absl::Status status =
        core_.WriteSettled(batch, Durability::kBuffered, StoreCore::Room::kFreesSpace,
                           core_.KeyIs(Space::kRecords, row, std::nullopt));
    if (!status.ok() && !absl::IsAborted(status)) return status;
  }
  return absl::OkStatus();
}

absl::Status Collector::DropUnnamed(bool validate_only, const PackSizes& sizes,
                                    const Progress& progress, GarbageResult& result) {
  // `sizes` was read before: a pack that came later is not looked at.
  ASSIGN_OR_RETURN(const std::vector<uint64_t> names, core_.NamedPacks());
  const absl::flat_hash_set<uint64_t> named(names.begin(), names.end());
  std::vector<uint64_t> unnamed;
  int64_t bytes = 0, checked = 0;
  const int64_t total = static_cast<int64_t>(sizes.size());
  for (const auto& [pack, size] : sizes) {
    if (!named.contains(pack)) {
      unnamed.push_back(pack);
      bytes += size;
    }
    ++checked;
    if (progress && (checked % kProgressEvery == 0 || checked == total) &&
        !progress(checked, total)) {
      return absl::CancelledError("the collection was stopped");
    }
  }
  if (!unnamed.empty() && !validate_only) {
    RETURN_IF_ERROR(core_.chunks().DropPacks(unnamed));
  }
  result.dropped_packs += static_cast<int64_t>(unnamed.size());
  result.freed_bytes += bytes;
  return absl::OkStatus();
}

absl::Status Collector::MakeRoom(bool validate_only, const PackSizes& sizes,
                                 const Progress& progress, GarbageResult& result) {
  ASSIGN_OR_RETURN(Liveness measured,
                   MeasureLiveness(core_, sizes, std::nullopt, nullptr));
  CopyForward copy(&core_, &sizes, measured, &stuck_);
  if (validate_only) {
    result.freed_bytes += copy.planned_bytes();
    result.reclaimable_bytes -= copy.planned_bytes();
  } else if (!copy.empty()) {
    const int64_t total = static_cast<int64_t>(sizes.size());
    ASSIGN_OR_RETURN(const int64_t freed, copy.Run([&] {
      return !progress || progress(total, total);
    }));
    result.freed_bytes += freed;
    ASSIGN_OR_RETURN(const PackSizes now, ReadPackSizes(core_));
    ASSIGN_OR_RETURN(measured, MeasureLiveness(core_, now, std::nullopt, nullptr));
  }
  MutexLock lock(mutex_);
  last_ = measured.bytes;
  return absl::OkStatus();
}

absl::StatusOr<GarbageResult> Collector::Collect(UploadTable& uploads, bool validate_only,
                                                 const Progress& progress) {
  GarbageResult result;
  // Before the turn is taken: deleting uploads takes it too.
  const absl::Time now = core_.options.now();
  if (!validate_only && now >= core_.started_at() + core_.options.start_grace) {
    result.expired_uploads = uploads.SweepExpired(now);
  }
  Turn turn(this, kCollectionPatience);
  if (!turn.taken()) return Unavailable("another collection is running", 5000);
  // Whatever becomes garbage from here on is for the next one.
  const bool possible = core_.garbage_possible.exchange(false);
  auto run = [&]() -> absl::Status {
    ASSIGN_OR_RETURN(const PackSizes before, ReadPackSizes(core_));
    if (!validate_only) {
      RETURN_IF_ERROR(SpreadDeadModels());
      ASSIGN_OR_RETURN(const std::vector<v1::DeadCheckpointRecord> dead,
                       ReadDead(keys::DeadCheckpoints()));
      RETURN_IF_ERROR(Finalize(dead, before, result).status());
      RETURN_IF_ERROR(SweepManifests());
    }
    ASSIGN_OR_RETURN(const PackSizes sizes, ReadPackSizes(core_));
    if (possible || validate_only || progress) {
      RETURN_IF_ERROR(DropUnnamed(validate_only, sizes, progress, result));
    }
    if (!possible && !validate_only) return absl::OkStatus();
    return MakeRoom(validate_only, sizes, progress, result);
  };
  const absl::Status status = run();
  if (!status.ok() || validate_only) core_.garbage_possible = true;
  RETURN_IF_ERROR(status);
  core_.RestoreBallast();
  const DeadBytes measured = last_measure();
  result.waiting_bytes = measured.waiting_bytes;
  result.reclaimable_bytes += measured.reclaimable_bytes;
  // Waiting bytes become free by time alone.
  if (measured.waiting_bytes > 0) core_.garbage_possible = true;
  return result;
}

}  // namespace modelstore::storage
