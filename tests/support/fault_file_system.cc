#include "tests/support/fault_file_system.h"

#include <algorithm>
#include <cstring>
#include <utility>
#include <vector>

#include "absl/strings/match.h"

namespace modelstore::testing {

using rocksdb::FileOptions;
using rocksdb::IODebugContext;
using rocksdb::IOOptions;
using rocksdb::IOStatus;
using rocksdb::Slice;

FileKind KindOf(const std::string& path) {
  const size_t slash = path.rfind('/');
  const std::string name = slash == std::string::npos ? path : path.substr(slash + 1);
  const bool in_catalog = absl::StrContains(path, "catalog/");
  if (absl::EndsWith(name, ".log")) return in_catalog ? FileKind::kWal : FileKind::kOther;
  if (absl::StartsWith(name, "MANIFEST-")) return FileKind::kManifest;
  if (name == "CURRENT") return FileKind::kCurrent;
  // OPTIONS and IDENTITY are created under such names too, but no state depends on them.
  if (absl::EndsWith(name, ".dbtmp")) {
    return absl::StartsWith(name, "OPTIONS") ? FileKind::kOther : FileKind::kCurrent;
  }
  if (absl::EndsWith(name, ".sst"))
    return in_catalog ? FileKind::kTable : FileKind::kPack;
  if (name == "HIGH_WATER") return FileKind::kHighWater;
  if (name == "BALLAST") return FileKind::kBallast;
  return FileKind::kOther;
}

const char* KindName(FileKind kind) {
  constexpr const char* kNames[kFileKinds] = {"wal",     "manifest",  "current",
                                              "table",   "pack",      "high_water",
                                              "ballast", "directory", "other"};
  return kNames[static_cast<size_t>(kind)];
}

// Each open file refers to the model's file, which renames do not change.
class FaultWritableFile final : public rocksdb::FSWritableFileOwnerWrapper {
 public:
  FaultWritableFile(std::unique_ptr<rocksdb::FSWritableFile> file, FaultFileSystem* fs,
                    std::shared_ptr<ModelFile> model, std::string path)
      : FSWritableFileOwnerWrapper(std::move(file)),
        fs_(fs),
        model_(std::move(model)),
        path_(std::move(path)),
        kind_(KindOf(path_)) {}

  IOStatus Append(const Slice& data, const IOOptions& options,
                  IODebugContext* dbg) override {
    IOStatus s = fs_->Begin(kWrite, kind_, path_);
    if (!s.ok()) return s;
    int64_t room;
    {
      MutexLock lock(fs_->mutex_);
      room = fs_->FreeSpaceFor(*model_, static_cast<int64_t>(data.size()));
    }
    // A full disk accepts a part of the bytes, as write(2) does.
    s = target()->Append(Slice(data.data(), static_cast<size_t>(room)), options, dbg);
    if (!s.ok()) return s;
    MutexLock lock(fs_->mutex_);
    model_->live_bytes += room;
    fs_->CountWrite(kind_, room);
    if (room == static_cast<int64_t>(data.size())) return s;
    return IOStatus::NoSpace("the quota is used up", path_);
  }
  IOStatus Append(const Slice& data, const IOOptions& options,
                  const rocksdb::DataVerificationInfo&, IODebugContext* dbg) override {
    return Append(data, options, dbg);
  }
  IOStatus Truncate(uint64_t size, const IOOptions& options,
                    IODebugContext* dbg) override {
    IOStatus s = fs_->Begin(kTruncate, kind_, path_);
    if (s.ok()) s = target()->Truncate(size, options, dbg);
    if (!s.ok()) return s;
    MutexLock lock(fs_->mutex_);
    if (static_cast<int64_t>(size) < model_->durable_bytes)
      fs_->model_.BeforeOverwrite(*model_);
    model_->live_bytes = static_cast<int64_t>(size);
    return s;
  }
  IOStatus Allocate(uint64_t offset, uint64_t length, const IOOptions& options,
                    IODebugContext* dbg) override {
    IOStatus s = fs_->Begin(kWrite, kind_, path_);
    if (!s.ok()) return s;
    MutexLock lock(fs_->mutex_);
    const int64_t end = static_cast<int64_t>(offset + length);
    if (fs_->FreeSpaceFor(*model_, end - model_->live_bytes) < end - model_->live_bytes) {
      return IOStatus::NoSpace("the quota is used up", path_);
    }
    model_->allocated_bytes = std::max(model_->allocated_bytes, end);
    return target()->Allocate(offset, length, options, dbg);
  }
  // Only recorded in the model; a real sync would only take time.
  IOStatus Sync(const IOOptions&, IODebugContext*) override {
    IOStatus s = fs_->Begin(kSync, kind_, path_);
    if (!s.ok()) return s;
    MutexLock lock(fs_->mutex_);
    if (fs_->CountSync(kind_)) fs_->model_.SyncFile(*model_);
    return s;
  }
  IOStatus Fsync(const IOOptions& options, IODebugContext* dbg) override {
    return Sync(options, dbg);
  }
  IOStatus RangeSync(uint64_t, uint64_t, const IOOptions&, IODebugContext*) override {
    return fs_->Begin(kWriteBack, kind_, path_);
  }
  // As with close(2), the file is closed even on failure.
  IOStatus Close(const IOOptions& options, IODebugContext* dbg) override {
    IOStatus s = fs_->Begin(kClose, kind_, path_);
    const IOStatus closed = target()->Close(options, dbg);
    return s.ok() ? closed : s;
  }
  // Preallocation would bypass the quota.
  void PrepareWrite(size_t, size_t, const IOOptions&, IODebugContext*) override {}

 private:
  FaultFileSystem* const fs_;
  const std::shared_ptr<ModelFile> model_;
  const std::string path_;
  const FileKind kind_;
};

class FaultRandomRWFile final : public rocksdb::FSRandomRWFileOwnerWrapper {
 public:
  FaultRandomRWFile(std::unique_ptr<rocksdb::FSRandomRWFile> file, FaultFileSystem* fs,
                    std::shared_ptr<ModelFile> model, std::string path)
      : FSRandomRWFileOwnerWrapper(std::move(file)),
        fs_(fs),
        model_(std::move(model)),
        path_(std::move(path)),
        kind_(KindOf(path_)) {}

  IOStatus Write(uint64_t offset, const Slice& data, const IOOptions& options,
                 IODebugContext* dbg) override {
    IOStatus s = fs_->Begin(kWrite, kind_, path_);
    if (!s.ok()) return s;
    MutexLock lock(fs_->mutex_);
    const int64_t end = static_cast<int64_t>(offset + data.size());
    const int64_t growth = std::max<int64_t>(end - model_->live_bytes, 0);
    if (fs_->FreeSpaceFor(*model_, growth) < growth) {
      return IOStatus::NoSpace("the quota is used up", path_);
    }
    if (static_cast<int64_t>(offset) < model_->durable_bytes) {
      fs_->model_.BeforeOverwrite(*model_);
    }
    s = target()->Write(offset, data, options, dbg);
    if (!s.ok()) return s;
    model_->live_bytes = std::max(model_->live_bytes, end);
    fs_->CountWrite(kind_, static_cast<int64_t>(data.size()));
    return s;
  }
  IOStatus Sync(const IOOptions&, IODebugContext*) override {
    IOStatus s = fs_->Begin(kSync, kind_, path_);
    if (!s.ok()) return s;
    MutexLock lock(fs_->mutex_);
    if (fs_->CountSync(kind_)) fs_->model_.SyncFile(*model_);
    return s;
  }
  IOStatus Fsync(const IOOptions& options, IODebugContext* dbg) override {
    return Sync(options, dbg);
  }

 private:
  FaultFileSystem* const fs_;
  const std::shared_ptr<ModelFile> model_;
  const std::string path_;
  const FileKind kind_;
};

class FaultDirectory final : public rocksdb::FSDirectoryWrapper {
 public:
  FaultDirectory(std::unique_ptr<rocksdb::FSDirectory> folder, FaultFileSystem* fs,
                 std::string path)
      : FSDirectoryWrapper(std::move(folder)), fs_(fs), path_(std::move(path)) {}

  IOStatus Fsync(const IOOptions&, IODebugContext*) override {
    IOStatus s = fs_->Begin(kSync, FileKind::kDirectory, path_);
    if (!s.ok()) return s;
    MutexLock lock(fs_->mutex_);
    if (fs_->CountSync(FileKind::kDirectory)) fs_->model_.SyncFolder(path_);
    return s;
  }
  IOStatus FsyncWithDirOptions(const IOOptions& options, IODebugContext* dbg,
                               const rocksdb::DirFsyncOptions&) override {
    return Fsync(options, dbg);
  }

 private:
  FaultFileSystem* const fs_;
  const std::string path_;
};

class FaultSequentialFile final : public rocksdb::FSSequentialFileOwnerWrapper {
 public:
  FaultSequentialFile(std::unique_ptr<rocksdb::FSSequentialFile> file,
                      FaultFileSystem* fs, std::string path)
      : FSSequentialFileOwnerWrapper(std::move(file)), fs_(fs), path_(std::move(path)) {}

  IOStatus Read(size_t n, const IOOptions& options, Slice* result, char* scratch,
                IODebugContext* dbg) override {
    IOStatus s = fs_->Begin(kRead, KindOf(path_), path_);
    return s.ok() ? target()->Read(n, options, result, scratch, dbg) : s;
  }

 private:
  FaultFileSystem* const fs_;
  const std::string path_;
};

class FaultRandomAccessFile final : public rocksdb::FSRandomAccessFileOwnerWrapper {
 public:
  FaultRandomAccessFile(std::unique_ptr<rocksdb::FSRandomAccessFile> file,
                        FaultFileSystem* fs, std::string path)
      : FSRandomAccessFileOwnerWrapper(std::move(file)),
        fs_(fs),
        path_(std::move(path)) {}

  IOStatus Read(uint64_t offset, size_t n, const IOOptions& options, Slice* result,
                char* scratch, IODebugContext* dbg) const override {
    IOStatus s = fs_->Begin(kRead, KindOf(path_), path_);
    return s.ok() ? target()->Read(offset, n, options, result, scratch, dbg) : s;
  }

 private:
  FaultFileSystem* const fs_;
  const std::string path_;
};

FaultFileSystem::FaultFileSystem(std::string root)
    : FileSystemWrapper(rocksdb::FileSystem::Default()),
      root_(std::move(root)),
      model_(root_) {}

FaultFileSystem::~FaultFileSystem() = default;

void FaultFileSystem::SetFault(const Fault& fault) {
  MutexLock lock(mutex_);
  fault_ = fault;
}

void FaultFileSystem::ClearFault() {
  MutexLock lock(mutex_);
  fault_.reset();
}

int64_t FaultFileSystem::failures() const {
  MutexLock lock(mutex_);
  return failures_;
}

void FaultFileSystem::IgnoreSync(FileKind kind) {
  MutexLock lock(mutex_);
  ignored_.insert(kind);
}

void FaultFileSystem::SetQuota(int64_t bytes) {
  MutexLock lock(mutex_);
  quota_ = bytes;
}

int64_t FaultFileSystem::used_bytes() const {
  MutexLock lock(mutex_);
  return model_.used_bytes();
}

FaultFileSystem::Counts FaultFileSystem::counts(FileKind kind) const {
  MutexLock lock(mutex_);
  return counts_[static_cast<size_t>(kind)];
}

FaultFileSystem::Counts FaultFileSystem::total() const {
  MutexLock lock(mutex_);
  Counts sum;
  for (const Counts& counts : counts_) {
    sum.writes += counts.writes;
    sum.bytes += counts.bytes;
    sum.syncs += counts.syncs;
  }
  return sum;
}

void FaultFileSystem::ResetCounts() {
  MutexLock lock(mutex_);
  counts_.fill(Counts());
}

void FaultFileSystem::SetHook(std::function<void(const Operation&)> hook) {
  MutexLock lock(mutex_);
  hook_ = std::move(hook);
}

int64_t FaultFileSystem::operations() const {
  MutexLock lock(mutex_);
  return operations_;
}

void FaultFileSystem::CutPowerAt(int64_t n) {
  MutexLock lock(mutex_);
  cut_at_ = operations_ + n;
}

bool FaultFileSystem::power_is_off() const {
  MutexLock lock(mutex_);
  return power_is_off_;
}

absl::Status FaultFileSystem::Materialize(const std::string& folder,
                                          std::optional<uint64_t> seed) const {
  std::mt19937_64 random(seed.value_or(0));
  MutexLock lock(mutex_);
  return model_.Materialize(folder, seed.has_value() ? &random : nullptr);
}

IOStatus FaultFileSystem::Begin(FileOp op, FileKind kind, const std::string& path) {
  Operation operation{op, kind, path, 0};
  std::function<void(const Operation&)> hook;
  {
    MutexLock lock(mutex_);
    if ((op & kChanges) != 0 && !power_is_off_) operation.index = ++operations_;
    hook = hook_;
  }
  if (hook) hook(operation);
  MutexLock lock(mutex_);
  if ((op & kChanges) != 0) {
    if (cut_at_ >= 0 && operations_ >= cut_at_) power_is_off_ = true;
    if (power_is_off_) return IOStatus::IOError("the power is off", path);
  }
  if (!fault_.has_value() || (fault_->ops & op) == 0) return IOStatus::OK();
  if (fault_->kind.has_value() && *fault_->kind != kind) return IOStatus::OK();
  if (--fault_->at > 0) return IOStatus::OK();
  ++failures_;
  const bool no_space = fault_->no_space;
  const int error = fault_->error;
  if (fault_->for_good) {
    fault_->at = 1;
  } else {
    fault_.reset();
  }
  if (error != 0) return IOStatus::IOError(path, std::strerror(error));
  return no_space ? IOStatus::NoSpace("no space, on demand", path)
                  : IOStatus::IOError("failed on demand", path);
}

int64_t FaultFileSystem::FreeSpaceFor(const ModelFile& file, int64_t bytes) const {
  // Space already allocated to the file does not count again.
  const int64_t owned = std::max<int64_t>(file.allocated_bytes - file.live_bytes, 0);
  if (quota_ < 0 || bytes <= owned) return bytes;
  const int64_t left = std::max<int64_t>(quota_ - model_.used_bytes(), 0);
  return std::min(bytes, owned + left);
}

void FaultFileSystem::CountWrite(FileKind kind, int64_t bytes) {
  Counts& counts = counts_[static_cast<size_t>(kind)];
  ++counts.writes;
  counts.bytes += bytes;
}

bool FaultFileSystem::CountSync(FileKind kind) {
  ++counts_[static_cast<size_t>(kind)].syncs;
  return ignored_.count(kind) == 0;
}

std::optional<std::string> FaultFileSystem::Inside(const std::string& path) const {
  if (path.compare(0, root_.size(), root_) != 0) return std::nullopt;
  std::string inside;
  for (size_t i = root_.size(); i < path.size(); ++i) {
    // `{root}x` is not inside the root.
    if (i == root_.size() && path[i] != '/') return std::nullopt;
    if (path[i] == '/' && (inside.empty() || inside.back() == '/')) continue;
    inside.push_back(path[i]);
  }
  if (!inside.empty() && inside.back() == '/') inside.pop_back();
  return inside;
}

IOStatus FaultFileSystem::NewSequentialFile(
    const std::string& path, const FileOptions& options,
    std::unique_ptr<rocksdb::FSSequentialFile>* result, IODebugContext* dbg) {
  const auto inside = Inside(path);
  if (!inside) return target()->NewSequentialFile(path, options, result, dbg);
  IOStatus s = Begin(kRead, KindOf(*inside), *inside);
  if (s.ok()) s = target()->NewSequentialFile(path, options, result, dbg);
  if (s.ok())
    *result = std::make_unique<FaultSequentialFile>(std::move(*result), this, *inside);
  return s;
}

IOStatus FaultFileSystem::NewRandomAccessFile(
    const std::string& path, const FileOptions& options,
    std::unique_ptr<rocksdb::FSRandomAccessFile>* result, IODebugContext* dbg) {
  const auto inside = Inside(path);
  if (!inside) return target()->NewRandomAccessFile(path, options, result, dbg);
  IOStatus s = Begin(kRead, KindOf(*inside), *inside);
  if (s.ok()) s = target()->NewRandomAccessFile(path, options, result, dbg);
  if (s.ok()) {
    *result = std::make_unique<FaultRandomAccessFile>(std::move(*result), this, *inside);
  }
  return s;
}

IOStatus FaultFileSystem::NewWritableFile(
    const std::string& path, const FileOptions& options,
    std::unique_ptr<rocksdb::FSWritableFile>* result, IODebugContext* dbg) {
  const auto inside = Inside(path);
  if (!inside) return target()->NewWritableFile(path, options, result, dbg);
  IOStatus s = Begin(kOpen, KindOf(*inside), *inside);
  if (!s.ok()) return s;
  MutexLock lock(mutex_);
  // A recreated file is a new file: the old one may still be durable.
  target()->DeleteFile(path, {}, dbg).PermitUncheckedError();
  s = target()->NewWritableFile(path, options, result, dbg);
  if (!s.ok()) return s;
  *result = std::make_unique<FaultWritableFile>(std::move(*result), this,
                                                model_.Create(*inside), *inside);
  return s;
}

IOStatus FaultFileSystem::ReopenWritableFile(
    const std::string& path, const FileOptions& options,
    std::unique_ptr<rocksdb::FSWritableFile>* result, IODebugContext* dbg) {
  const auto inside = Inside(path);
  if (!inside) return target()->ReopenWritableFile(path, options, result, dbg);
  IOStatus s = Begin(kOpen, KindOf(*inside), *inside);
  if (!s.ok()) return s;
  MutexLock lock(mutex_);
  s = target()->ReopenWritableFile(path, options, result, dbg);
  if (!s.ok()) return s;
  std::shared_ptr<ModelFile> file = model_.Find(*inside);
  if (file == nullptr) file = model_.Create(*inside);
  *result = std::make_unique<FaultWritableFile>(std::move(*result), this, std::move(file),
                                                *inside);
  return s;
}

IOStatus FaultFileSystem::NewRandomRWFile(
    const std::string& path, const FileOptions& options,
    std::unique_ptr<rocksdb::FSRandomRWFile>* result, IODebugContext* dbg) {
  const auto inside = Inside(path);
  if (!inside) return target()->NewRandomRWFile(path, options, result, dbg);
  IOStatus s = Begin(kOpen, KindOf(*inside), *inside);
  if (!s.ok()) return s;
  MutexLock lock(mutex_);
  s = target()->NewRandomRWFile(path, options, result, dbg);
  if (!s.ok()) return s;
  *result = std::make_unique<FaultRandomRWFile>(std::move(*result), this,
                                                model_.Find(*inside), *inside);
  return s;
}

IOStatus FaultFileSystem::NewDirectory(const std::string& path, const IOOptions& options,
                                       std::unique_ptr<rocksdb::FSDirectory>* result,
                                       IODebugContext* dbg) {
  const auto inside = Inside(path);
  if (!inside) return target()->NewDirectory(path, options, result, dbg);
  IOStatus s = Begin(kOpen, FileKind::kDirectory, *inside);
  if (s.ok()) s = target()->NewDirectory(path, options, result, dbg);
  if (s.ok())
    *result = std::make_unique<FaultDirectory>(std::move(*result), this, *inside);
  return s;
}

IOStatus FaultFileSystem::DeleteFile(const std::string& path, const IOOptions& options,
                                     IODebugContext* dbg) {
  const auto inside = Inside(path);
  if (!inside) return target()->DeleteFile(path, options, dbg);
  IOStatus s = Begin(kDelete, KindOf(*inside), *inside);
  if (!s.ok()) return s;
  MutexLock lock(mutex_);
  s = target()->DeleteFile(path, options, dbg);
  if (s.ok()) model_.Remove(*inside);
  return s;
}

IOStatus FaultFileSystem::Truncate(const std::string& path, size_t size,
                                   const IOOptions& options, IODebugContext* dbg) {
  const auto inside = Inside(path);
  if (!inside) return target()->Truncate(path, size, options, dbg);
  IOStatus s = Begin(kTruncate, KindOf(*inside), *inside);
  if (!s.ok()) return s;
  MutexLock lock(mutex_);
  std::shared_ptr<ModelFile> file = model_.Find(*inside);
  if (file != nullptr && static_cast<int64_t>(size) < file->durable_bytes) {
    model_.BeforeOverwrite(*file);
  }
  s = target()->Truncate(path, size, options, dbg);
  if (s.ok() && file != nullptr) file->live_bytes = static_cast<int64_t>(size);
  return s;
}

IOStatus FaultFileSystem::CreateDir(const std::string& path, const IOOptions& options,
                                    IODebugContext* dbg) {
  const auto inside = Inside(path);
  if (!inside) return target()->CreateDir(path, options, dbg);
  IOStatus s = Begin(kMakeFolder, FileKind::kDirectory, *inside);
  if (!s.ok()) return s;
  MutexLock lock(mutex_);
  s = target()->CreateDir(path, options, dbg);
  if (s.ok()) model_.MakeFolder(*inside);
  return s;
}

IOStatus FaultFileSystem::CreateDirIfMissing(const std::string& path,
                                             const IOOptions& options,
                                             IODebugContext* dbg) {
  if (target()->FileExists(path, options, dbg).ok()) return IOStatus::OK();
  return CreateDir(path, options, dbg);
}

IOStatus FaultFileSystem::DeleteDir(const std::string& path, const IOOptions& options,
                                    IODebugContext* dbg) {
  const auto inside = Inside(path);
  if (!inside) return target()->DeleteDir(path, options, dbg);
  IOStatus s = Begin(kDelete, FileKind::kDirectory, *inside);
  if (!s.ok()) return s;
  MutexLock lock(mutex_);
  s = target()->DeleteDir(path, options, dbg);
  if (s.ok()) model_.RemoveFolder(*inside);
  return s;
}

IOStatus FaultFileSystem::RenameFile(const std::string& from, const std::string& to,
                                     const IOOptions& options, IODebugContext* dbg) {
  const auto inside_from = Inside(from);
  const auto inside_to = Inside(to);
  if (!inside_from || !inside_to) return target()->RenameFile(from, to, options, dbg);
  IOStatus s = Begin(kRename, KindOf(*inside_to), *inside_to);
  if (!s.ok()) return s;
  MutexLock lock(mutex_);
  s = target()->RenameFile(from, to, options, dbg);
  if (s.ok()) model_.Rename(*inside_from, *inside_to);
  return s;
}

IOStatus FaultFileSystem::LinkFile(const std::string& from, const std::string& to,
                                   const IOOptions& options, IODebugContext* dbg) {
  const auto inside_from = Inside(from);
  const auto inside_to = Inside(to);
  if (!inside_from || !inside_to) return target()->LinkFile(from, to, options, dbg);
  IOStatus s = Begin(kLink, KindOf(*inside_to), *inside_to);
  if (!s.ok()) return s;
  MutexLock lock(mutex_);
  s = target()->LinkFile(from, to, options, dbg);
  if (s.ok()) model_.Link(*inside_from, *inside_to);
  return s;
}

IOStatus FaultFileSystem::LockFile(const std::string& path, const IOOptions& options,
                                   rocksdb::FileLock** lock_result, IODebugContext* dbg) {
  IOStatus s = target()->LockFile(path, options, lock_result, dbg);
  const auto inside = Inside(path);
  if (!s.ok() || !inside) return s;
  MutexLock lock(mutex_);
  if (model_.Find(*inside) == nullptr) model_.Create(*inside);
  return s;
}

IOStatus FaultFileSystem::GetFreeSpace(const std::string& path, const IOOptions& options,
                                       uint64_t* bytes, IODebugContext* dbg) {
  {
    MutexLock lock(mutex_);
    if (quota_ >= 0) {
      *bytes = static_cast<uint64_t>(std::max<int64_t>(quota_ - model_.used_bytes(), 0));
      return IOStatus::OK();
    }
  }
  return target()->GetFreeSpace(path, options, bytes, dbg);
}

}  // namespace modelstore::testing
