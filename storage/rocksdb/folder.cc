#include "storage/rocksdb/folder.h"

#include <algorithm>
#include <cstring>
#include <random>
#include <string>
#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "proto/contract/errors.h"
#include "storage/rocksdb/portable_file_system.h"
#include "storage/rocksdb/status.h"

namespace modelstore::storage::rocks {
namespace {

// Space that must stay free beside the ballast.
constexpr int64_t kLeaveFree = int64_t{16} << 20;

}  // namespace

rocksdb::IOStatus SyncFolder(rocksdb::FileSystem* fs, const std::string& path) {
  std::unique_ptr<rocksdb::FSDirectory> folder;
  rocksdb::IOStatus s = fs->NewDirectory(path, {}, &folder, nullptr);
  if (s.ok()) s = folder->Fsync({}, nullptr);
  return s;
}

rocksdb::IOStatus MakeFolder(rocksdb::FileSystem* fs, const std::string& path) {
  if (fs->FileExists(path, {}, nullptr).ok()) return rocksdb::IOStatus::OK();
  const size_t slash = path.rfind('/');
  const std::string parent = slash == std::string::npos ? "."
                             : slash == 0               ? "/"
                                                        : path.substr(0, slash);
  rocksdb::IOStatus s = MakeFolder(fs, parent);
  if (s.ok()) s = fs->CreateDirIfMissing(path, {}, nullptr);
  if (s.ok()) s = SyncFolder(fs, parent);
  return s;
}

absl::StatusOr<std::shared_ptr<Folder>> Folder::Open(const RocksOptions& options) {
  if (options.path.empty()) return absl::InvalidArgumentError("the store has no path");
  RocksOptions clean = options;
  while (clean.path.size() > 1 && clean.path.back() == '/') clean.path.pop_back();
  const auto report = [listener = options.listener](const std::string& message) {
    if (listener != nullptr) listener->OnEvent(Listener::Severity::kWarning, message);
  };
  std::shared_ptr<Folder> folder(new Folder(
      clean, std::make_shared<PortableFileSystem>(options.file_system != nullptr
                                                      ? options.file_system
                                                      : rocksdb::FileSystem::Default(),
                                                  report)));
  absl::Status status = folder->Make();
  if (!status.ok()) return status;
  folder->RestoreBallast();
  return folder;
}

namespace {

// RocksDB marks a held lock by its message only: the first text if another process holds
// it, the second if this process does.
bool IsHeld(const rocksdb::IOStatus& lock_failure) {
  const std::string words = lock_failure.ToString();
  return absl::StrContains(words, "While lock file") ||
         absl::StrContains(words, "lock hold by current process");
}

}  // namespace

// Locks first: everything after it may change files.
absl::Status Folder::Make() {
  rocksdb::IOStatus s = MakeFolder(fs_.get(), path_);
  if (!s.ok()) return FromRocks(s, absl::StrCat("make folder ", path_));
  s = fs_->LockFile(path_ + "/LOCK", {}, &lock_, nullptr);
  if (!s.ok() && IsHeld(s)) {
    return absl::FailedPreconditionError(
        absl::StrCat("the store in ", path_, " is already open: ", s.ToString()));
  }
  if (!s.ok()) return FromRocks(s, absl::StrCat("use folder ", path_, " for a store"));
  absl::Status settled = FinishCatalogReplacement();
  if (!settled.ok()) return settled;
  for (const std::string& path : {catalog(), packs(), incoming()}) {
    s = MakeFolder(fs_.get(), path);
    if (!s.ok()) return FromRocks(s, absl::StrCat("make folder ", path));
  }
  return loss_.Load();
}

// Salvage first completes catalog.new/, then moves catalog/ away, then renames the new
// one. So if catalog/ exists, catalog.new/ may be incomplete and is deleted; if it does
// not, the new one is complete and takes its place.
absl::Status Folder::FinishCatalogReplacement() {
  rocksdb::IOStatus s = fs_->FileExists(new_catalog(), {}, nullptr);
  if (s.IsNotFound()) return absl::OkStatus();
  if (s.ok()) s = fs_->FileExists(catalog(), {}, nullptr);
  if (s.ok()) {
    s = DeleteFolder(fs_.get(), new_catalog());
  } else if (s.IsNotFound()) {
    // The old one is moved away only after the new one is complete.
    s = fs_->RenameFile(new_catalog(), catalog(), {}, nullptr);
    if (s.ok()) s = SyncFolder(fs_.get(), path_);
  }
  return FromRocks(s, new_catalog());
}

Folder::~Folder() {
  if (lock_ != nullptr) fs_->UnlockFile(lock_, {}, nullptr).PermitUncheckedError();
}

absl::StatusOr<int64_t> Folder::FreeBytes() const {
  uint64_t bytes = 0;
  const rocksdb::IOStatus s = fs_->GetFreeSpace(path_, {}, &bytes, nullptr);
  if (!s.ok()) return FromRocks(s, "free space");
  return static_cast<int64_t>(std::min<uint64_t>(bytes, INT64_MAX));
}

absl::Status Folder::CheckSpace(int64_t bytes) const {
  const absl::StatusOr<int64_t> free = FreeBytes();
  // If the free space is unknown, the write itself will fail.
  if (!free.ok() || *free >= bytes) return absl::OkStatus();
  return MakeError(
      ERROR_REASON_DISK_FULL,
      absl::StrCat("the disk of the store is full: ", *free, " bytes are free, ", bytes,
                   " are needed; delete checkpoints or free space on ", path_),
      {{"bytes_to_free", absl::StrCat(bytes - *free)}});
}

void Folder::ReleaseBallastFor(int64_t bytes) {
  if (!CheckSpace(bytes).ok()) ReleaseBallast();
}

void Folder::ReleaseBallast() {
  MutexLock lock(ballast_mutex_);
  if (fs_->DeleteFile(ballast(), {}, nullptr).ok()) {
    Report(Listener::Severity::kWarning, "the disk is full: the ballast was released");
  }
}

void Folder::RestoreBallast() {
  MutexLock lock(ballast_mutex_);
  if (ballast_bytes_ <= 0) {
    fs_->DeleteFile(ballast(), {}, nullptr).PermitUncheckedError();
    return;
  }
  uint64_t size = 0;
  if (fs_->GetFileSize(ballast(), {}, &size, nullptr).ok() &&
      size == static_cast<uint64_t>(ballast_bytes_)) {
    return;
  }
  // Tried again at the next open or collection.
  const absl::StatusOr<int64_t> free = FreeBytes();
  if (!free.ok() || *free < ballast_bytes_ + kLeaveFree) return;
  const absl::Status status = WriteBallast();
  if (!status.ok()) {
    fs_->DeleteFile(ballast(), {}, nullptr).PermitUncheckedError();
    Report(Listener::Severity::kWarning, absl::StrCat("no ballast: ", status.message()));
  }
}

absl::Status Folder::WriteBallast() {
  std::unique_ptr<rocksdb::FSWritableFile> file;
  rocksdb::IOStatus s =
      fs_->NewWritableFile(ballast(), rocksdb::FileOptions(), &file, nullptr);
  // Written, not only allocated, so that a copy of the folder has a ballast too. Random
  // bytes, as file systems and copy tools may skip zeros or compress.
  std::string block(size_t{1} << 20, '\0');
  std::mt19937_64 random;
  for (size_t i = 0; i < block.size(); i += sizeof(uint64_t)) {
    const uint64_t word = random();
    std::memcpy(&block[i], &word, sizeof(word));
  }
  for (int64_t left = ballast_bytes_; s.ok() && left > 0;) {
    const auto bytes = std::min(left, static_cast<int64_t>(block.size()));
    s = file->Append(rocksdb::Slice(block.data(), static_cast<size_t>(bytes)), {},
                     nullptr);
    left -= bytes;
  }
  if (s.ok()) s = file->Close({}, nullptr);
  return FromRocks(s, "write BALLAST");
}

void Folder::Report(Listener::Severity severity, absl::string_view message) const {
  if (listener_ != nullptr) listener_->OnEvent(severity, message);
}

}  // namespace modelstore::storage::rocks
