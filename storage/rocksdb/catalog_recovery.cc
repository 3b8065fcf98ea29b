// Opening a catalog: what is damaged is refused, by name, unless the operator has
// accepted the loss.
#include <xxhash.h>

#include <algorithm>
#include <utility>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "storage/rocksdb/catalog.h"
#include "storage/rocksdb/journal_format.h"
#include "storage/rocksdb/options.h"
#include "storage/rocksdb/status.h"

namespace modelstore::storage::rocks {
namespace {

// In the order of Space, behind RocksDB's own.
constexpr const char* kFamilies[] = {"records", "manifests", "chunks"};

// What opening writes: a MANIFEST, and what was in the WAL.
constexpr int64_t kOpenRoom = int64_t{16} << 20;

absl::Status Damaged(absl::string_view file, absl::string_view what) {
  return absl::DataLossError(absl::StrCat(
      "the catalog is damaged: ", file, ": ", what,
      "; restore the store from a backup, or start with --accept-data-loss to go on "
      "without what was lost"));
}

// Opens with the families that the engine uses.
rocksdb::Status OpenFamilies(const rocksdb::Options& options, const std::string& path,
                             std::unique_ptr<Database>* database) {
  std::vector<rocksdb::ColumnFamilyDescriptor> families;
  families.emplace_back(rocksdb::kDefaultColumnFamilyName, options);
  for (const char* name : kFamilies) families.emplace_back(name, options);
  *database = std::make_unique<Database>();
  rocksdb::DB* db = nullptr;
  const rocksdb::Status s =
      rocksdb::DB::Open(options, path, families, &(*database)->families, &db);
  (*database)->db.reset(db);
  return s;
}

// Cuts the MANIFEST record by record from its end until what is left opens.
rocksdb::Status OpenWithShorterManifest(const rocksdb::Options& options,
                                        rocksdb::FileSystem* fs, const std::string& path,
                                        std::unique_ptr<Database>* database) {
  std::string current;
  std::string content;
  rocksdb::Status s =
      rocksdb::ReadFileToString(fs, absl::StrCat(path, "/CURRENT"), &current);
  if (!s.ok()) return s;
  while (!current.empty() && current.back() == '\n') current.pop_back();
  const std::string manifest = absl::StrCat(path, "/", current);
  s = rocksdb::ReadFileToString(fs, manifest, &content);
  if (s.ok()) {
    s = rocksdb::WriteStringToFile(fs, content, absl::StrCat(manifest, ".damaged"), true);
  }
  if (!s.ok()) return s;
  const std::vector<size_t> records = JournalRecords(content);
  s = rocksdb::Status::Corruption("nothing of the MANIFEST is usable");
  for (size_t i = records.size(); !s.ok() && i-- > 1;) {
    const rocksdb::Status written = rocksdb::WriteStringToFile(
        fs, rocksdb::Slice(content.data(), records[i]), manifest, true);
    if (!written.ok()) return written;
    s = OpenFamilies(options, path, database);
  }
  return s;
}

rocksdb::Status SetWalsAside(rocksdb::FileSystem* fs, const std::string& path) {
  std::vector<std::string> names;
  rocksdb::IOStatus s = fs->GetChildren(path, {}, &names, nullptr);
  for (const std::string& name : names) {
    if (!s.ok() || !absl::EndsWith(name, ".log")) continue;
    const std::string wal = absl::StrCat(path, "/", name);
    s = fs->RenameFile(wal, absl::StrCat(wal, ".damaged"), {}, nullptr);
  }
  return s;
}

// What can be saved of a damaged catalog: all up to the damage, else the last state
// that its MANIFESTs agree on, else what a part of the newest knows. What is put
// aside keeps its name with `.damaged` behind it.
rocksdb::Status OpenDamaged(rocksdb::Options options, rocksdb::FileSystem* fs,
                            const std::string& path, std::unique_ptr<Database>* database) {
  options.paranoid_checks = false;
  options.wal_recovery_mode = rocksdb::WALRecoveryMode::kPointInTimeRecovery;
  rocksdb::Status s = OpenFamilies(options, path, database);
  if (s.ok()) return s;
  // What the WALs hold cannot be joined to an older state of the tables.
  s = SetWalsAside(fs, path);
  if (!s.ok()) return s;
  options.best_efforts_recovery = true;
  s = OpenFamilies(options, path, database);
  if (s.ok()) return s;
  return OpenWithShorterManifest(options, fs, path, database);
}

}  // namespace

absl::StatusOr<bool> RocksCatalog::IsNew() {
  const std::string current = absl::StrCat(folder_->catalog(), "/CURRENT");
  rocksdb::IOStatus s = fs_->FileExists(current, {}, nullptr);
  if (s.ok()) return false;
  if (!s.IsNotFound()) return FromRocks(s, current);
  std::vector<std::string> names;
  s = fs_->GetChildren(folder_->catalog(), {}, &names, nullptr);
  if (!s.ok()) return FromRocks(s, folder_->catalog());
  // A catalog whose making was cut short has no CURRENT either, but it never
  // acknowledged anything, nor wrote a table.
  const bool has_tables = std::any_of(names.begin(), names.end(), [](const auto& name) {
    return absl::EndsWith(name, ".sst");
  });
  if (mark_->number() > 0 || has_tables) return Damaged(current, "it does not exist");
  return true;
}

absl::StatusOr<std::unique_ptr<Database>> RocksCatalog::OpenRocks(bool accept_data_loss) {
  rocksdb::Options options = CatalogOptions(env_.get(), folder_);
  // A table that does not open is then refused when it is read.
  options.paranoid_checks = !loss_accepted_;
  std::unique_ptr<Database> database;
  absl::StatusOr<bool> is_new = IsNew();
  if (!is_new.ok() && !(absl::IsDataLoss(is_new.status()) && accept_data_loss)) {
    return is_new.status();
  }
  if (!accept_data_loss) {
    absl::Status status = CheckJournals();
    if (!status.ok()) return status;
  }
  rocksdb::Status s = rocksdb::Status::Corruption("the catalog has no CURRENT");
  if (is_new.ok()) s = OpenFamilies(options, folder_->catalog(), &database);
  const bool damaged = s.IsCorruption() || s.IsInvalidArgument() || s.IsPathNotFound() ||
                       s.IsNotFound();
  if (damaged && accept_data_loss) {
    folder_->Report(Listener::Severity::kWarning,
                    absl::StrCat("the catalog is damaged and its loss accepted: ",
                                 s.ToString()));
    s = OpenDamaged(options, fs_.get(), folder_->catalog(), &database);
    loss_accepted_ = s.ok();
  }
  if (s.ok()) return database;
  // RocksDB often names the file itself.
  const std::string file = absl::StrContains(s.ToString(), folder_->catalog())
                               ? folder_->catalog()
                               : fs_->last_opened();
  if (!damaged) return FromRocks(s, absl::StrCat("open ", folder_->catalog()));
  if (!accept_data_loss) return Damaged(file, s.ToString());
  return absl::DataLossError(absl::StrCat("the catalog is damaged beyond repair: ", file,
                                          ": ", s.ToString(),
                                          "; restore the store from a backup"));
}

absl::Status RocksCatalog::CheckJournals() {
  for (const SyncedJournal& journal : mark_->journals()) {
    const std::string path = absl::StrCat(folder_->catalog(), "/", journal.name);
    // The note may be old: RocksDB deletes what it needs no more.
    if (fs_->FileExists(path, {}, nullptr).IsNotFound()) continue;
    std::string content;
    const rocksdb::IOStatus s = rocksdb::ReadFileToString(fs_.get(), path, &content);
    if (!s.ok()) return FromRocks(s, path);
    const size_t bytes = static_cast<size_t>(journal.bytes);
    if (content.size() < bytes) {
      return Damaged(path, absl::StrCat("it holds ", content.size(), " of ", bytes,
                                        " bytes that were synced"));
    }
    if (XXH3_64bits(content.data(), bytes) != journal.hash) {
      return Damaged(path, "its bytes are not those that were synced");
    }
  }
  return absl::OkStatus();
}

absl::Status RocksCatalog::CheckNumber(Database* database, bool accept_data_loss) {
  std::string text;
  const rocksdb::Status s =
      database->db->Get(rocksdb::ReadOptions(), kCommitNumberKey, &text);
  if (!s.ok() && !s.IsNotFound()) return Damaged(fs_->last_opened(), s.ToString());
  uint64_t recovered = 0;
  if (s.ok() && !absl::SimpleAtoi(text, &recovered)) {
    return Damaged(folder_->catalog(), "its commit number is not a number");
  }
  const uint64_t expected = std::max(mark_->number(), number_);
  if (recovered < expected && !accept_data_loss) {
    return Damaged(absl::StrCat(folder_->catalog(), "/*.log"),
                   absl::StrCat("durable write ", recovered,
                                " is the last that was found, HIGH_WATER names ",
                                expected));
  }
  if (mark_->damaged() || (mark_->created() && recovered > 0 && number_ == 0)) {
    folder_->Report(Listener::Severity::kWarning,
                    absl::StrCat(folder_->high_water(),
                                 " was lost and is made anew; a loss of the last writes "
                                 "would not have been noticed"));
  }
  number_ = recovered;
  if (mark_->number() == recovered && !mark_->damaged()) return absl::OkStatus();
  return mark_->Reset(recovered);
}

absl::Status RocksCatalog::OpenDatabase(bool accept_data_loss) {
  folder_->MakeRoom(kOpenRoom);
  absl::StatusOr<std::unique_ptr<Database>> database = OpenRocks(accept_data_loss);
  if (!database.ok()) return database.status();
  absl::Status status = CheckNumber(database->get(), accept_data_loss);
  if (!status.ok()) return status;
  // The first sync of a new WAL syncs its folder too; no commit shall pay for it.
  rocksdb::WriteOptions synced;
  synced.sync = true;
  const rocksdb::Status s =
      (*database)->db->Put(synced, kCommitNumberKey, absl::StrCat(number_));
  if (!s.ok()) return FromRocks(s, "write catalog");
  status = mark_->Note(fs_->synced_journals());
  if (status.ok()) status = mark_->Sync();
  if (!status.ok()) return status;
  gate_.Open(*std::move(database));
  SetHealth(absl::OkStatus());
  return absl::OkStatus();
}

}  // namespace modelstore::storage::rocks
