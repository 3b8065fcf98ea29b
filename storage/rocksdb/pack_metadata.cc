#include "storage/rocksdb/pack_metadata.h"

#include <unordered_set>
#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "storage/rocksdb/journal_format.h"
#include "storage/rocksdb/status.h"

namespace modelstore::storage::rocks {

absl::StatusOr<std::vector<std::string>> ListTables(EngineFileSystem& fs,
                                                    const std::string& folder) {
  std::vector<std::string> names;
  const rocksdb::IOStatus s = fs.GetChildren(folder, {}, &names, nullptr);
  if (s.IsNotFound() || s.IsPathNotFound()) return std::vector<std::string>();
  if (!s.ok()) return FromRocks(s, folder);
  std::vector<std::string> tables;
  for (std::string& name : names) {
    if (absl::EndsWith(name, ".sst")) tables.push_back(std::move(name));
  }
  return tables;
}

bool PackCurrentIsLost(const Folder& folder, EngineFileSystem& fs,
                       const std::vector<std::string>& tables) {
  return !tables.empty() &&
         fs.FileExists(absl::StrCat(folder.packs(), "/CURRENT"), {}, nullptr)
             .IsNotFound();
}

bool PackManifestHasRecycledRecord(const Folder& folder, EngineFileSystem& fs) {
  std::string name, content;
  rocksdb::Status s =
      rocksdb::ReadFileToString(&fs, absl::StrCat(folder.packs(), "/CURRENT"), &name);
  while (!name.empty() && name.back() == '\n') name.pop_back();
  if (s.ok()) {
    s = rocksdb::ReadFileToString(&fs, absl::StrCat(folder.packs(), "/", name), &content);
  }
  // If a file cannot be read, RocksDB reports the error when it opens.
  return s.ok() && HasRecycledRecord(content);
}

rocksdb::IOStatus LinkAside(EngineFileSystem& fs, const std::string& from,
                            const std::string& to) {
  const rocksdb::IOStatus s = fs.LinkFile(from, to, {}, nullptr);
  return s.IsNotSupported() ? fs.RenameFile(from, to, {}, nullptr) : s;
}

absl::Status MovePacksAside(const Folder& folder, EngineFileSystem& fs) {
  const std::string from = folder.packs();
  rocksdb::IOStatus s = MakeFolder(&fs, folder.damaged());
  if (!s.ok()) return FromRocks(s, folder.damaged());
  absl::StatusOr<std::vector<std::string>> taken = ListTables(fs, folder.damaged());
  if (!taken.ok()) return taken.status();
  std::unordered_set<std::string> names_taken(taken->begin(), taken->end());
  std::vector<std::string> names;
  s = fs.GetChildren(from, {}, &names, nullptr);
  if (!s.ok()) return FromRocks(s, from);
  for (const std::string& name : names) {
    if (!absl::EndsWith(name, ".sst")) continue;
    std::string free_name = name;
    while (names_taken.count(free_name) > 0) free_name = absl::StrCat("0", free_name);
    s = LinkAside(fs, absl::StrCat(from, "/", name),
                  absl::StrCat(folder.damaged(), "/", free_name));
    if (!s.ok()) return FromRocks(s, absl::StrCat("move aside ", name));
  }
  s = SyncFolder(&fs, folder.damaged());
  for (const std::string& name : names) {
    if (!s.ok()) break;
    if (!absl::EndsWith(name, ".sst")) continue;
    fs.Release(name);
    s = fs.DeleteFile(absl::StrCat(from, "/", name), {}, nullptr);
    if (s.IsNotFound() || s.IsPathNotFound()) s = rocksdb::IOStatus::OK();
  }
  if (s.ok()) s = SyncFolder(&fs, from);
  for (const std::string& name : names) {
    if (!s.ok()) break;
    if (absl::EndsWith(name, ".sst") || name == "." || name == "..") continue;
    s = fs.DeleteFile(absl::StrCat(from, "/", name), {}, nullptr);
  }
  return FromRocks(s, "move aside the metadata of packs/");
}

}  // namespace modelstore::storage::rocks
