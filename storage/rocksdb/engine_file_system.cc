#include "storage/rocksdb/engine_file_system.h"

#include <xxhash.h>

#include <algorithm>
#include <utility>

#include "absl/strings/match.h"
#include "storage/rocksdb/pack_format.h"
#include "storage/rocksdb/table_format.h"

namespace modelstore::storage::rocks {
namespace {

thread_local bool sound_blocks_only = false;

// A chunk read of at least this size is likely to be followed by its neighbour.
constexpr size_t kLargeRead = size_t{256} << 10;

bool IsManifest(const std::string& name) { return absl::StartsWith(name, "MANIFEST-"); }

std::string BaseName(const std::string& path) { return path.substr(path.rfind('/') + 1); }

bool IsJournal(const std::string& path) {
  const std::string name = BaseName(path);
  return IsManifest(name) || absl::EndsWith(name, ".log");
}

class JournalFile final : public rocksdb::FSWritableFileOwnerWrapper {
 public:
  JournalFile(std::unique_ptr<rocksdb::FSWritableFile> file, const std::string& path,
              EngineFileSystem* fs, std::atomic<int64_t>* appends)
      : FSWritableFileOwnerWrapper(std::move(file)), fs_(fs), appends_(appends) {
    written_.name = BaseName(path);
    XXH3_64bits_reset(hash_.get());
  }

  rocksdb::IOStatus Append(const rocksdb::Slice& data, const rocksdb::IOOptions& options,
                           rocksdb::IODebugContext* dbg) override {
    appends_->fetch_add(1);
    XXH3_64bits_update(hash_.get(), data.data(), data.size());
    written_.bytes += static_cast<int64_t>(data.size());
    return FSWritableFileOwnerWrapper::Append(data, options, dbg);
  }
  rocksdb::IOStatus Append(const rocksdb::Slice& data, const rocksdb::IOOptions& options,
                           const rocksdb::DataVerificationInfo&,
                           rocksdb::IODebugContext* dbg) override {
    return Append(data, options, dbg);
  }
  rocksdb::IOStatus Sync(const rocksdb::IOOptions& options,
                         rocksdb::IODebugContext* dbg) override {
    return Note(FSWritableFileOwnerWrapper::Sync(options, dbg));
  }
  rocksdb::IOStatus Fsync(const rocksdb::IOOptions& options,
                          rocksdb::IODebugContext* dbg) override {
    return Note(FSWritableFileOwnerWrapper::Fsync(options, dbg));
  }
  // RocksDB syncs a file while it appends to it only where this is true; then the
  // bytes counted here could be more than those synced.
  bool IsSyncThreadSafe() const override { return false; }

 private:
  struct FreeState {
    void operator()(XXH3_state_t* state) const { XXH3_freeState(state); }
  };

  rocksdb::IOStatus Note(rocksdb::IOStatus s) {
    if (!s.ok()) return s;
    written_.hash = XXH3_64bits_digest(hash_.get());
    fs_->NoteSync(written_);
    return s;
  }

  EngineFileSystem* const fs_;
  std::atomic<int64_t>* const appends_;
  SyncedJournal written_;
  const std::unique_ptr<XXH3_state_t, FreeState> hash_{XXH3_createState()};
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
    rocksdb::IOStatus s =
        FSRandomAccessFileOwnerWrapper::Read(offset, n, options, result, scratch, dbg);
    if (s.ok() && sound_blocks_only &&
        !IsSoundBlock(absl::string_view(result->data(), result->size()))) {
      return rocksdb::IOStatus::Corruption("a block of a pack is damaged");
    }
    return s;
  }

 private:
  // Where the last large read ended.
  mutable std::atomic<uint64_t> next_{0};
};

}  // namespace

SoundBlocksOnly::SoundBlocksOnly() { sound_blocks_only = true; }
SoundBlocksOnly::~SoundBlocksOnly() { sound_blocks_only = false; }

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

std::vector<SyncedJournal> EngineFileSystem::synced_journals() const {
  MutexLock lock(mutex_);
  return journals_;
}

void EngineFileSystem::SetOnManifestSync(std::function<void()> on_sync) {
  MutexLock lock(mutex_);
  on_manifest_sync_ = std::move(on_sync);
}

void EngineFileSystem::NoteSync(const SyncedJournal& journal) {
  std::function<void()> on_sync;
  {
    MutexLock lock(mutex_);
    const auto it = std::find_if(journals_.begin(), journals_.end(), [&](const auto& known) {
      return known.name == journal.name;
    });
    if (it == journals_.end()) {
      journals_.push_back(journal);
    } else {
      *it = journal;
    }
    if (IsManifest(journal.name)) on_sync = on_manifest_sync_;
  }
  if (on_sync) on_sync();
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
    *result = std::make_unique<JournalFile>(std::move(*result), path, this,
                                            &journal_appends_);
  }
  return s;
}

rocksdb::IOStatus EngineFileSystem::ReuseWritableFile(
    const std::string& path, const std::string& old_path,
    const rocksdb::FileOptions& options, std::unique_ptr<rocksdb::FSWritableFile>* result,
    rocksdb::IODebugContext* dbg) {
  rocksdb::IOStatus s = target()->ReuseWritableFile(path, old_path, options, result, dbg);
  if (s.ok() && IsJournal(path)) {
    *result = std::make_unique<JournalFile>(std::move(*result), path, this,
                                            &journal_appends_);
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
  if (s.ok() && absl::EndsWith(path, ".sst")) {
    uint64_t size = 0;
    s = target()->GetFileSize(path, options.io_options, &size, dbg);
    if (s.ok()) s = CheckTableEnd(**result, size, path);
    if (!s.ok()) result->reset();
  }
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
  {
    MutexLock lock(mutex_);
    // RocksDB would not open over a refusal. It is told that the file is gone; the
    // next recovery finds it.
    if (!name.empty() && deletable_.erase(name) == 0) return rocksdb::IOStatus::OK();
    std::erase_if(journals_,
                  [&](const auto& journal) { return journal.name == BaseName(path); });
  }
  return target()->DeleteFile(path, options, dbg);
}

}  // namespace modelstore::storage::rocks
