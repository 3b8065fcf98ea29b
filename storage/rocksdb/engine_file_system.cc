#include "storage/rocksdb/engine_file_system.h"

#include <utility>

#include "absl/strings/match.h"

namespace modelstore::storage::rocks {
namespace {

// A chunk read of at least this size is likely to be followed by its neighbour.
constexpr size_t kLargeRead = size_t{256} << 10;

bool IsJournal(const std::string& path) {
  const std::string name = path.substr(path.rfind('/') + 1);
  return absl::StartsWith(name, "MANIFEST-") || absl::EndsWith(name, ".log");
}

class JournalFile final : public rocksdb::FSWritableFileOwnerWrapper {
 public:
  JournalFile(std::unique_ptr<rocksdb::FSWritableFile> file, std::atomic<int64_t>* appends)
      : FSWritableFileOwnerWrapper(std::move(file)), appends_(appends) {}

  rocksdb::IOStatus Append(const rocksdb::Slice& data, const rocksdb::IOOptions& options,
                           rocksdb::IODebugContext* dbg) override {
    appends_->fetch_add(1);
    return FSWritableFileOwnerWrapper::Append(data, options, dbg);
  }
  rocksdb::IOStatus Append(const rocksdb::Slice& data, const rocksdb::IOOptions& options,
                           const rocksdb::DataVerificationInfo& info,
                           rocksdb::IODebugContext* dbg) override {
    appends_->fetch_add(1);
    return FSWritableFileOwnerWrapper::Append(data, options, info, dbg);
  }

 private:
  std::atomic<int64_t>* const appends_;
};

// While one block is being copied the disk fetches the next.
class ReadAheadFile final : public rocksdb::FSRandomAccessFileOwnerWrapper {
 public:
  explicit ReadAheadFile(std::unique_ptr<rocksdb::FSRandomAccessFile> file)
      : FSRandomAccessFileOwnerWrapper(std::move(file)) {}

  rocksdb::IOStatus Read(uint64_t offset, size_t n, const rocksdb::IOOptions& options,
                         rocksdb::Slice* result, char* scratch,
                         rocksdb::IODebugContext* dbg) const override {
    if (n >= kLargeRead && next_.exchange(offset + n) == offset) {
      target()->Prefetch(offset + n, n, options, dbg).PermitUncheckedError();
    }
    return FSRandomAccessFileOwnerWrapper::Read(offset, n, options, result, scratch, dbg);
  }

 private:
  // Where the last large read ended.
  mutable std::atomic<uint64_t> next_{0};
};

}  // namespace

EngineFileSystem::EngineFileSystem(std::shared_ptr<rocksdb::FileSystem> base,
                                   std::string packs_folder)
    : FileSystemWrapper(std::move(base)),
      packs_prefix_(packs_folder.empty() ? "" : packs_folder + "/") {}

std::string EngineFileSystem::GuardedName(const std::string& path) const {
  if (packs_prefix_.empty() || !absl::EndsWith(path, ".sst")) return "";
  // RocksDB joins paths with one slash, or two where the folder ends in one.
  const size_t slash = path.rfind('/');
  size_t end = slash;
  while (end > 0 && path[end - 1] == '/') --end;
  if (path.substr(0, end) + "/" != packs_prefix_) return "";
  return path.substr(slash + 1);
}

void EngineFileSystem::Release(const std::string& name) {
  MutexLock lock(mutex_);
  deletable_.insert(name);
}

void EngineFileSystem::Keep(const std::string& name) {
  MutexLock lock(mutex_);
  deletable_.erase(name);
}

std::vector<std::string> EngineFileSystem::TakeArrivals() {
  MutexLock lock(mutex_);
  return std::exchange(arrivals_, {});
}

void EngineFileSystem::Arrive(const std::string& path) {
  std::string name = GuardedName(path);
  if (name.empty()) return;
  MutexLock lock(mutex_);
  deletable_.insert(name);
  arrivals_.push_back(std::move(name));
}

std::string EngineFileSystem::last_opened() const {
  MutexLock lock(mutex_);
  return last_opened_;
}

rocksdb::IOStatus EngineFileSystem::NewSequentialFile(
    const std::string& path, const rocksdb::FileOptions& options,
    std::unique_ptr<rocksdb::FSSequentialFile>* result, rocksdb::IODebugContext* dbg) {
  {
    MutexLock lock(mutex_);
    last_opened_ = path;
  }
  return target()->NewSequentialFile(path, options, result, dbg);
}

rocksdb::IOStatus EngineFileSystem::NewWritableFile(
    const std::string& path, const rocksdb::FileOptions& options,
    std::unique_ptr<rocksdb::FSWritableFile>* result, rocksdb::IODebugContext* dbg) {
  rocksdb::IOStatus s = target()->NewWritableFile(path, options, result, dbg);
  // An ingested file that could not be linked is copied.
  if (s.ok()) Arrive(path);
  if (s.ok() && IsJournal(path)) {
    *result = std::make_unique<JournalFile>(std::move(*result), &journal_appends_);
  }
  return s;
}

rocksdb::IOStatus EngineFileSystem::ReuseWritableFile(
    const std::string& path, const std::string& old_path,
    const rocksdb::FileOptions& options, std::unique_ptr<rocksdb::FSWritableFile>* result,
    rocksdb::IODebugContext* dbg) {
  rocksdb::IOStatus s = target()->ReuseWritableFile(path, old_path, options, result, dbg);
  if (s.ok() && IsJournal(path)) {
    *result = std::make_unique<JournalFile>(std::move(*result), &journal_appends_);
  }
  return s;
}

rocksdb::IOStatus EngineFileSystem::NewRandomAccessFile(
    const std::string& path, const rocksdb::FileOptions& options,
    std::unique_ptr<rocksdb::FSRandomAccessFile>* result, rocksdb::IODebugContext* dbg) {
  {
    MutexLock lock(mutex_);
    last_opened_ = path;
  }
  rocksdb::IOStatus s = target()->NewRandomAccessFile(path, options, result, dbg);
  if (s.ok() && !GuardedName(path).empty()) {
    *result = std::make_unique<ReadAheadFile>(std::move(*result));
  }
  return s;
}

rocksdb::IOStatus EngineFileSystem::LinkFile(const std::string& from, const std::string& to,
                                             const rocksdb::IOOptions& options,
                                             rocksdb::IODebugContext* dbg) {
  rocksdb::IOStatus s = target()->LinkFile(from, to, options, dbg);
  if (s.ok()) Arrive(to);
  return s;
}

rocksdb::IOStatus EngineFileSystem::DeleteFile(const std::string& path,
                                               const rocksdb::IOOptions& options,
                                               rocksdb::IODebugContext* dbg) {
  const std::string name = GuardedName(path);
  if (!name.empty()) {
    MutexLock lock(mutex_);
    if (deletable_.erase(name) == 0) {
      return rocksdb::IOStatus::IOError("pack file kept, nobody dropped it", path);
    }
  }
  return target()->DeleteFile(path, options, dbg);
}

}  // namespace modelstore::storage::rocks
