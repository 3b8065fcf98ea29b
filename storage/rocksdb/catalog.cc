#include "storage/rocksdb/catalog.h"

#include <utility>

#include "absl/strings/str_cat.h"
#include "rocksdb/write_batch.h"
#include "storage/rocksdb/status.h"

namespace modelstore::storage::rocks {
namespace {

// Space that a write needs beside its batch: record headers, and the MANIFEST and
// memtable flushes that it may trigger.
constexpr int64_t kWriteSlack = int64_t{64} << 10;
constexpr absl::Duration kCloseTimeout = absl::Seconds(30);

rocksdb::Slice ToSlice(absl::string_view text) {
  return rocksdb::Slice(text.data(), text.size());
}
absl::string_view ToView(const rocksdb::Slice& slice) {
  return absl::string_view(slice.data(), slice.size());
}

rocksdb::ColumnFamilyHandle* FamilyOf(DbGate::Use& use, Space space) {
  // The first family is RocksDB's default, which holds the commit number.
  return use->families[1 + static_cast<size_t>(space)];
}

int64_t BatchBytes(const CatalogBatch& batch) {
  int64_t bytes = 0;
  for (const auto& change : batch.changes()) {
    bytes += static_cast<int64_t>(change.key.size() + 32);
    if (change.value.has_value()) bytes += static_cast<int64_t>(change.value->size());
  }
  return bytes;
}

// A missing table file is DATA_LOSS: NOT_FOUND would say that the key does not exist.
absl::Status Failed(const rocksdb::Status& status, absl::string_view what) {
  if (!status.IsPathNotFound()) return FromRocks(status, what);
  return absl::DataLossError(absl::StrCat(what, ": ", status.ToString()));
}

absl::Status Reopening() {
  return absl::UnavailableError("the catalog is being reopened; try again");
}

}  // namespace

RocksCatalog::RocksCatalog(std::shared_ptr<Folder> folder,
                           std::unique_ptr<HighWater> mark)
    : folder_(std::move(folder)),
      fs_(std::make_shared<EngineFileSystem>(folder_->fs(), "", "")),
      env_(rocksdb::NewCompositeEnv(fs_)),
      guard_(std::make_shared<CompactionGuard>(folder_)),
      mark_(std::move(mark)) {
  // Records each synced MANIFEST at once: after a flush there may be no commit for a
  // long time.
  fs_->SetOnManifestSync([this] { Noted(mark_->Note(fs_->synced_journals())); });
}

RocksCatalog::~RocksCatalog() {
  // Ends RocksDB's background threads before the file system and HIGH_WATER that they
  // use are destroyed.
  gate_.Close(absl::InfiniteDuration()).IgnoreError();
}

absl::StatusOr<std::unique_ptr<RocksCatalog>> RocksCatalog::Open(
    std::shared_ptr<Folder> folder, bool accept_data_loss) {
  auto mark = HighWater::Open(folder->fs().get(), folder->high_water());
  if (!mark.ok()) return mark.status();
  std::unique_ptr<RocksCatalog> catalog(
      new RocksCatalog(std::move(folder), *std::move(mark)));
  MutexLock lock(catalog->write_mutex_);
  absl::Status status = catalog->OpenDatabase(accept_data_loss);
  if (!status.ok()) return status;
  return catalog;
}

absl::StatusOr<std::optional<std::string>> RocksCatalog::Get(Space space,
                                                             absl::string_view key) {
  absl::Status health = Health();
  if (!health.ok()) return health;
  DbGate::Use use = gate_.Enter();
  if (!use) return Reopening();
  std::string value;
  const rocksdb::Status s =
      use->db->Get(rocksdb::ReadOptions(), FamilyOf(use, space), ToSlice(key), &value);
  if (s.IsNotFound()) return std::optional<std::string>();
  if (!s.ok()) return Failed(s, "read catalog");
  return std::optional<std::string>(std::move(value));
}

absl::Status RocksCatalog::Scan(
    Space space, const KeyRange& range,
    absl::FunctionRef<bool(absl::string_view, absl::string_view)> visit) {
  absl::Status health = Health();
  if (!health.ok()) return health;
  DbGate::Use use = gate_.Enter();
  if (!use) return Reopening();
  const rocksdb::Slice begin(range.begin);
  const rocksdb::Slice end(range.end);
  rocksdb::ReadOptions options;
  options.iterate_lower_bound = &begin;
  if (!range.end.empty()) options.iterate_upper_bound = &end;
  std::unique_ptr<rocksdb::Iterator> it(
      use->db->NewIterator(options, FamilyOf(use, space)));
  for (range.reverse ? it->SeekToLast() : it->SeekToFirst(); it->Valid();
       range.reverse ? it->Prev() : it->Next()) {
    if (use.IsCloseRequested()) return Reopening();
    if (!visit(ToView(it->key()), ToView(it->value()))) return absl::OkStatus();
  }
  return Failed(it->status(), "scan catalog");
}

absl::Status RocksCatalog::Write(const CatalogBatch& batch, Durability durability) {
  MutexLock lock(write_mutex_);
  absl::Status status = Health();
  if (!status.ok()) return status;
  DbGate::Use use = gate_.Enter();
  if (!use) return Reopening();
  status = CheckExpectations(batch, use);
  if (!status.ok()) return status;
  // A write that fails on a full disk would close the catalog, so it is refused before.
  status = folder_->CheckSpace(BatchBytes(batch) + kWriteSlack);
  if (!status.ok()) return status;
  guard_->StopFailing(use);
  return Apply(batch, durability, use);
}

// No write can come between this check and the batch: the caller holds write_mutex_.
absl::Status RocksCatalog::CheckExpectations(const CatalogBatch& batch,
                                             DbGate::Use& use) {
  for (const auto& expectation : batch.expectations()) {
    rocksdb::PinnableSlice value;
    const rocksdb::Status s =
        use->db->Get(rocksdb::ReadOptions(), FamilyOf(use, expectation.space),
                     expectation.key, &value);
    if (!s.ok() && !s.IsNotFound()) return Failed(s, "read catalog");
    const bool holds = s.IsNotFound() ? !expectation.value.has_value()
                                      : expectation.value.has_value() &&
                                            ToView(value) == *expectation.value;
    if (!holds) return absl::AbortedError("the record was changed by another call");
  }
  return absl::OkStatus();
}

absl::Status RocksCatalog::Apply(const CatalogBatch& batch, Durability durability,
                                 DbGate::Use& use) {
  const bool durable = durability == Durability::kDurable;
  rocksdb::WriteBatch rocks;
  for (const auto& change : batch.changes()) {
    rocksdb::ColumnFamilyHandle* family = FamilyOf(use, change.space);
    const rocksdb::Status s = change.value.has_value()
                                  ? rocks.Put(family, change.key, *change.value)
                                  : rocks.Delete(family, change.key);
    if (!s.ok()) return FromRocks(s, "build batch");
  }
  const uint64_t number = number_ + 1;
  if (durable) {
    const rocksdb::Status s = rocks.Put(kCommitNumberKey, absl::StrCat(number));
    if (!s.ok()) return FromRocks(s, "build batch");
  }
  rocksdb::WriteOptions options;
  options.sync = durable;
  // If the write fails before the WAL is appended to, nothing can have been applied.
  const int64_t journal_appends = fs_->journal_appends();
  const rocksdb::Status s = use->db->Write(options, &rocks);
  if (!s.ok()) return ClassifyFailure(s, fs_->journal_appends() != journal_appends);
  if (!durable) return absl::OkStatus();
  // After the sync, never before: HIGH_WATER must not exceed what is durable.
  number_ = number;
  Noted(mark_->Write(number, fs_->synced_journals()));
  return absl::OkStatus();
}

void RocksCatalog::Noted(const absl::Status& status) {
  if (!note_failed_.exchange(!status.ok()) && !status.ok()) {
    folder_->Report(Listener::Severity::kWarning, status.message());
  }
}

absl::Status RocksCatalog::ClassifyFailure(const rocksdb::Status& status,
                                           bool journal_touched) {
  // RocksDB accepts no further writes in either case.
  SetHealth(absl::UnavailableError(
      absl::StrCat("the catalog is closed after a failed write and will be reopened: ",
                   status.ToString())));
  if (journal_touched) {
    return UndecidedError(
        absl::StrCat("it is unknown whether the write was applied until the catalog is "
                     "reopened: ",
                     status.ToString()));
  }
  return FromRocks(status, "write catalog");
}

absl::Status RocksCatalog::Health() {
  MutexLock lock(health_mutex_);
  return health_;
}

void RocksCatalog::SetHealth(absl::Status health) {
  MutexLock lock(health_mutex_);
  health_ = std::move(health);
}

absl::Status RocksCatalog::Reopen() {
  MutexLock lock(write_mutex_);
  SetHealth(Reopening());
  absl::Status status = gate_.Close(kCloseTimeout);
  if (!status.ok()) return status;
  status = OpenDatabase(/*accept_data_loss=*/false);
  if (status.ok()) return status;
  // DATA_LOSS and a descriptor limit need an operator and keep their code. Other errors
  // may be transient: UNAVAILABLE, and Reopen() is called again.
  SetHealth(absl::IsDataLoss(status) || IsTooManyOpenFiles(status)
                ? status
                : absl::UnavailableError(absl::StrCat(
                      "the catalog could not be reopened: ", status.message())));
  return status;
}

}  // namespace modelstore::storage::rocks
