#include "storage/core.h"

#include <utility>

#include "absl/strings/str_cat.h"
#include "proto/contract/errors.h"
#include "storage/keys.h"
#include "storage/status_macros.h"

namespace modelstore::storage {
namespace {

// Time that a caller waits for another thread's reopening; writes of one batch.
constexpr absl::Duration kReopenDeadline = absl::Seconds(60);
constexpr int kWriteAttempts = 3;

// Approximate bytes that a batch writes.
int64_t BytesOf(const CatalogBatch& batch) {
  int64_t bytes = 0;
  for (const CatalogBatch::Change& change : batch.changes()) {
    bytes += static_cast<int64_t>(change.key.size());
    if (change.value.has_value()) bytes += static_cast<int64_t>(change.value->size());
  }
  return bytes;
}

}  // namespace

RunningIds::Entry& RunningIds::Entry::operator=(Entry&& other) noexcept {
  if (this == &other) return *this;
  Leave();
  owner_ = std::exchange(other.owner_, nullptr);
  id_ = other.id_;
  return *this;
}

void RunningIds::Entry::Leave() {
  if (owner_ == nullptr) return;
  MutexLock lock(owner_->mutex_);
  owner_->ids_.erase(id_);
  owner_ = nullptr;
}

RunningIds::Entry RunningIds::Enter(uint64_t id) {
  MutexLock lock(mutex_);
  ids_.insert(id);
  return Entry(this, id);
}

absl::flat_hash_set<uint64_t> RunningIds::All() const {
  MutexLock lock(mutex_);
  return ids_;
}

StoreCore::StoreCore(StoreOptions given, Engine given_engine)
    : options(std::move(given)),
      engine(std::move(given_engine)),
      space(engine.free_bytes, options.reserve_bytes),
      clock(options.now, options.steady_now),
      holds(options.grace, [this] { return clock.Now(); }),
      manifests(engine.catalog.get()),
      places(&engine),
      damage(&engine, &places, &space) {}

void StoreCore::Event(Listener::Severity severity, absl::string_view message) const {
  if (options.listener != nullptr) options.listener->OnEvent(severity, message);
}

void StoreCore::Changed(absl::string_view model_uid) const {
  std::shared_ptr<const ModelWatch> watch;
  {
    MutexLock lock(watch_mutex_);
    watch = watch_;
  }
  if (watch != nullptr) (*watch)(model_uid);
}

void StoreCore::SetWatch(ModelWatch watch) {
  MutexLock lock(watch_mutex_);
  watch_ = watch ? std::make_shared<const ModelWatch>(std::move(watch)) : nullptr;
}

void StoreCore::ReleaseBallast() {
  if (!engine.release_ballast) return;
  ballast_released_ = true;
  engine.release_ballast();
}

void StoreCore::RestoreBallast() {
  if (!engine.restore_ballast || !ballast_released_) return;
  absl::StatusOr<int64_t> free = space.FreeBytes();
  if (!free.ok() || *free < options.reserve_bytes) return;
  ballast_released_ = false;
  engine.restore_ballast();
}

absl::StatusOr<PinnedBytes> StoreCore::ReadChecked(ChunkId chunk, const Digest& digest) {
  absl::StatusOr<PinnedBytes> bytes = places.Read(chunk);
  // Other errors, such as UNAVAILABLE, say nothing about the bytes.
  if (!bytes.ok() && !absl::IsNotFound(bytes.status()) &&
      !absl::IsDataLoss(bytes.status())) {
    return bytes.status();
  }
  if (bytes.ok() && ComputeDigest(digest.algorithm(), bytes->view()) == digest) {
    damage.Clear(chunk);
    return bytes;
  }
  damage.Mark(chunk);
  if (absl::IsDataLoss(bytes.status())) return bytes.status();
  return DataDamaged("chunk", absl::StrCat(chunk.pack, "/", chunk.sequence),
                     bytes.ok() ? "does not match its digest" : "is gone");
}

absl::StatusOr<std::vector<uint64_t>> StoreCore::NamedPacks() {
  // Read in the order in which a pack passes through these states: being written, in an
  // upload's journal, used by a checkpoint. So a pack that changes its state meanwhile is
  // seen in one of them.
  absl::flat_hash_set<uint64_t> packs = running_packs.All();
  RETURN_IF_ERROR(catalog().Scan(Space::kRecords, PrefixRange(keys::SealedPacks()),
                                 [&](absl::string_view key, absl::string_view) {
                                   packs.insert(keys::SealedPackOf(key));
                                   return true;
                                 }));
  RETURN_IF_ERROR(
      ScanPackRecords(catalog(), [&](uint64_t pack, const v1::PackRecord& record) {
        packs.insert(record.has_place() ? record.place().pack() : pack);
      }));
  absl::erase_if(packs, [](uint64_t pack) { return keys::IsInlinePack(pack); });
  return std::vector<uint64_t>(packs.begin(), packs.end());
}

absl::Status StoreCore::ReopenNow() {
  bool reopened = false;
  if (absl::Status health = catalog().Health(); !health.ok()) {
    Event(Listener::Severity::kWarning,
          absl::StrCat("reopening the catalog: ", health.message()));
    absl::Status status = catalog().Reopen();
    if (!status.ok()) {
      // A full disk is the one cause that the store can remedy.
      ReleaseBallast();
      status = catalog().Reopen();
    }
    RETURN_IF_ERROR(status);
    reopened = true;
  }
  if (absl::Status health = chunks().Health(); !health.ok()) {
    Event(Listener::Severity::kWarning,
          absl::StrCat("reopening the chunk store: ", health.message()));
    ASSIGN_OR_RETURN(std::vector<uint64_t> named, NamedPacks());
    absl::Status status = chunks().Reopen(named);
    if (!status.ok()) {
      ReleaseBallast();
      status = chunks().Reopen(named);
    }
    RETURN_IF_ERROR(status);
    reopened = true;
    // The reopening may have dropped packs whose files are damaged or gone.
    if (absl::Status found = damage.FindLostPacks(); !found.ok()) {
      Event(Listener::Severity::kWarning,
            absl::StrCat("looking for lost packs: ", found.message()));
    }
  }
  if (reopened) {
    ++reopen_count_;
    garbage_possible = true;
    // An undecided change may turn out to have been applied: watchers must look.
    Changed("");
    Event(Listener::Severity::kInfo, "storage is open again");
  }
  return absl::OkStatus();
}

absl::Status StoreCore::ReopenIfClosed() {
  MutexLock lock(reopen_mutex_);
  if (!reopened_.WaitFor(reopen_mutex_, kReopenDeadline,
                         [this]() REQUIRES(reopen_mutex_) { return !reopening_; })) {
    return Unavailable("storage is reopening", 1000);
  }
  reopening_ = true;
  // Reopening may take seconds, and others must be able to wait with their deadline.
  lock.Unlock();
  const absl::Status status = ReopenNow();
  lock.Lock();
  reopening_ = false;
  reopened_.NotifyAll();
  if (status.ok()) return status;
  Event(Listener::Severity::kError,
        absl::StrCat("storage could not be reopened: ", status.message()));
  // A full disk or a limit of descriptors: retrying alone does not help.
  if (absl::IsResourceExhausted(status)) return status;
  return Unavailable(absl::StrCat("storage cannot be reopened: ", status.message()),
                     5000);
}

absl::Status StoreCore::WriteResolved(
    const CatalogBatch& batch, Durability durability, Room room,
    const std::function<absl::StatusOr<bool>()>& applied) {
  absl::Status status;
  for (int attempt = 0; attempt < kWriteAttempts; ++attempt) {
    status = catalog().Write(batch, durability);
    // ABORTED is certain: the batch was not applied.
    if (status.ok() || absl::IsAborted(status)) return status;
    const bool full = absl::IsResourceExhausted(status);
    if (room == Room::kFreesSpace && (full || absl::IsUnavailable(status))) {
      ReleaseBallast();
    } else if (full || !absl::IsUnavailable(status)) {
      return status;
    }
    const bool undecided = IsUndecided(status);
    if (absl::Status reopened = ReopenIfClosed(); !reopened.ok()) {
      return undecided ? UndecidedError(reopened.message()) : reopened;
    }
    // Nothing was applied: writes again.
    if (!undecided) continue;
    absl::StatusOr<bool> was_applied = applied();
    if (!was_applied.ok()) return UndecidedError(was_applied.status().message());
    if (*was_applied) return absl::OkStatus();
    if (room == Room::kNormalWrite) RETURN_IF_ERROR(space.CheckSpace(BytesOf(batch)));
  }
  if (!absl::IsUnavailable(status)) return status;
  // Not undecided: the outcome is known.
  return Unavailable(absl::StrCat("nothing was changed: ", status.message()), 1000);
}

std::function<absl::StatusOr<bool>()> StoreCore::KeyIs(Space space, std::string key,
                                                       std::optional<std::string> value) {
  return [this, space, key = std::move(key),
          value = std::move(value)]() -> absl::StatusOr<bool> {
    ASSIGN_OR_RETURN(std::optional<std::string> now, catalog().Get(space, key));
    return now == value;
  };
}

}  // namespace modelstore::storage
