// Opens a catalog. Damage is refused with the name of the file, unless the operator has
// accepted the loss. RocksDB alone does not detect every loss, so the files are checked
// against HIGH_WATER before RocksDB opens them, and the commit number after.
#include <algorithm>
#include <utility>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "storage/rocksdb/catalog.h"
#include "storage/rocksdb/catalog_files.h"
#include "storage/rocksdb/catalog_salvage.h"
#include "storage/rocksdb/journal_format.h"
#include "storage/rocksdb/options.h"
#include "storage/rocksdb/quarantine.h"
#include "storage/rocksdb/status.h"

namespace modelstore::storage::rocks {
namespace {

// Disk space that opening needs: a MANIFEST, and the flushed content of the WALs.
constexpr int64_t kOpenBytes = int64_t{16} << 20;

constexpr absl::string_view kAdvice =
    "; restore the store from a backup, or start with --accept-data-loss to continue "
    "without the lost data; replaced files are kept in quarantine/";

// Whether HIGH_WATER records the journal, but no byte of it after `end`.
bool IsRecordedUpTo(const HighWater& mark, absl::string_view name, size_t end) {
  for (const SyncedJournal& journal : mark.journals()) {
    if (journal.name == name) {
      return journal.bytes > 0 && static_cast<size_t>(journal.bytes) <= end;
    }
  }
  return false;
}

absl::Status Damaged(absl::string_view file, absl::string_view what) {
  return absl::DataLossError(absl::StrCat(file, ": ", what));
}

}  // namespace

absl::Status RocksCatalog::RestoreCurrent() {
  const std::string path = absl::StrCat(folder_->catalog(), "/CURRENT");
  CatalogFiles files;
  absl::Status status = ListCatalog(fs_.get(), folder_->catalog(), &files);
  // Before the first acknowledged write there is nothing to lose.
  if (!status.ok() || mark_->number() == 0) return status;
  std::string current;
  rocksdb::Status s = fs_->FileExists(path, {}, nullptr);
  if (s.ok()) s = rocksdb::ReadFileToString(fs_.get(), path, &current);
  if (!s.ok() && !s.IsNotFound()) return FromRocks(s, path);
  std::string newest;  // of the recorded MANIFESTs that exist
  for (const SyncedJournal& journal : mark_->journals()) {
    if (std::count(files.manifests.begin(), files.manifests.end(), journal.name) > 0 &&
        FileNumber(journal.name) > FileNumber(newest)) {
      newest = journal.name;
    }
  }
  const std::string named = ManifestIn(current);
  const bool exists =
      std::count(files.manifests.begin(), files.manifests.end(), named) > 0;
  if (newest.empty() || (exists && FileNumber(named) >= FileNumber(newest))) {
    return absl::OkStatus();
  }
  // HIGH_WATER cannot vouch for a newer MANIFEST that it does not record.
  if (newest != files.manifests.back()) return absl::OkStatus();
  std::string content;
  s = rocksdb::ReadFileToString(fs_.get(), absl::StrCat(folder_->catalog(), "/", newest),
                                &content);
  // CheckFiles() reports its damage.
  if (!s.ok() || !CheckJournal(*mark_, newest, content).ok()) return absl::OkStatus();
  const std::string draft = absl::StrCat(path, ".dbtmp");
  s = rocksdb::WriteStringToFile(fs_.get(), absl::StrCat(newest, "\n"), draft, true);
  if (s.ok()) s = fs_->RenameFile(draft, path, {}, nullptr);
  if (s.ok()) s = SyncFolder(fs_.get(), folder_->catalog());
  if (!s.ok()) return FromRocks(s, absl::StrCat("write ", path));
  folder_->Report(Listener::Severity::kWarning,
                  absl::StrCat(path, " was lost and has been restored: HIGH_WATER names ",
                               newest, ", which is intact"));
  return absl::OkStatus();
}

absl::Status RocksCatalog::CheckFiles(bool all_records, bool accept_data_loss) {
  const std::string current = absl::StrCat(folder_->catalog(), "/CURRENT");
  CatalogFiles files, packs;
  absl::Status status = ListCatalog(fs_.get(), folder_->catalog(), &files);
  if (status.ok()) status = ListCatalog(fs_.get(), folder_->packs(), &packs);
  if (!status.ok()) return status;
  const rocksdb::IOStatus s = fs_->FileExists(current, {}, nullptr);
  if (!s.ok() && !s.IsNotFound()) return FromRocks(s, current);
  // If a crash interrupted the creation of the catalog there is no CURRENT either, but
  // then no write was acknowledged and neither a table nor a pack exists.
  if (s.IsNotFound() &&
      (mark_->number() > 0 || !files.tables.empty() || !packs.tables.empty())) {
    return Damaged(current, "it does not exist");
  }
  return CheckJournals(all_records, accept_data_loss);
}

absl::Status RocksCatalog::CheckJournals(bool all_records, bool accept_data_loss) {
  CatalogFiles files;
  absl::Status status = ListCatalog(fs_.get(), folder_->catalog(), &files);
  if (!status.ok()) return status;
  // A recorded file that does not exist is not damage: RocksDB deletes journals that it
  // no longer needs, and HIGH_WATER may be older than that.
  std::vector<std::string> names = files.manifests;
  names.insert(names.end(), files.wals.begin(), files.wals.end());
  for (const std::string& name : names) {
    const std::string path = absl::StrCat(folder_->catalog(), "/", name);
    std::string content;
    rocksdb::IOStatus s = rocksdb::ReadFileToString(fs_.get(), path, &content);
    // A second attempt, as a read error may be transient.
    if (!s.ok()) s = rocksdb::ReadFileToString(fs_.get(), path, &content);
    status = FromRocks(s, path);
    // Transient, unless the operator says otherwise with the flag.
    if (absl::IsUnavailable(status) && accept_data_loss) {
      return Damaged(path, s.ToString());
    }
    if (absl::IsUnavailable(status)) {
      return absl::UnavailableError(
          absl::StrCat("the catalog cannot be read: ", status.message(),
                       "; retry; if the error persists, the file is damaged", kAdvice));
    }
    if (!status.ok()) return status;
    status = CheckJournal(*mark_, name, content);
    if (!status.ok()) return Damaged(path, status.message());
    const Journal journal = ReadJournal(content);
    // Unsynced bytes that a power loss left behind the last record are cut off: nothing
    // acknowledged is in them.
    if (journal.recycled && !files.wals.empty() && name == files.wals.back() &&
        IsRecordedUpTo(*mark_, name, journal.valid_bytes) &&
        IsGarbage(content, journal.readable_bytes)) {
      status = CutJournal(name, journal.valid_bytes);
      if (!status.ok()) return status;
      continue;
    }
    // RocksDB 9.10 never returns from reading such a record.
    if (journal.recycled)
      return Damaged(path, "a record has the type of a recycled journal");
    if (all_records && journal.end == Journal::End::kDamaged) {
      return Damaged(path, "a record is damaged");
    }
  }
  return absl::OkStatus();
}

absl::Status RocksCatalog::CutJournal(const std::string& name, size_t bytes) {
  const std::string path = absl::StrCat(folder_->catalog(), "/", name);
  // A copy, as RocksDB's file system cannot truncate a file by path. RocksDB itself
  // deletes leftover files with this suffix.
  const std::string draft =
      absl::StrCat(folder_->catalog(), "/", FileNumber(name), ".dbtmp");
  rocksdb::IOStatus s = CopyBytes(fs_.get(), path, draft, bytes);
  if (s.ok()) s = fs_->RenameFile(draft, path, {}, nullptr);
  if (s.ok()) s = SyncFolder(fs_.get(), folder_->catalog());
  if (!s.ok()) return FromRocks(s, absl::StrCat("cut ", path));
  folder_->Report(
      Listener::Severity::kWarning,
      absl::StrCat("removed unsynced bytes that a power loss left at the end of ", path));
  return absl::OkStatus();
}

absl::Status RocksCatalog::OpenRocks(bool paranoid, std::unique_ptr<Database>* database) {
  rocksdb::Options options = CatalogOptions(env_.get(), folder_);
  options.paranoid_checks = paranoid;
  options.listeners = {guard_};
  // RocksDB turns an open that failed for lack of descriptors into errors that look like
  // damage.
  fs_->TakeDescriptorFailure().PermitUncheckedError();
  const rocksdb::Status s = OpenCatalogDatabase(options, folder_->catalog(), database);
  const rocksdb::IOStatus without_descriptors = fs_->TakeDescriptorFailure();
  if (s.ok()) return absl::OkStatus();
  database->reset();
  const std::string what = absl::StrCat("open ", folder_->catalog());
  if (!without_descriptors.ok()) return FromRocks(without_descriptors, what);
  if (!s.IsCorruption() && !s.IsInvalidArgument() && !s.IsPathNotFound() &&
      !s.IsNotFound()) {
    return FromRocks(s, what);
  }
  // RocksDB's message often names the file; otherwise it is the last one opened.
  return Damaged(absl::StrContains(s.ToString(), folder_->catalog()) ? folder_->catalog()
                                                                     : fs_->last_opened(),
                 s.ToString());
}

absl::StatusOr<uint64_t> RocksCatalog::ReadNumber(Database& database) {
  std::string text;
  const rocksdb::Status s =
      database.db->Get(rocksdb::ReadOptions(), kCommitNumberKey, &text);
  if (!s.ok() && !s.IsNotFound()) return Damaged(fs_->last_opened(), s.ToString());
  uint64_t number = 0;
  if (s.ok() && !absl::SimpleAtoi(text, &number)) {
    return Damaged(folder_->catalog(), "its commit number is not a number");
  }
  return number;
}

absl::Status RocksCatalog::OpenWhole(bool accept_data_loss,
                                     std::unique_ptr<Database>* database) {
  absl::Status status = CheckFiles(/*all_records=*/loss_accepted_, accept_data_loss);
  if (status.ok()) status = OpenRocks(/*paranoid=*/!loss_accepted_, database);
  if (!status.ok()) return status;
  const absl::StatusOr<uint64_t> found = ReadNumber(**database);
  if (!found.ok()) return found.status();
  const uint64_t expected = std::max(mark_->number(), number_);
  if (*found < expected) {
    return Damaged(absl::StrCat(folder_->catalog(), "/*.log"),
                   absl::StrCat("the last durable write found is ", *found,
                                ", but HIGH_WATER names ", expected));
  }
  return SettleNumber(*found);
}

absl::Status RocksCatalog::OpenDamaged(const absl::Status& why,
                                       std::unique_ptr<Database>* database) {
  folder_->Report(Listener::Severity::kWarning,
                  absl::StrCat("accepting a loss: ", why.message()));
  absl::Status status;
  // Three cases, from the least loss to the greatest. First: it opens, but its commit
  // number is too low.
  std::string done = "its files agree with each other";
  bool rebuilt = false;
  // Second: the journals are intact and only a table does not open.
  if (*database == nullptr &&
      CheckFiles(/*all_records=*/true, /*accept_data_loss=*/true).ok()) {
    status = OpenRocks(/*paranoid=*/false, database);
    if (!status.ok() && !absl::IsDataLoss(status)) return status;
    loss_accepted_ = status.ok();
    done = "a table that cannot be read stays where it is";
  }
  // Third: the catalog is replaced by what can be salvaged.
  if (*database == nullptr) {
    absl::StatusOr<Salvaged> salvaged = SalvageCatalog(*folder_, *mark_, why.message());
    if (!salvaged.ok()) return salvaged.status();
    done = std::move(salvaged->summary);
    rebuilt = salvaged->rebuilt;
    fs_->ForgetJournals();
    status = OpenRocks(/*paranoid=*/true, database);
    if (absl::IsDataLoss(status)) {
      status = OpenRocks(/*paranoid=*/false, database);
      loss_accepted_ = status.ok();
    }
  }
  if (!status.ok()) return status;
  const absl::StatusOr<uint64_t> found = ReadNumber(**database);
  if (!found.ok()) return found.status();
  const uint64_t expected = std::max(mark_->number(), number_);
  if (*found < expected) {
    // Before HIGH_WATER is reset: from here on, packs that the catalog no longer names
    // are moved to quarantine instead of being deleted, even after a crash.
    status = folder_->loss().Begin(why.message());
    if (!status.ok()) return status;
  }
  const std::string kept = folder_->loss().folder();
  folder_->Report(
      Listener::Severity::kWarning,
      absl::StrCat(
          "the catalog was opened: ", done, "; ",
          *found < expected
              ? absl::StrCat("durable writes ", *found + 1, " to ", expected, " are lost")
              : "no durable write that HIGH_WATER names is lost",
          rebuilt ? "; replaced or deleted rows may reappear, run VerifyCheckpoint" : "",
          kept.empty() ? "" : absl::StrCat("; the replaced files are kept in ", kept)));
  return SettleNumber(*found);
}

absl::Status RocksCatalog::SettleNumber(uint64_t found) {
  if (mark_->damaged() || (mark_->created() && found > 0 && number_ == 0)) {
    folder_->Report(Listener::Severity::kWarning,
                    absl::StrCat(folder_->high_water(),
                                 " was lost and has been recreated; a loss of the last "
                                 "writes could not be detected"));
  }
  number_ = found;
  if (mark_->number() == found && !mark_->damaged()) return absl::OkStatus();
  return mark_->Reset(found);
}

absl::Status RocksCatalog::OpenDatabase(bool accept_data_loss) {
  folder_->ReleaseBallastFor(kOpenBytes);
  absl::Status status = RestoreCurrent();
  if (!status.ok()) return status;
  std::unique_ptr<Database> database;
  status = OpenWhole(accept_data_loss, &database);
  if (absl::IsDataLoss(status) && !accept_data_loss) {
    return absl::DataLossError(
        absl::StrCat("the catalog is damaged: ", status.message(), kAdvice));
  }
  if (absl::IsDataLoss(status)) status = OpenDamaged(status, &database);
  if (absl::IsDataLoss(status)) {
    return absl::DataLossError(
        absl::StrCat("the catalog is damaged beyond repair: ", status.message(),
                     "; restore the store from a backup"));
  }
  if (!status.ok()) return status;
  // The first sync of a new WAL also syncs its folder. Done here, so that the first
  // commit does not pay for it.
  rocksdb::WriteOptions synced;
  synced.sync = true;
  const rocksdb::Status s =
      database->db->Put(synced, kCommitNumberKey, absl::StrCat(number_));
  if (!s.ok()) return FromRocks(s, "write catalog");
  status = mark_->Note(fs_->synced_journals());
  if (status.ok()) status = mark_->Sync();
  if (!status.ok()) return status;
  gate_.Open(std::move(database));
  SetHealth(absl::OkStatus());
  return absl::OkStatus();
}

}  // namespace modelstore::storage::rocks
