// Opening a catalog: what is damaged is refused, by name, unless the operator has
// accepted the loss.
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

// What opening writes: a MANIFEST, and what was in the WAL.
constexpr int64_t kOpenRoom = int64_t{16} << 20;

constexpr absl::string_view kAdvice =
    "; restore the store from a backup, or start with --accept-data-loss to go on "
    "without "
    "what was lost, which is kept in quarantine/";

// Whether HIGH_WATER notes the journal, and no byte of it after `end`.
bool IsNotedUpTo(const HighWater& mark, absl::string_view name, size_t end) {
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
  // Before the first write was acknowledged there is nothing to be lost.
  if (!status.ok() || mark_->number() == 0) return status;
  std::string current;
  rocksdb::Status s = fs_->FileExists(path, {}, nullptr);
  if (s.ok()) s = rocksdb::ReadFileToString(fs_.get(), path, &current);
  if (!s.ok() && !s.IsNotFound()) return FromRocks(s, path);
  std::string newest;  // of those that are noted and exist
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
  // HIGH_WATER does not know what a newer one says.
  if (newest != files.manifests.back()) return absl::OkStatus();
  std::string content;
  s = rocksdb::ReadFileToString(fs_.get(), absl::StrCat(folder_->catalog(), "/", newest),
                                &content);
  // Its damage is told by CheckFiles().
  if (!s.ok() || !CheckJournal(*mark_, newest, content).ok()) return absl::OkStatus();
  const std::string draft = absl::StrCat(path, ".dbtmp");
  s = rocksdb::WriteStringToFile(fs_.get(), absl::StrCat(newest, "\n"), draft, true);
  if (s.ok()) s = fs_->RenameFile(draft, path, {}, nullptr);
  if (s.ok()) s = SyncFolder(fs_.get(), folder_->catalog());
  if (!s.ok()) return FromRocks(s, absl::StrCat("write ", path));
  folder_->Report(Listener::Severity::kWarning,
                  absl::StrCat(path, " was lost and is written anew: HIGH_WATER names ",
                               newest, ", which is whole"));
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
  // A catalog whose making was cut short has no CURRENT either, but it never
  // acknowledged anything, nor wrote a table or a pack.
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
  // A noted file that does not exist is not damage: RocksDB deletes what it needs no
  // more, and the note may be old.
  std::vector<std::string> names = files.manifests;
  names.insert(names.end(), files.wals.begin(), files.wals.end());
  for (const std::string& name : names) {
    const std::string path = absl::StrCat(folder_->catalog(), "/", name);
    std::string content;
    rocksdb::IOStatus s = rocksdb::ReadFileToString(fs_.get(), path, &content);
    if (!s.ok()) s = rocksdb::ReadFileToString(fs_.get(), path, &content);
    status = FromRocks(s, path);
    // The error may pass; with the flag the operator says that it does not.
    if (absl::IsUnavailable(status) && accept_data_loss) {
      return Damaged(path, s.ToString());
    }
    if (absl::IsUnavailable(status)) {
      return absl::UnavailableError(absl::StrCat(
          "the catalog cannot be read: ", status.message(),
          "; try again; if the error persists, the file is damaged", kAdvice));
    }
    if (!status.ok()) return status;
    status = CheckJournal(*mark_, name, content);
    if (!status.ok()) return Damaged(path, status.message());
    const Journal journal = ReadJournal(content);
    if (journal.recycled && !files.wals.empty() && name == files.wals.back() &&
        IsNotedUpTo(*mark_, name, journal.sound_bytes) &&
        IsGarbage(content, journal.readable_bytes)) {
      status = CutJournal(name, journal.sound_bytes);
      if (!status.ok()) return status;
      continue;
    }
    // RocksDB 9.10 would read it for ever.
    if (journal.recycled) return Damaged(path, "a record is of a recycled journal");
    if (all_records && journal.end == Journal::End::kDamaged) {
      return Damaged(path, "a record is damaged");
    }
  }
  return absl::OkStatus();
}

absl::Status RocksCatalog::CutJournal(const std::string& name, size_t bytes) {
  const std::string path = absl::StrCat(folder_->catalog(), "/", name);
  // RocksDB deletes a draft of this name that a crash leaves. Its own file system cannot
  // truncate a file by path.
  const std::string draft =
      absl::StrCat(folder_->catalog(), "/", FileNumber(name), ".dbtmp");
  rocksdb::IOStatus s = CopyBytes(fs_.get(), path, draft, bytes);
  if (s.ok()) s = fs_->RenameFile(draft, path, {}, nullptr);
  if (s.ok()) s = SyncFolder(fs_.get(), folder_->catalog());
  if (!s.ok()) return FromRocks(s, absl::StrCat("cut ", path));
  folder_->Report(Listener::Severity::kWarning,
                  absl::StrCat("unsynced bytes that a power loss left at the end of ",
                               path, " were cut off"));
  return absl::OkStatus();
}

absl::Status RocksCatalog::OpenRocks(bool paranoid, std::unique_ptr<Database>* database) {
  rocksdb::Options options = CatalogOptions(env_.get(), folder_);
  options.paranoid_checks = paranoid;
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
  // RocksDB often names the file itself.
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
    return Damaged(
        absl::StrCat(folder_->catalog(), "/*.log"),
        absl::StrCat("durable write ", *found,
                     " is the last that was found, HIGH_WATER names ", expected));
  }
  return SettleNumber(*found);
}

absl::Status RocksCatalog::OpenDamaged(const absl::Status& why,
                                       std::unique_ptr<Database>* database) {
  folder_->Report(Listener::Severity::kWarning,
                  absl::StrCat("a loss is accepted: ", why.message()));
  absl::Status status;
  // It opened, and is an older one.
  std::string done = "its files agree with each other";
  bool rebuilt = false;
  if (*database == nullptr &&
      CheckFiles(/*all_records=*/true, /*accept_data_loss=*/true).ok()) {
    status = OpenRocks(/*paranoid=*/false, database);
    if (!status.ok() && !absl::IsDataLoss(status)) return status;
    loss_accepted_ = status.ok();
    done = "a table that cannot be read stays where it is";
  }
  if (*database == nullptr) {
    absl::StatusOr<Salvaged> salvaged = SalvageCatalog(*folder_, *mark_, why.message());
    if (!salvaged.ok()) return salvaged.status();
    done = std::move(salvaged->said);
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
    // Before HIGH_WATER forgets it: packs that the loss left without a name are kept.
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
              : "the last durable write that HIGH_WATER names is there",
          rebuilt ? "; replaced or deleted rows may be back, run VerifyCheckpoint" : "",
          kept.empty() ? "" : absl::StrCat("; what was given up is kept in ", kept)));
  return SettleNumber(*found);
}

absl::Status RocksCatalog::SettleNumber(uint64_t found) {
  if (mark_->damaged() || (mark_->created() && found > 0 && number_ == 0)) {
    folder_->Report(Listener::Severity::kWarning,
                    absl::StrCat(folder_->high_water(),
                                 " was lost and is made anew; a loss of the last writes "
                                 "would not have been noticed"));
  }
  number_ = found;
  if (mark_->number() == found && !mark_->damaged()) return absl::OkStatus();
  return mark_->Reset(found);
}

absl::Status RocksCatalog::OpenDatabase(bool accept_data_loss) {
  folder_->MakeRoom(kOpenRoom);
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
  // The first sync of a new WAL syncs its folder too; no commit shall pay for it.
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
