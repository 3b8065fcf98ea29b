#include "storage/rocksdb/catalog_salvage.h"

#include <xxhash.h>

#include <algorithm>
#include <memory>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "rocksdb/env.h"
#include "storage/rocksdb/catalog_files.h"
#include "storage/rocksdb/catalog_rebuild.h"
#include "storage/rocksdb/engine_file_system.h"
#include "storage/rocksdb/journal_format.h"
#include "storage/rocksdb/options.h"
#include "storage/rocksdb/status.h"

namespace modelstore::storage::rocks {
namespace {

class Salvage {
 public:
  Salvage(Folder& folder, const HighWater& mark)
      : folder_(folder),
        mark_(mark),
        // Separate: the journals written here are not those that HIGH_WATER records.
        fs_(std::make_shared<EngineFileSystem>(folder.fs(), "", "")),
        env_(rocksdb::NewCompositeEnv(fs_)) {}

  absl::StatusOr<Salvaged> Run(absl::string_view why);

 private:
  std::string Old(absl::string_view name) const {
    return absl::StrCat(folder_.catalog(), "/", name);
  }
  std::string New(absl::string_view name) const {
    return absl::StrCat(folder_.new_catalog(), "/", name);
  }
  // Reads the WALs up to the first damage.
  void ReadWals();
  // The MANIFEST that CURRENT names if both are intact, else empty.
  std::string FindValidManifest();
  // The highest number of a MANIFEST that exists, is recorded, or is named by CURRENT.
  uint64_t NewestManifest() const;
  // Reports tables that are newer than the kept part of damaged WALs.
  void CompareTablesWithWals(rocksdb::DB* db);
  // Makes an empty catalog.new/.
  absl::Status Empty();
  // Makes the new catalog from the state that `manifest` describes.
  absl::Status KeepState(const std::string& manifest);
  // Moves the old catalog to quarantine, then the new one into its place.
  absl::Status Replace(absl::string_view why);

  Folder& folder_;
  const HighWater& mark_;
  const std::shared_ptr<EngineFileSystem> fs_;
  const std::unique_ptr<rocksdb::Env> env_;
  CatalogFiles files_;
  std::vector<ValidWal> wals_;
  // At least one record was left out.
  bool wals_damaged_ = false;
  std::string summary_;
};

// Reads a file up to its end or to the first read error.
rocksdb::IOStatus ReadUntilError(rocksdb::FileSystem* fs, const std::string& path,
                                 std::string* content) {
  // One page per read: a failed read returns none of the bytes before the bad sector.
  constexpr size_t kStep = 4096;
  std::unique_ptr<rocksdb::FSSequentialFile> file;
  rocksdb::IOStatus s =
      fs->NewSequentialFile(path, rocksdb::FileOptions(), &file, nullptr);
  char scratch[kStep];
  rocksdb::Slice read;
  while (s.ok()) {
    s = file->Read(kStep, {}, &read, scratch, nullptr);
    if (!s.ok() || read.empty()) break;
    content->append(read.data(), read.size());
  }
  return s;
}

void Salvage::ReadWals() {
  for (const std::string& name : files_.wals) {
    std::string content;
    const rocksdb::IOStatus s = ReadUntilError(fs_.get(), Old(name), &content);
    Journal journal = ReadJournal(content);
    const bool is_last = name == files_.wals.back();
    // A crash may have truncated the last one: that is no damage.
    const bool whole = s.ok() && CheckJournal(mark_, name, content).ok() &&
                       (journal.end == Journal::End::kWhole ||
                        (is_last && journal.end == Journal::End::kTruncated));
    wals_.push_back({name, journal.valid_bytes, std::move(journal.records)});
    if (!s.ok()) {
      absl::StrAppend(&summary_, "; ", name, " cannot be read from byte ", content.size(),
                      " on: ", s.ToString());
    }
    if (whole) continue;
    wals_damaged_ = true;
    if (is_last) break;
    // Later journals build on the missing records.
    absl::StrAppend(&summary_, "; the journals after ", name, " were left out");
    break;
  }
}

void Salvage::CompareTablesWithWals(rocksdb::DB* db) {
  if (!wals_damaged_) return;
  uint64_t last = 0;
  for (const ValidWal& wal : wals_) {
    uint64_t sequence = 0;
    uint32_t count = 0;
    if (!wal.records.empty() && ReadBatchHead(wal.records.back(), &sequence, &count)) {
      last = sequence + count - 1;
    }
  }
  std::vector<rocksdb::LiveFileMetaData> tables;
  db->GetLiveFilesMetaData(&tables);
  const bool ahead = std::any_of(tables.begin(), tables.end(), [last](const auto& table) {
    return table.largest_seqno > last;
  });
  if (ahead) {
    absl::StrAppend(&summary_,
                    "; tables may hold later writes than the journals: versions may be "
                    "incomplete, run VerifyCheckpoint");
  }
}

uint64_t Salvage::NewestManifest() const {
  std::string current;
  rocksdb::ReadFileToString(fs_.get(), Old("CURRENT"), &current).PermitUncheckedError();
  uint64_t newest = FileNumber(ManifestIn(current));
  for (const std::string& name : files_.manifests) {
    newest = std::max(newest, FileNumber(name));
  }
  for (const SyncedJournal& journal : mark_.journals()) {
    if (IsManifestName(journal.name)) newest = std::max(newest, FileNumber(journal.name));
  }
  return newest;
}

std::string Salvage::FindValidManifest() {
  std::string current, content;
  if (!rocksdb::ReadFileToString(fs_.get(), Old("CURRENT"), &current).ok() ||
      ManifestIn(current).empty()) {
    return "";
  }
  const std::string name = ManifestIn(current);
  if (!rocksdb::ReadFileToString(fs_.get(), Old(name), &content).ok() ||
      !CheckJournal(mark_, name, content).ok()) {
    return "";
  }
  const Journal journal = ReadJournal(content);
  return journal.records.empty() || journal.end == Journal::End::kDamaged ? "" : name;
}

absl::Status Salvage::Empty() {
  rocksdb::IOStatus s = DeleteFolder(fs_.get(), folder_.new_catalog());
  if (s.ok()) s = MakeFolder(fs_.get(), folder_.new_catalog());
  return FromRocks(s, folder_.new_catalog());
}

absl::Status Salvage::KeepState(const std::string& manifest) {
  rocksdb::IOStatus s;
  for (const std::string& table : files_.tables) {
    if (s.ok()) s = LinkOrCopyFile(fs_.get(), Old(table), New(table));
  }
  for (const ValidWal& wal : wals_) {
    if (s.ok()) s = CopyBytes(fs_.get(), Old(wal.name), New(wal.name), wal.bytes);
  }
  for (const std::string& name : {manifest, std::string("CURRENT")}) {
    if (s.ok()) s = CopyBytes(fs_.get(), Old(name), New(name));
  }
  if (!s.ok()) return FromRocks(s, absl::StrCat("make ", folder_.new_catalog()));
  rocksdb::Options options = CatalogOptions(env_.get(), folder_.shared_from_this());
  std::unique_ptr<Database> database;
  rocksdb::Status opened = OpenCatalogDatabase(options, folder_.new_catalog(), &database);
  if (!opened.ok()) {
    // Tolerates a damaged table, which then fails when it is read.
    options.paranoid_checks = false;
    opened = OpenCatalogDatabase(options, folder_.new_catalog(), &database);
  }
  if (opened.ok()) CompareTablesWithWals(database->db.get());
  return FromRocks(opened, absl::StrCat("open ", folder_.new_catalog()));
}

// The old catalog moves first: Folder::FinishCatalogReplacement() takes a missing
// catalog/ next to catalog.new/ as the sign that the new one is complete.
absl::Status Salvage::Replace(absl::string_view why) {
  rocksdb::IOStatus s = SyncFolder(fs_.get(), folder_.new_catalog());
  absl::Status status = FromRocks(s, folder_.new_catalog());
  if (status.ok()) status = folder_.loss().Begin(why);
  if (status.ok()) status = folder_.loss().TakeFolder(folder_.catalog(), "catalog");
  if (!status.ok()) return status;
  s = SyncFolder(fs_.get(), folder_.path());
  if (s.ok()) {
    s = fs_->RenameFile(folder_.new_catalog(), folder_.catalog(), {}, nullptr);
  }
  if (s.ok()) s = SyncFolder(fs_.get(), folder_.path());
  return FromRocks(s, absl::StrCat("move ", folder_.new_catalog()));
}

absl::StatusOr<Salvaged> Salvage::Run(absl::string_view why) {
  absl::Status status = ListCatalog(fs_.get(), folder_.catalog(), &files_);
  if (!status.ok()) return status;
  ReadWals();
  const std::string manifest = FindValidManifest();
  absl::Status kept = absl::DataLossError("no MANIFEST is intact");
  if (!manifest.empty()) {
    status = Empty();
    if (!status.ok()) return status;
    kept = KeepState(manifest);
    // No damage; rebuilding would fail in the same way.
    if (absl::IsResourceExhausted(kept) || absl::IsUnavailable(kept)) return kept;
  }
  if (kept.ok()) {
    summary_ = absl::StrCat("the state that ", manifest, " describes was kept", summary_);
  } else {
    status = Empty();
    if (!status.ok()) return status;
    RebuiltCatalog rebuilt;
    status = RebuildCatalog(folder_, fs_, env_.get(), files_, NewestManifest(), wals_,
                            &rebuilt);
    if (!status.ok()) {
      DeleteFolder(fs_.get(), folder_.new_catalog()).PermitUncheckedError();
      return status;
    }
    summary_ = absl::StrCat("it was rebuilt from ", rebuilt.tables, " tables and ",
                            wals_.size(), " journals", rebuilt.left_out, summary_);
  }
  status = Replace(why);
  if (!status.ok()) return status;
  return Salvaged{summary_, !kept.ok()};
}

}  // namespace

absl::Status CheckJournal(const HighWater& mark, absl::string_view name,
                          absl::string_view content) {
  for (const SyncedJournal& journal : mark.journals()) {
    if (journal.name != name) continue;
    const size_t bytes = static_cast<size_t>(journal.bytes);
    if (content.size() < bytes) {
      return absl::DataLossError(
          absl::StrCat("it has ", content.size(), " of ", bytes, " synced bytes"));
    }
    if (XXH3_64bits(content.data(), bytes) != journal.hash) {
      return absl::DataLossError("its bytes differ from those that were synced");
    }
  }
  return absl::OkStatus();
}

absl::StatusOr<Salvaged> SalvageCatalog(Folder& folder, const HighWater& mark,
                                        absl::string_view why) {
  return Salvage(folder, mark).Run(why);
}

}  // namespace modelstore::storage::rocks
