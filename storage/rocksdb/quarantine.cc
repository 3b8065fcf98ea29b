#include "storage/rocksdb/quarantine.h"

#include <algorithm>
#include <memory>
#include <utility>
#include <vector>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/strip.h"
#include "absl/time/clock.h"
#include "absl/time/time.h"
#include "storage/rocksdb/folder.h"
#include "storage/rocksdb/pack_format.h"
#include "storage/rocksdb/status.h"

namespace modelstore::storage::rocks {
namespace {

constexpr size_t kCopyStep = size_t{1} << 20;

constexpr absl::string_view kReadme =
    "modelstored was started with --accept-data-loss and opened without a part of its\n"
    "catalog. The replaced files are kept here. modelstored never deletes them.\n"
    "\n"
    "  catalog/    the catalog as it was found (if it had to be replaced)\n"
    "  HIGH_WATER  what that catalog should have contained\n"
    "  packs/      packs that the new catalog does not name: tensors of lost versions\n"
    "\n"
    "To restore them with a repaired catalog or one from a backup, see \"Salvage\" in\n"
    "storage/FORMAT.md. If they are not needed, delete this folder.\n"
    "\n"
    "Why: ";

constexpr absl::string_view kTableSuffix = ".sst";

}  // namespace

std::string FreeName(rocksdb::FileSystem* fs, const std::string& path) {
  absl::string_view stem = path;
  const absl::string_view suffix =
      absl::ConsumeSuffix(&stem, kTableSuffix) ? kTableSuffix : "";
  std::string name = path;
  for (int i = 2; fs->FileExists(name, {}, nullptr).ok(); ++i) {
    name = absl::StrCat(stem, "-", i, suffix);
  }
  return name;
}

rocksdb::IOStatus CopyBytes(rocksdb::FileSystem* fs, const std::string& from,
                            const std::string& to, uint64_t bytes) {
  std::unique_ptr<rocksdb::FSSequentialFile> source;
  std::unique_ptr<rocksdb::FSWritableFile> copy;
  rocksdb::IOStatus s =
      fs->NewSequentialFile(from, rocksdb::FileOptions(), &source, nullptr);
  if (s.ok()) s = fs->NewWritableFile(to, rocksdb::FileOptions(), &copy, nullptr);
  std::string scratch(kCopyStep, '\0');
  while (s.ok() && bytes > 0) {
    rocksdb::Slice read;
    s = source->Read(std::min<uint64_t>(bytes, scratch.size()), {}, &read, scratch.data(),
                     nullptr);
    if (!s.ok() || read.empty()) break;
    bytes -= read.size();
    s = copy->Append(read, {}, nullptr);
  }
  if (s.ok()) s = copy->Sync({}, nullptr);
  if (s.ok()) s = copy->Close({}, nullptr);
  return s;
}

// The rename makes the copy visible only when it is complete and synced.
rocksdb::IOStatus CopyEntireFile(rocksdb::FileSystem* fs, const std::string& from,
                                 const std::string& draft, const std::string& to) {
  rocksdb::IOStatus s = CopyBytes(fs, from, draft);
  if (s.ok()) s = fs->RenameFile(draft, to, {}, nullptr);
  if (!s.ok()) fs->DeleteFile(draft, {}, nullptr).PermitUncheckedError();
  return s;
}

rocksdb::IOStatus LinkOrCopyFile(rocksdb::FileSystem* fs, const std::string& from,
                                 const std::string& to) {
  const rocksdb::IOStatus s = fs->LinkFile(from, to, {}, nullptr);
  return s.IsNotSupported() ? CopyEntireFile(fs, from, absl::StrCat(to, ".draft"), to)
                            : s;
}

rocksdb::IOStatus DeleteFolder(rocksdb::FileSystem* fs, const std::string& path) {
  std::vector<std::string> names;
  rocksdb::IOStatus s = fs->GetChildren(path, {}, &names, nullptr);
  if (s.IsNotFound() || s.IsPathNotFound()) return rocksdb::IOStatus::OK();
  for (const std::string& name : names) {
    if (!s.ok()) return s;
    if (name != "." && name != "..") {
      s = fs->DeleteFile(absl::StrCat(path, "/", name), {}, nullptr);
    }
  }
  return s.ok() ? fs->DeleteDir(path, {}, nullptr) : s;
}

Quarantine::Quarantine(std::shared_ptr<rocksdb::FileSystem> fs, std::string store)
    : fs_(std::move(fs)), store_(std::move(store)) {}

std::string Quarantine::folder() const {
  MutexLock lock(mutex_);
  return folder_;
}

absl::Status Quarantine::Load() {
  std::string name;
  rocksdb::Status s = fs_->FileExists(marker(), {}, nullptr);
  if (s.IsNotFound()) return absl::OkStatus();
  if (s.ok()) s = rocksdb::ReadFileToString(fs_.get(), marker(), &name);
  if (!s.ok()) return FromRocks(s, marker());
  absl::StripAsciiWhitespace(&name);
  // The marker is always complete. If it was edited, it must not name another folder.
  if (name.empty() || name.find('/') != std::string::npos) name = "unnamed";
  MutexLock lock(mutex_);
  folder_ = absl::StrCat(store_, "/quarantine/", name);
  return FromRocks(MakeFolder(fs_.get(), folder_), folder_);
}

// Order: the folder with README.txt and HIGH_WATER is synced first, then the marker is
// renamed into place and synced. If a crash interrupts this, there is at most a folder
// without a marker, which has no effect.
absl::Status Quarantine::Begin(absl::string_view why) {
  MutexLock lock(mutex_);
  if (!folder_.empty()) return absl::OkStatus();
  const std::string time =
      absl::FormatTime("%Y%m%dT%H%M%SZ", absl::Now(), absl::UTCTimeZone());
  const std::string folder =
      FreeName(fs_.get(), absl::StrCat(store_, "/quarantine/", time));
  rocksdb::IOStatus s = MakeFolder(fs_.get(), folder);
  if (s.ok()) {
    s = rocksdb::WriteStringToFile(fs_.get(), absl::StrCat(kReadme, why, "\n"),
                                   absl::StrCat(folder, "/README.txt"), true);
  }
  // A copy: the original is reset after this.
  const std::string mark = absl::StrCat(store_, "/HIGH_WATER");
  if (s.ok() && fs_->FileExists(mark, {}, nullptr).ok()) {
    s = CopyBytes(fs_.get(), mark, absl::StrCat(folder, "/HIGH_WATER"));
  }
  if (s.ok()) s = SyncFolder(fs_.get(), folder);
  const std::string draft = absl::StrCat(marker(), ".new");
  if (s.ok()) {
    s = rocksdb::WriteStringToFile(fs_.get(), folder.substr(folder.rfind('/') + 1), draft,
                                   true);
  }
  if (s.ok()) s = fs_->RenameFile(draft, marker(), {}, nullptr);
  if (s.ok()) s = SyncFolder(fs_.get(), store_);
  if (s.ok()) folder_ = folder;
  return FromRocks(s, absl::StrCat("make ", folder));
}

absl::Status Quarantine::TakeFolder(const std::string& path, const std::string& name) {
  const std::string to = FreeName(fs_.get(), absl::StrCat(folder(), "/", name));
  rocksdb::IOStatus s = fs_->RenameFile(path, to, {}, nullptr);
  if (s.ok()) s = SyncFolder(fs_.get(), folder());
  return FromRocks(s, absl::StrCat("move ", path, " to ", to));
}

absl::Status Quarantine::KeepPack(const std::string& path, uint64_t pack,
                                  std::string* kept) {
  const std::string packs = absl::StrCat(folder(), "/packs");
  rocksdb::IOStatus s = MakeFolder(fs_.get(), packs);
  *kept = FreeName(fs_.get(), absl::StrCat(packs, "/", PackFileName(pack)));
  // Both names exist until the caller deletes the first, so that a crash loses no pack.
  if (s.ok()) s = LinkOrCopyFile(fs_.get(), path, *kept);
  if (s.ok()) s = SyncFolder(fs_.get(), packs);
  return FromRocks(s, absl::StrCat("keep ", path, " as ", *kept));
}

absl::Status Quarantine::End() {
  MutexLock lock(mutex_);
  if (folder_.empty()) return absl::OkStatus();
  // The loss is open as long as the marker exists, so its deletion must be durable.
  rocksdb::IOStatus s = fs_->DeleteFile(marker(), {}, nullptr);
  if (s.ok()) s = SyncFolder(fs_.get(), store_);
  if (s.ok()) folder_.clear();
  return FromRocks(s, absl::StrCat("delete ", marker()));
}

}  // namespace modelstore::storage::rocks
