#include "storage/garbage/collector.h"

#include <algorithm>
#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "proto/contract/errors.h"
#include "proto/contract/limits.h"
#include "proto/contract/steady_time.h"
#include "storage/garbage/copy_forward.h"
#include "storage/garbage/repair.h"
#include "storage/keys.h"
#include "storage/record_codec.h"
#include "storage/status_macros.h"

namespace modelstore::storage {
namespace {

// Time that a deletion waits for a running collection, and that a collection waits for
// another.
constexpr absl::Duration kDeletionTimeout = absl::Milliseconds(200);
constexpr absl::Duration kCollectionTimeout = absl::Minutes(5);
// How often a waiting collection checks whether its caller has cancelled.
constexpr absl::Duration kTurnPollInterval = absl::Milliseconds(200);
// Rows of a batch that expands a dead model (see ExpandBatch); dead checkpoints that are
// in memory at a time.
constexpr size_t kExpandBatchRows = 500;
constexpr size_t kFinalizeBatchRows = 4096;
// Batches that DeleteModel writes itself; the next collection writes the rest.
constexpr int kBatchesInCall = 3;
// Packs between two reports of progress.
constexpr int64_t kProgressEvery = 256;
// More pages than any manifest has: any two consecutive pages hold over 1 MiB together.
constexpr uint32_t kMostManifestPages = 256;
static_assert(kMostManifestPages * (int64_t{1} << 20) >=
              3 * (kMaxManifestBytes + kMaxAttachmentBytes));

// The packs of all of `dead`, each once.
std::vector<uint64_t> PacksOf(const std::vector<v1::DeadCheckpointRecord>& dead) {
  absl::flat_hash_set<uint64_t> packs;
  for (const auto& one : dead) packs.insert(one.packs().begin(), one.packs().end());
  return std::vector<uint64_t>(packs.begin(), packs.end());
}

// Adds the deletion of a manifest's pages to `batch`. If the pages cannot be scanned they
// are deleted by number: one damaged block must not keep a version for ever.
absl::Status DeleteManifest(StoreCore& core, uint64_t manifest_id, CatalogBatch& batch) {
  const absl::Status scanned = core.catalog().Scan(
      Space::kManifests, PrefixRange(keys::ManifestPages(manifest_id)),
      [&](absl::string_view page, absl::string_view) {
        batch.Delete(Space::kManifests, std::string(page));
        return true;
      });
  if (!absl::IsDataLoss(scanned) && !core.IsReadError(scanned)) return scanned;
  for (uint32_t page = 0; page < kMostManifestPages; ++page) {
    batch.Delete(Space::kManifests, keys::ManifestPage(manifest_id, page));
  }
  return absl::OkStatus();
}

// Whether the row is that of an open upload. Such rows are left to the upload, which
// deletes its journal and contributions together with its row.
bool IsOpenUpload(absl::string_view key, absl::string_view value) {
  if (!absl::StartsWith(key, keys::AllUploads())) return false;
  const absl::StatusOr<v1::UploadRecord> upload = Decode<v1::UploadRecord>(value);
  return upload.ok() && upload->committed_version() == 0;
}

// Turns one version of a dead model into a dead checkpoint. If its record is damaged its
// packs and manifest are not known: the dead checkpoint has none, and the uses of its
// packs stay.
void ExpandVersion(const v1::DeadModelRecord& model, absl::string_view key,
                   absl::string_view value, CatalogBatch& batch) {
  v1::DeadCheckpointRecord dead;
  dead.set_model_uid(model.model_uid());
  dead.set_model_id(model.model_id());
  dead.set_version(keys::VersionOf(key));
  absl::StatusOr<v1::CheckpointRecord> version = Decode<v1::CheckpointRecord>(value);
  if (version.ok()) {
    dead.set_manifest_id(version->manifest_id());
    *dead.mutable_packs() = version->packs();
  }
  dead.set_dead_since_us(model.dead_since_us());
  batch.Delete(Space::kRecords, std::string(key));
  batch.Put(Space::kRecords, keys::DeadCheckpoint(model.model_uid(), dead.version()),
            Encode(dead));
}

}  // namespace

class Collector::Turn {
 public:
  Turn(Collector* collector, absl::Duration patience, const Progress& progress = nullptr)
      : collector_(collector), taken_(collector->Begin(patience, progress)) {}
  ~Turn() {
    if (taken_) collector_->End();
  }
  bool taken() const { return taken_; }

 private:
  Collector* const collector_;
  const bool taken_;
};

bool Collector::Begin(absl::Duration patience, const Progress& progress) {
  const absl::Time give_up = SteadyNow() + patience;
  MutexLock lock(mutex_);
  while (!ended_.WaitFor(mutex_, std::min(patience, kTurnPollInterval),
                         [this]() REQUIRES(mutex_) { return !collecting_; })) {
    if (SteadyNow() >= give_up || (progress && !progress(0, 0))) return false;
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
    KeyRange& range) {
  std::vector<v1::DeadCheckpointRecord> dead;
  absl::Status status;
  RETURN_IF_ERROR(VisitBatch(range, [&](absl::string_view, absl::string_view value) {
                    if (dead.size() == kFinalizeBatchRows) return false;
                    absl::StatusOr<v1::DeadCheckpointRecord> record =
                        Decode<v1::DeadCheckpointRecord>(value);
                    status = record.status();
                    if (record.ok()) dead.push_back(*std::move(record));
                    return status.ok();
                  }).status());
  RETURN_IF_ERROR(status);
  return dead;
}

absl::StatusOr<Freed> Collector::AfterDeletion(
    const std::string& model_uid, const absl::flat_hash_set<int64_t>& versions) {
  // The deletion is durable: errors from here on do not fail it, and the next
  // collection continues.
  Freed freed;
  std::vector<v1::DeadCheckpointRecord> dead;
  for (int64_t version : versions) {
    KeyRange range = PrefixRange(keys::DeadCheckpoint(model_uid, version));
    absl::StatusOr<std::vector<v1::DeadCheckpointRecord>> one = ReadDead(range);
    if (!one.ok()) return freed;
    dead.insert(dead.end(), one->begin(), one->end());
  }
  absl::StatusOr<PackSizes> sizes = ReadPackSizes(core_);
  if (!sizes.ok() || dead.empty()) return freed;
  // Measured before anything is freed, over these versions alone.
  absl::StatusOr<Liveness> measured = MeasureLiveness(
      core_, *sizes, PacksOf(dead), [&](const std::string& uid, int64_t version) {
        return uid == model_uid && versions.contains(version);
      });
  Turn turn(this, kDeletionTimeout);
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
  Freed later;
  later.waiting_bytes = model.stored_bytes();
  Turn turn(this, kDeletionTimeout);
  const std::string uid = model.uid();
  absl::StatusOr<std::optional<v1::DeadModelRecord>> record =
      GetRecord<v1::DeadModelRecord>(core_.catalog(), keys::DeadModel(uid));
  if (!turn.taken() || !record.ok() || !record->has_value()) return later;
  // The caller does not wait for all of a large model.
  int batches = 0;
  if (!ExpandDeadModel(**record, [&] { return ++batches <= kBatchesInCall; }).ok()) {
    return later;
  }
  // The prefix of all dead checkpoints of the model: the key without its version.
  std::string prefix = keys::DeadCheckpoint(uid, 0);
  prefix.resize(prefix.size() - sizeof(int64_t));
  KeyRange range = PrefixRange(prefix);
  absl::StatusOr<std::vector<v1::DeadCheckpointRecord>> dead = ReadDead(range);
  absl::StatusOr<PackSizes> sizes = ReadPackSizes(core_);
  if (!dead.ok() || !sizes.ok()) return later;
  absl::StatusOr<Liveness> measured =
      MeasureLiveness(core_, *sizes, PacksOf(*dead),
                      [&](const std::string& other, int64_t) { return other == uid; });
  GarbageResult result;
  absl::StatusOr<int64_t> went = Finalize(*dead, *sizes, result);
  Freed freed;
  if (went.ok()) freed.freed_bytes = *went;
  if (measured.ok()) {
    freed.waiting_bytes =
        std::max<int64_t>(0, measured->bytes.waiting_bytes - freed.freed_bytes);
  }
  return freed;
}

void Collector::AfterUploadDeletion() {
  Turn turn(this, kDeletionTimeout);
  absl::StatusOr<PackSizes> sizes = ReadPackSizes(core_);
  if (!turn.taken() || !sizes.ok()) return;
  GarbageResult result;
  DropUnnamed(/*validate_only=*/false, *sizes, nullptr, result).IgnoreError();
}

// `visit` returns false at the first row that it does not take.
absl::StatusOr<bool> Collector::VisitBatch(
    KeyRange& range,
    absl::FunctionRef<bool(absl::string_view, absl::string_view)> visit) {
  bool more = false;
  std::string last;
  RETURN_IF_ERROR(core_.catalog().Scan(
      Space::kRecords, range, [&](absl::string_view key, absl::string_view value) {
        more = !visit(key, value);
        if (!more) last = std::string(key);
        return !more;
      }));
  // The next scan starts behind the rows that were deleted: it would have to pass their
  // tombstones otherwise.
  if (!last.empty()) range.begin = last + std::string(1, '\0');
  return more;
}

// A batch has up to 1000 changes for versions, two each, and up to 2000 in all. Buffered
// writes suffice: the dead model's record, which stays until a pass finds nothing, makes
// the work repeatable.
absl::StatusOr<int64_t> Collector::ExpandBatch(const v1::DeadModelRecord& model,
                                               const std::function<bool()>& keep_going) {
  const std::string& uid = model.model_uid();
  KeyRange versions = PrefixRange(keys::Versions(uid));
  std::vector<KeyRange> remains;
  for (const std::string& prefix :
       {keys::Requests(uid), keys::Aliases(uid), keys::AliasMoves(uid), keys::Events(uid),
        keys::Leases(uid), keys::Uploads(uid)}) {
    remains.push_back(PrefixRange(prefix));
  }
  int64_t changes = 0;
  for (bool more = true; more;) {
    if (!keep_going()) return absl::CancelledError("the collection was stopped");
    CatalogBatch batch;
    ASSIGN_OR_RETURN(
        more, VisitBatch(versions, [&](absl::string_view key, absl::string_view value) {
          if (batch.changes().size() >= 2 * kExpandBatchRows) return false;
          ExpandVersion(model, key, value, batch);
          return true;
        }));
    for (KeyRange& range : remains) {
      ASSIGN_OR_RETURN(const bool left, VisitBatch(range, [&](absl::string_view key,
                                                              absl::string_view value) {
                         if (batch.changes().size() >= 4 * kExpandBatchRows) return false;
                         if (!IsOpenUpload(key, value))
                           batch.Delete(Space::kRecords, std::string(key));
                         return true;
                       }));
      more = more || left;
    }
    if (batch.empty()) continue;
    changes += static_cast<int64_t>(batch.changes().size());
    RETURN_IF_ERROR(core_.WriteResolved(
        batch, Durability::kBuffered, StoreCore::Room::kFreesSpace,
        [] { return absl::StatusOr<bool>(false); }));  // may be written twice
  }
  return changes;
}

absl::Status Collector::ExpandDeadModel(const v1::DeadModelRecord& model,
                                        const std::function<bool()>& keep_going) {
  // A reopening after a fault may undo buffered writes, so the record is deleted only
  // after a whole pass has found nothing.
  while (true) {
    ASSIGN_OR_RETURN(const int64_t changes, ExpandBatch(model, keep_going));
    if (changes == 0) break;
  }
  CatalogBatch batch;
  batch.Delete(Space::kRecords, keys::DeadModel(model.model_uid()));
  // Not retried here: after a reopening the pass must be made again, which the next
  // collection does.
  const absl::Status status = core_.catalog().Write(batch, Durability::kDurable);
  if (absl::IsResourceExhausted(status) || absl::IsUnavailable(status)) {
    core_.ReleaseBallast();
    core_.ReopenIfClosed().IgnoreError();
  }
  return status;
}

absl::Status Collector::ExpandDeadModels(const std::function<bool()>& keep_going) {
  std::vector<v1::DeadModelRecord> models;
  RETURN_IF_ERROR(core_.catalog().Scan(Space::kRecords, PrefixRange(keys::DeadModels()),
                                       [&](absl::string_view, absl::string_view value) {
                                         absl::StatusOr<v1::DeadModelRecord> model =
                                             Decode<v1::DeadModelRecord>(value);
                                         if (model.ok())
                                           models.push_back(*std::move(model));
                                         return true;
                                       }));
  for (const auto& model : models) RETURN_IF_ERROR(ExpandDeadModel(model, keep_going));
  return absl::OkStatus();
}

absl::Status Collector::FinalizeOne(const v1::DeadCheckpointRecord& dead,
                                    Durability durability, UnusedPacks& unused) {
  CatalogBatch batch;
  const std::string key = keys::DeadCheckpoint(dead.model_uid(), dead.version());
  batch.Delete(Space::kRecords, key);
  UnusedPacks mine;
  for (uint64_t pack : dead.packs()) {
    RETURN_IF_ERROR(
        ReleasePack(core_, pack, dead.model_uid(), dead.version(), batch, mine));
  }
  RETURN_IF_ERROR(DeleteManifest(core_, dead.manifest_id(), batch));
  RETURN_IF_ERROR(core_.WriteResolved(batch, durability, StoreCore::Room::kFreesSpace,
                                      core_.KeyIs(Space::kRecords, key, std::nullopt)));
  for (uint64_t pack : mine.gone) {
    core_.places.Forget(pack);
    core_.damage.Forget(pack);
  }
  unused.Add(mine);
  return absl::OkStatus();
}

absl::StatusOr<int64_t> Collector::Finalize(
    const std::vector<v1::DeadCheckpointRecord>& dead, const PackSizes& sizes,
    GarbageResult& result) {
  std::vector<const v1::DeadCheckpointRecord*> ending;
  for (const v1::DeadCheckpointRecord& one : dead) {
    // From here to EndFinalize() nobody can acquire a hold on it.
    if (core_.holds.BeginFinalize(one.model_uid(), one.version(),
                                  absl::FromUnixMicros(one.dead_since_us()))) {
      ending.push_back(&one);
    }
  }
  UnusedPacks unused;
  absl::Status status;
  for (const v1::DeadCheckpointRecord* one : ending) {
    // Packs may be dropped only after the deletion of the records that named them is
    // durable. The durable write of the last version covers the buffered ones before it.
    const Durability durability =
        one == ending.back() ? Durability::kDurable : Durability::kBuffered;
    // After a failure the rest is not finalized, but EndFinalize() must still be called
    // for each.
    if (status.ok()) status = FinalizeOne(*one, durability, unused);
    core_.holds.EndFinalize(one->model_uid(), one->version());
  }
  RETURN_IF_ERROR(status);
  absl::flat_hash_set<uint64_t> going(unused.packs.begin(), unused.packs.end());
  // Packs that host the chunks of several others are dropped only if no other one names
  // them.
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

absl::Status Collector::FinalizeAll(const PackSizes& sizes,
                                    const std::function<bool()>& keep_going,
                                    GarbageResult& result) {
  KeyRange range = PrefixRange(keys::DeadCheckpoints());
  while (true) {
    ASSIGN_OR_RETURN(const std::vector<v1::DeadCheckpointRecord> dead, ReadDead(range));
    if (dead.empty()) return absl::OkStatus();
    RETURN_IF_ERROR(Finalize(dead, sizes, result).status());
    if (!keep_going()) return absl::CancelledError("the collection was stopped");
  }
}

absl::Status Collector::SweepManifests() {
  std::vector<std::string> rows;
  RETURN_IF_ERROR(core_.catalog().Scan(Space::kRecords,
                                       PrefixRange(keys::RunningManifests()),
                                       [&](absl::string_view key, absl::string_view) {
                                         rows.emplace_back(key);
                                         return true;
                                       }));
  // Read after the rows: a commit that is not in it has ended. If its row still exists,
  // which a commit deletes, then nothing was committed.
  const absl::flat_hash_set<uint64_t> running = core_.running_manifests.All();
  for (const std::string& row : rows) {
    const uint64_t id = keys::RunningManifestOf(row);
    if (running.contains(id)) continue;
    CatalogBatch batch;
    batch.Expect(Space::kRecords, row, "");
    batch.Delete(Space::kRecords, row);
    RETURN_IF_ERROR(DeleteManifest(core_, id, batch));
    const absl::Status status =
        core_.WriteResolved(batch, Durability::kBuffered, StoreCore::Room::kFreesSpace,
                            core_.KeyIs(Space::kRecords, row, std::nullopt));
    if (!status.ok() && !absl::IsAborted(status)) return status;
  }
  return absl::OkStatus();
}

absl::Status Collector::DropUnnamed(bool validate_only, const PackSizes& sizes,
                                    const Progress& progress, GarbageResult& result) {
  // `sizes` was read before the names: a pack that was published later is not in it and
  // cannot be dropped by mistake.
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

absl::Status Collector::FreeSpace(bool validate_only, const PackSizes& sizes,
                                  const Progress& progress, GarbageResult& result) {
  ASSIGN_OR_RETURN(Liveness measured,
                   MeasureLiveness(core_, sizes, std::nullopt, nullptr));
  // After copying, measures again what is left.
  CopyForward copy(&core_, &sizes, measured, &stuck_);
  if (validate_only) {
    result.freed_bytes += copy.planned_bytes();
    result.reclaimable_bytes -= copy.planned_bytes();
  } else if (!copy.empty()) {
    const int64_t total = static_cast<int64_t>(sizes.size());
    ASSIGN_OR_RETURN(const int64_t freed,
                     copy.Run([&] { return !progress || progress(total, total); }));
    result.freed_bytes += freed;
    ASSIGN_OR_RETURN(const PackSizes now, ReadPackSizes(core_));
    ASSIGN_OR_RETURN(measured, MeasureLiveness(core_, now, std::nullopt, nullptr));
  }
  MutexLock lock(mutex_);
  last_ = measured.bytes;
  return absl::OkStatus();
}

absl::StatusOr<GarbageResult> Collector::Collect(bool validate_only,
                                                 const Progress& progress) {
  GarbageResult result;
  Turn turn(this, kCollectionTimeout, progress);
  if (!turn.taken()) {
    if (progress && !progress(0, 0)) return absl::CancelledError("cancelled");
    return Overloaded("another collection is running: retry later", 5000);
  }
  // Set again by whatever becomes garbage from here on, for the next collection.
  bool possible = core_.garbage_possible.exchange(false);
  // The order of the steps matters; see the comments in them.
  auto run = [&]() -> absl::Status {
    ASSIGN_OR_RETURN(const PackSizes before, ReadPackSizes(core_));
    if (!validate_only) {
      const int64_t total = static_cast<int64_t>(before.size());
      const auto keep_going = [&] { return !progress || progress(0, total); };
      RETURN_IF_ERROR(ExpandDeadModels(keep_going));
      // Before deleted versions are finalized: one of them may have the only intact copy
      // of a chunk.
      Repair repair(&core_);
      RETURN_IF_ERROR(repair.Run(keep_going));
      // Packs may have lost their last use, and stuck packs the chunks that were damaged:
      // both are looked at again.
      if (repair.changed()) {
        possible = true;
        stuck_.clear();
      }
      RETURN_IF_ERROR(FinalizeAll(before, keep_going, result));
      RETURN_IF_ERROR(SweepManifests());
    }
    ASSIGN_OR_RETURN(const PackSizes sizes, ReadPackSizes(core_));
    if (possible || validate_only || progress) {
      RETURN_IF_ERROR(DropUnnamed(validate_only, sizes, progress, result));
    }
    if (!possible && !validate_only) return absl::OkStatus();
    return FreeSpace(validate_only, sizes, progress, result);
  };
  const absl::Status status = run();
  if (!status.ok() || validate_only) core_.garbage_possible = true;
  RETURN_IF_ERROR(status);
  core_.RestoreBallast();
  const DeadBytes measured = last_measure();
  result.waiting_bytes = measured.waiting_bytes;
  result.reclaimable_bytes += measured.reclaimable_bytes;
  // Waiting bytes become free with time, without any further change.
  if (measured.waiting_bytes > 0) core_.garbage_possible = true;
  return result;
}

}  // namespace modelstore::storage
