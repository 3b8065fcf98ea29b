#include "storage/rocksdb/pack_recovery.h"

#include <map>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "rocksdb/convenience.h"
#include "rocksdb/db.h"
#include "storage/rocksdb/journal_format.h"
#include "storage/rocksdb/options.h"
#include "storage/rocksdb/pack_format.h"
#include "storage/rocksdb/status.h"

namespace modelstore::storage::rocks {
namespace {

// What opening writes, with room to spare.
constexpr int64_t kOpenRoom = int64_t{4} << 20;

// One opening of packs/.
class Recovery {
 public:
  Recovery(Folder& folder, EngineFileSystem& fs, const rocksdb::Options& options,
           absl::Span<const uint64_t> expected)
      : folder_(folder),
        fs_(fs),
        options_(options),
        expected_(expected.begin(), expected.end()) {}

  absl::StatusOr<std::unique_ptr<Database>> Run();

 private:
  rocksdb::Status OpenRocks();
  absl::StatusOr<std::vector<std::string>> Tables(const std::string& folder);
  bool CurrentIsLost(const std::vector<std::string>& tables);
  bool ManifestIsEndless();
  rocksdb::IOStatus LinkAside(const std::string& from, const std::string& to);
  absl::Status MoveAside();
  absl::Status ForgetLostFiles(const std::vector<std::string>& tables);
  absl::Status TakeInFolder(const std::string& folder);
  absl::Status TakeIn(const std::string& path, uint64_t pack);
  absl::Status Quarantine(const std::string& path, const std::string& name,
                          absl::string_view why);
  absl::Status Remove(const std::string& folder, const std::string& name);

  Folder& folder_;
  EngineFileSystem& fs_;
  const rocksdb::Options& options_;
  const std::unordered_set<uint64_t> expected_;
  std::unique_ptr<Database> database_;
  // Packs that the metadata knows, and the names of their files.
  std::unordered_set<uint64_t> known_;
  std::unordered_set<std::string> live_;
};

rocksdb::Status Recovery::OpenRocks() {
  rocksdb::DB* db = nullptr;
  const rocksdb::Status s = rocksdb::DB::Open(options_, folder_.packs(), &db);
  database_ = std::make_unique<Database>();
  database_->db.reset(db);
  return s;
}

absl::StatusOr<std::vector<std::string>> Recovery::Tables(const std::string& folder) {
  std::vector<std::string> names;
  const rocksdb::IOStatus s = fs_.GetChildren(folder, {}, &names, nullptr);
  if (s.IsNotFound() || s.IsPathNotFound()) return std::vector<std::string>();
  if (!s.ok()) return FromRocks(s, folder);
  std::vector<std::string> tables;
  for (std::string& name : names) {
    if (absl::EndsWith(name, ".sst")) tables.push_back(std::move(name));
  }
  return tables;
}

bool Recovery::CurrentIsLost(const std::vector<std::string>& tables) {
  return !tables.empty() &&
         fs_.FileExists(absl::StrCat(folder_.packs(), "/CURRENT"), {}, nullptr).IsNotFound();
}

bool Recovery::ManifestIsEndless() {
  std::string name, content;
  rocksdb::Status s = rocksdb::ReadFileToString(
      &fs_, absl::StrCat(folder_.packs(), "/CURRENT"), &name);
  while (!name.empty() && name.back() == '\n') name.pop_back();
  if (s.ok()) {
    s = rocksdb::ReadFileToString(&fs_, absl::StrCat(folder_.packs(), "/", name), &content);
  }
  // What cannot be read is RocksDB's to judge.
  return s.ok() && HasRecycledRecord(content);
}

// A second name, so that power loss cannot take a file from one folder without
// bringing it to the other. File systems without links move it.
rocksdb::IOStatus Recovery::LinkAside(const std::string& from, const std::string& to) {
  const rocksdb::IOStatus s = fs_.LinkFile(from, to, {}, nullptr);
  return s.IsNotSupported() ? fs_.RenameFile(from, to, {}, nullptr) : s;
}

// Leaves an empty packs/. Cut short anywhere, it is done again: as long as a file
// of the metadata is left it does not open, and tables are moved before any is
// touched.
absl::Status Recovery::MoveAside() {
  const std::string& from = folder_.packs();
  rocksdb::IOStatus s = MakeFolder(&fs_, folder_.damaged());
  if (!s.ok()) return FromRocks(s, folder_.damaged());
  absl::StatusOr<std::vector<std::string>> taken = Tables(folder_.damaged());
  if (!taken.ok()) return taken.status();
  std::unordered_set<std::string> names_taken(taken->begin(), taken->end());
  std::vector<std::string> names;
  s = fs_.GetChildren(from, {}, &names, nullptr);
  if (!s.ok()) return FromRocks(s, from);
  for (const std::string& name : names) {
    if (!absl::EndsWith(name, ".sst")) continue;
    std::string free_name = name;
    while (names_taken.count(free_name) > 0) free_name = absl::StrCat("0", free_name);
    s = LinkAside(absl::StrCat(from, "/", name),
                  absl::StrCat(folder_.damaged(), "/", free_name));
    if (!s.ok()) return FromRocks(s, absl::StrCat("move aside ", name));
  }
  s = SyncFolder(&fs_, folder_.damaged());
  for (const std::string& name : names) {
    if (!s.ok()) break;
    if (!absl::EndsWith(name, ".sst")) continue;
    fs_.Release(name);
    s = fs_.DeleteFile(absl::StrCat(from, "/", name), {}, nullptr);
    if (s.IsNotFound() || s.IsPathNotFound()) s = rocksdb::IOStatus::OK();
  }
  if (s.ok()) s = SyncFolder(&fs_, from);
  for (const std::string& name : names) {
    if (!s.ok()) break;
    if (absl::EndsWith(name, ".sst") || name == "." || name == "..") continue;
    s = fs_.DeleteFile(absl::StrCat(from, "/", name), {}, nullptr);
  }
  return FromRocks(s, "move aside the metadata of packs/");
}

// Metadata that names files which are not there any more.
absl::Status Recovery::ForgetLostFiles(const std::vector<std::string>& tables) {
  const std::unordered_set<std::string> present(tables.begin(), tables.end());
  std::vector<rocksdb::LiveFileMetaData> files;
  database_->db->GetLiveFilesMetaData(&files);
  for (const auto& file : files) {
    const std::optional<ChunkId> first = DecodeChunkKey(file.smallestkey);
    const std::string name = TableFileName(file.file_number);
    if (present.count(name) > 0) {
      live_.insert(name);
      if (first.has_value()) known_.insert(first->pack);
      continue;
    }
    const rocksdb::Slice begin(file.smallestkey);
    const rocksdb::Slice end(file.largestkey);
    const rocksdb::Status s = rocksdb::DeleteFilesInRange(
        database_->db.get(), database_->db->DefaultColumnFamily(), &begin, &end);
    if (!s.ok()) return FromRocks(s, "forget a lost pack");
  }
  return absl::OkStatus();
}

absl::Status Recovery::TakeInFolder(const std::string& folder) {
  absl::StatusOr<std::vector<std::string>> tables = Tables(folder);
  if (!tables.ok()) return tables.status();
  for (const std::string& name : *tables) {
    if (folder == folder_.packs() && live_.count(name) > 0) continue;
    const std::string path = absl::StrCat(folder, "/", name);
    const std::optional<uint64_t> pack = PackOfFile(&fs_, path);
    absl::Status status;
    if (pack.has_value() && expected_.count(*pack) > 0 && known_.count(*pack) == 0) {
      status = TakeIn(path, *pack);
    } else if (!pack.has_value() && expected_.size() > known_.size()) {
      status = Quarantine(path, name, "its first bytes are damaged");
    } else {
      status = Remove(folder, name);
    }
    if (!status.ok()) return status;
  }
  return absl::OkStatus();
}

absl::Status Recovery::TakeIn(const std::string& path, uint64_t pack) {
  const std::string name = PackFileName(pack);
  std::string waiting = path;
  const bool in_packs = absl::StartsWith(path, absl::StrCat(folder_.packs(), "/"));
  if (in_packs) {
    // Out of packs/, where RocksDB may give its name to another; into a folder that
    // the next opening looks through, should this one be cut short.
    waiting = absl::StrCat(folder_.damaged(), "/", name);
    fs_.DeleteFile(waiting, {}, nullptr).PermitUncheckedError();
    rocksdb::IOStatus s = MakeFolder(&fs_, folder_.damaged());
    if (s.ok()) s = LinkAside(path, waiting);
    if (s.ok()) s = SyncFolder(&fs_, folder_.damaged());
    if (!s.ok()) return FromRocks(s, absl::StrCat("take in pack ", pack));
    absl::Status removed = Remove(folder_.packs(), path.substr(path.rfind('/') + 1));
    if (!removed.ok() && !absl::IsNotFound(removed)) return removed;
  }
  const rocksdb::Status s =
      database_->db->IngestExternalFile({waiting}, PackIngestOptions());
  if (s.ok()) {
    for (const std::string& arrival : fs_.TakeArrivals()) {
      fs_.Keep(arrival);
      live_.insert(arrival);
    }
    known_.insert(pack);
    return absl::OkStatus();
  }
  if (s.IsCorruption() || s.IsInvalidArgument()) {
    return Quarantine(waiting, name, s.ToString());
  }
  return FromRocks(s, absl::StrCat("take in pack ", pack));
}

absl::Status Recovery::Quarantine(const std::string& path, const std::string& name,
                                  absl::string_view why) {
  const std::string to = absl::StrCat(folder_.quarantine(), "/", name);
  rocksdb::IOStatus s = MakeFolder(&fs_, folder_.quarantine());
  if (s.ok()) s = fs_.RenameFile(path, to, {}, nullptr);
  if (!s.ok()) return FromRocks(s, absl::StrCat("quarantine ", path));
  folder_.Report(Listener::Severity::kError,
                 absl::StrCat("a pack file is damaged beyond use and its chunks are lost; "
                              "it is kept as ",
                              to, ": ", why));
  return absl::OkStatus();
}

absl::Status Recovery::Remove(const std::string& folder, const std::string& name) {
  if (folder == folder_.packs()) fs_.Release(name);
  return FromRocks(fs_.DeleteFile(absl::StrCat(folder, "/", name), {}, nullptr),
                   "delete a pack that nothing names");
}

absl::StatusOr<std::unique_ptr<Database>> Recovery::Run() {
  folder_.MakeRoom(kOpenRoom);
  absl::StatusOr<std::vector<std::string>> tables = Tables(folder_.packs());
  if (!tables.ok()) return tables.status();
  rocksdb::Status s = CurrentIsLost(*tables) ? rocksdb::Status::Corruption("no CURRENT")
                      : ManifestIsEndless()
                          ? rocksdb::Status::Corruption("a record of the MANIFEST is damaged")
                          : OpenRocks();
  if (s.IsCorruption() || s.IsInvalidArgument() || s.IsNotFound() || s.IsPathNotFound()) {
    folder_.Report(Listener::Severity::kWarning,
                   absl::StrCat("the metadata of packs/ is damaged and is made anew: ",
                                s.ToString()));
    database_.reset();
    absl::Status status = MoveAside();
    if (!status.ok()) return status;
    s = OpenRocks();
  }
  if (!s.ok()) return FromRocks(s, "open packs/");
  tables = Tables(folder_.packs());
  if (!tables.ok()) return tables.status();
  fs_.TakeArrivals();
  absl::Status status = ForgetLostFiles(*tables);
  // First what waits since before: of a pack with two names it has the whole one.
  if (status.ok()) status = TakeInFolder(folder_.damaged());
  if (status.ok()) status = TakeInFolder(folder_.packs());
  if (!status.ok()) return status;
  fs_.DeleteDir(folder_.damaged(), {}, nullptr).PermitUncheckedError();
  return std::move(database_);
}

}  // namespace

absl::StatusOr<std::unique_ptr<Database>> OpenPacks(Folder& folder, EngineFileSystem& fs,
                                                    const rocksdb::Options& options,
                                                    absl::Span<const uint64_t> expected) {
  return Recovery(folder, fs, options, expected).Run();
}

}  // namespace modelstore::storage::rocks
