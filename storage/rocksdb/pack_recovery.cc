#include "storage/rocksdb/pack_recovery.h"

#include <algorithm>
#include <map>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "rocksdb/convenience.h"
#include "rocksdb/db.h"
#include "storage/rocksdb/options.h"
#include "storage/rocksdb/pack_format.h"
#include "storage/rocksdb/pack_metadata.h"
#include "storage/rocksdb/status.h"
#include "storage/rocksdb/table_scan.h"

namespace modelstore::storage::rocks {
namespace {

// Disk space that opening may need, generously.
constexpr int64_t kOpenBytes = int64_t{4} << 20;

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
  // Removes packs from the metadata whose file is missing, or that are only kept because
  // a loss is open.
  absl::Status ForgetLostFiles(const std::vector<std::string>& tables);
  // True if the metadata does not know one of the expected packs. It may know others
  // that are not expected.
  bool LacksAnExpectedPack() const {
    return std::any_of(expected_.begin(), expected_.end(),
                       [this](uint64_t pack) { return known_.count(pack) == 0; });
  }
  // Ingests, quarantines, keeps or deletes each file that the metadata does not know.
  absl::Status IngestFolder(const std::string& folder);
  absl::Status IngestPack(const std::string& path, uint64_t pack);
  rocksdb::Status Ingest(const std::string& path);
  absl::Status Quarantine(const std::string& path, const std::string& name,
                          absl::string_view why);
  absl::Status Remove(const std::string& folder, const std::string& name);
  bool loss_is_open() const { return !folder_.loss().folder().empty(); }
  // Keeps a pack that the catalog does not name, while a loss is open.
  absl::Status Keep(const std::string& path, uint64_t pack);
  absl::Status EndLoss();

  Folder& folder_;
  EngineFileSystem& fs_;
  const rocksdb::Options& options_;
  const std::unordered_set<uint64_t> expected_;
  std::unique_ptr<Database> database_;
  // Packs that the metadata knows, and the names of their files.
  std::unordered_set<uint64_t> known_;
  std::unordered_set<std::string> live_;
  // Paths of the packs that Keep() kept.
  std::vector<std::string> kept_;
};

rocksdb::Status Recovery::OpenRocks() {
  rocksdb::DB* db = nullptr;
  fs_.TakeDescriptorFailure().PermitUncheckedError();
  const rocksdb::Status s = rocksdb::DB::Open(options_, folder_.packs(), &db);
  database_ = std::make_unique<Database>();
  database_->db.reset(db);
  const rocksdb::IOStatus without_descriptors = fs_.TakeDescriptorFailure();
  return s.ok() || without_descriptors.ok() ? s : rocksdb::Status(without_descriptors);
}

absl::Status Recovery::ForgetLostFiles(const std::vector<std::string>& tables) {
  const std::unordered_set<std::string> present(tables.begin(), tables.end());
  std::vector<rocksdb::LiveFileMetaData> files;
  database_->db->GetLiveFilesMetaData(&files);
  for (const auto& file : files) {
    const std::optional<ChunkId> first = DecodeChunkKey(file.smallestkey);
    const std::string name = TableFileName(file.file_number);
    const bool is_there = present.count(name) > 0;
    const bool is_kept = is_there && loss_is_open() && first.has_value() &&
                         expected_.count(first->pack) == 0;
    if (is_there && !is_kept) {
      live_.insert(name);
      if (first.has_value()) known_.insert(first->pack);
      continue;
    }
    if (is_kept) {
      absl::Status status = Keep(absl::StrCat(folder_.packs(), "/", name), first->pack);
      if (!status.ok()) return status;
      fs_.Release(name);
    }
    const rocksdb::Slice begin(file.smallestkey);
    const rocksdb::Slice end(file.largestkey);
    const rocksdb::Status s = rocksdb::DeleteFilesInRange(
        database_->db.get(), database_->db->DefaultColumnFamily(), &begin, &end);
    if (!s.ok()) return FromRocks(s, "forget a lost pack");
  }
  return absl::OkStatus();
}

absl::Status Recovery::IngestFolder(const std::string& folder) {
  absl::StatusOr<std::vector<std::string>> tables = ListTables(fs_, folder);
  if (!tables.ok()) return tables.status();
  for (const std::string& name : *tables) {
    if (folder == folder_.packs() && live_.count(name) > 0) continue;
    const std::string path = absl::StrCat(folder, "/", name);
    std::optional<uint64_t> pack;
    rocksdb::IOStatus read = PackOfFile(&fs_, path, &pack);
    if (!read.ok()) read = PackOfFile(&fs_, path, &pack);
    // UNAVAILABLE: the file may hold an expected pack, and the error may be transient.
    absl::Status status =
        FromRocks(read, absl::StrCat("read ", path,
                                     " (if the error persists, move the file out of the "
                                     "store, which loses its chunks)"));
    if (!status.ok()) return status;
    // A file whose pack is unknown is quarantined only if an expected pack is still
    // missing; otherwise it is garbage.
    if (pack.has_value() && expected_.count(*pack) > 0 && known_.count(*pack) == 0) {
      status = IngestPack(path, *pack);
    } else if (!pack.has_value() && (LacksAnExpectedPack() || loss_is_open())) {
      status = Quarantine(path, name, "its first bytes are damaged");
    } else {
      if (loss_is_open() && expected_.count(*pack) == 0) status = Keep(path, *pack);
      if (status.ok()) status = Remove(folder, name);
    }
    if (!status.ok()) return status;
  }
  return absl::OkStatus();
}

rocksdb::Status Recovery::Ingest(const std::string& path) {
  rocksdb::Status s = CheckOuterBlocks(&fs_, path);
  if (s.ok()) s = database_->db->IngestExternalFile({path}, PackIngestOptions());
  if (!s.ok()) fs_.DeleteArrivals();
  return s;
}

absl::Status Recovery::IngestPack(const std::string& path, uint64_t pack) {
  const std::string name = PackFileName(pack);
  std::string waiting = path;
  const bool in_packs = absl::StartsWith(path, absl::StrCat(folder_.packs(), "/"));
  if (in_packs) {
    // First moved out of packs/, where RocksDB may reuse its file number, to a folder
    // that the next opening scans if this one is interrupted.
    waiting = absl::StrCat(folder_.damaged(), "/", name);
    fs_.DeleteFile(waiting, {}, nullptr).PermitUncheckedError();
    rocksdb::IOStatus s = MakeFolder(&fs_, folder_.damaged());
    if (s.ok()) s = LinkAside(fs_, path, waiting);
    if (s.ok()) s = SyncFolder(&fs_, folder_.damaged());
    if (!s.ok()) return FromRocks(s, absl::StrCat("ingest pack ", pack));
    absl::Status removed = Remove(folder_.packs(), path.substr(path.rfind('/') + 1));
    if (!removed.ok() && !absl::IsNotFound(removed)) return removed;
  }
  rocksdb::Status s = Ingest(waiting);
  // Once more: RocksDB reports some failed reads as corruption.
  if (s.IsCorruption() || s.IsInvalidArgument()) s = Ingest(waiting);
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
  return FromRocks(s, absl::StrCat("ingest pack ", pack));
}

absl::Status Recovery::Quarantine(const std::string& path, const std::string& name,
                                  absl::string_view why) {
  rocksdb::IOStatus s = MakeFolder(&fs_, folder_.quarantine());
  const std::string to = FreeName(&fs_, absl::StrCat(folder_.quarantine(), "/", name));
  if (s.ok()) s = fs_.RenameFile(path, to, {}, nullptr);
  if (!s.ok()) return FromRocks(s, absl::StrCat("quarantine ", path));
  folder_.Report(
      Listener::Severity::kError,
      absl::StrCat("a pack file is damaged and its chunks are lost; it is kept as ", to,
                   ": ", why));
  return absl::OkStatus();
}

absl::Status Recovery::Remove(const std::string& folder, const std::string& name) {
  if (folder == folder_.packs()) fs_.Release(name);
  return FromRocks(fs_.DeleteFile(absl::StrCat(folder, "/", name), {}, nullptr),
                   "delete a pack that the catalog does not name");
}

absl::Status Recovery::Keep(const std::string& path, uint64_t pack) {
  std::string kept;
  absl::Status status = folder_.loss().KeepPack(path, pack, &kept);
  if (status.ok()) kept_.push_back(std::move(kept));
  return status;
}

// Every remaining pack is named by the catalog, so the loss is settled.
absl::Status Recovery::EndLoss() {
  if (!loss_is_open()) return absl::OkStatus();
  for (const std::string& path : kept_) {
    folder_.Report(
        Listener::Severity::kInfo,
        absl::StrCat("a pack that the catalog no longer names is kept as ", path));
  }
  folder_.Report(
      Listener::Severity::kWarning,
      absl::StrCat(kept_.size(), " packs that the catalog no longer names are kept in ",
                   folder_.loss().folder(),
                   "; its README.txt describes how to restore them"));
  return folder_.loss().End();
}

absl::StatusOr<std::unique_ptr<Database>> Recovery::Run() {
  folder_.ReleaseBallastFor(kOpenBytes);
  absl::StatusOr<std::vector<std::string>> tables = ListTables(fs_, folder_.packs());
  if (!tables.ok()) return tables.status();
  rocksdb::Status s =
      PackCurrentIsLost(folder_, fs_, *tables) ? rocksdb::Status::Corruption("no CURRENT")
      : PackManifestHasRecycledRecord(folder_, fs_)
          ? rocksdb::Status::Corruption("a record of the MANIFEST is damaged")
          : OpenRocks();
  if (s.IsCorruption() || s.IsInvalidArgument() || s.IsNotFound() || s.IsPathNotFound()) {
    folder_.Report(Listener::Severity::kWarning,
                   absl::StrCat("the metadata of packs/ is damaged and will be rebuilt: ",
                                s.ToString()));
    database_.reset();
    absl::Status status = MovePacksAside(folder_, fs_);
    if (!status.ok()) return status;
    s = OpenRocks();
  }
  if (!s.ok()) return FromRocks(s, "open packs/");
  tables = ListTables(fs_, folder_.packs());
  if (!tables.ok()) return tables.status();
  fs_.TakeArrivals();
  absl::Status status = ForgetLostFiles(*tables);
  // packs.damaged/ first: if an interrupted move left two files of a pack, the one there
  // is complete.
  if (status.ok()) status = IngestFolder(folder_.damaged());
  if (status.ok()) status = IngestFolder(folder_.packs());
  if (status.ok()) status = EndLoss();
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
