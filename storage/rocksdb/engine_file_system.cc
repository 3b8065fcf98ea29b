#include "storage/rocksdb/engine_file_system.h"

#include <algorithm>
#include <cerrno>
#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "storage/rocksdb/engine_files.h"
#include "storage/rocksdb/quarantine.h"
#include "storage/rocksdb/status.h"
#include "storage/rocksdb/table_format.h"

namespace modelstore::storage::rocks {
namespace {

bool IsManifest(const std::string& name) { return absl::StartsWith(name, "MANIFEST-"); }

std::string BaseName(const std::string& path) { return path.substr(path.rfind('/') + 1); }

bool IsJournal(const std::string& path) {
  const std::string name = BaseName(path);
  return IsManifest(name) || absl::EndsWith(name, ".log");
}

}  // namespace

EngineFileSystem::EngineFileSystem(std::shared_ptr<rocksdb::FileSystem> base,
                                   std::string packs_folder, std::string drafts_folder)
    : FileSystemWrapper(std::move(base)),
      packs_prefix_(packs_folder.empty() ? "" : packs_folder + "/"),
      drafts_folder_(std::move(drafts_folder)) {}

std::string EngineFileSystem::GuardedName(const std::string& path) const {
  if (packs_prefix_.empty() || !absl::EndsWith(path, ".sst")) return "";
  // RocksDB joins paths with one slash, or two if the folder ends in one.
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

void EngineFileSystem::ForgetJournals() {
  MutexLock lock(mutex_);
  journals_.clear();
}

void EngineFileSystem::SetOnManifestSync(std::function<void()> on_sync) {
  MutexLock lock(mutex_);
  on_manifest_sync_ = std::move(on_sync);
}

// Called by JournalFile after each successful sync. Keeps the order of creation, as
// HighWater drops the oldest journals if there are too many.
void EngineFileSystem::NoteSync(const SyncedJournal& journal) {
  std::function<void()> on_sync;
  {
    MutexLock lock(mutex_);
    const auto it =
        std::find_if(journals_.begin(), journals_.end(),
                     [&](const auto& known) { return known.name == journal.name; });
    if (it == journals_.end()) {
      journals_.push_back(journal);
    } else {
      *it = journal;
    }
    if (IsManifest(journal.name)) on_sync = on_manifest_sync_;
  }
  // Without the lock: the callback reads synced_journals().
  if (on_sync) on_sync();
}

std::vector<std::string> EngineFileSystem::TakeArrivals() {
  MutexLock lock(mutex_);
  return std::exchange(arrivals_, {});
}

void EngineFileSystem::DeleteArrivals() {
  for (const std::string& name : TakeArrivals()) {
    DeleteFile(packs_prefix_ + name, {}, nullptr).PermitUncheckedError();
  }
}

// A new pack stays deletable until Keep(), so that RocksDB can clean up a failed
// ingestion.
void EngineFileSystem::OnFileCreated(const std::string& path) {
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

rocksdb::IOStatus EngineFileSystem::TakeDescriptorFailure() {
  MutexLock lock(mutex_);
  return std::exchange(descriptor_failure_, rocksdb::IOStatus::OK());
}

void EngineFileSystem::NoteOpen(const std::string& path,
                                const rocksdb::IOStatus& status) {
  MutexLock lock(mutex_);
  last_opened_ = path;
  unread_.erase(path);
  if (FailedWith(status, EMFILE) || FailedWith(status, ENFILE))
    descriptor_failure_ = status;
}

void EngineFileSystem::NoteRead(const std::string& path,
                                const rocksdb::IOStatus& status) {
  MutexLock lock(mutex_);
  unread_[path] = status;
}

rocksdb::IOStatus EngineFileSystem::NewSequentialFile(
    const std::string& path, const rocksdb::FileOptions& options,
    std::unique_ptr<rocksdb::FSSequentialFile>* result, rocksdb::IODebugContext* dbg) {
  rocksdb::IOStatus s = target()->NewSequentialFile(path, options, result, dbg);
  NoteOpen(path, s);
  return s;
}

rocksdb::IOStatus EngineFileSystem::NewWritableFile(
    const std::string& path, const rocksdb::FileOptions& options,
    std::unique_ptr<rocksdb::FSWritableFile>* result, rocksdb::IODebugContext* dbg) {
  rocksdb::IOStatus s = target()->NewWritableFile(path, options, result, dbg);
  if (s.ok() && IsJournal(path)) {
    *result = NewJournalFile(std::move(*result), BaseName(path), this, &journal_appends_);
  }
  return s;
}

rocksdb::IOStatus EngineFileSystem::ReuseWritableFile(
    const std::string& path, const std::string& old_path,
    const rocksdb::FileOptions& options, std::unique_ptr<rocksdb::FSWritableFile>* result,
    rocksdb::IODebugContext* dbg) {
  rocksdb::IOStatus s = target()->ReuseWritableFile(path, old_path, options, result, dbg);
  if (s.ok() && IsJournal(path)) {
    *result = NewJournalFile(std::move(*result), BaseName(path), this, &journal_appends_);
  }
  return s;
}

rocksdb::IOStatus EngineFileSystem::NewRandomAccessFile(
    const std::string& path, const rocksdb::FileOptions& options,
    std::unique_ptr<rocksdb::FSRandomAccessFile>* result, rocksdb::IODebugContext* dbg) {
  rocksdb::IOStatus s = target()->NewRandomAccessFile(path, options, result, dbg);
  NoteOpen(path, s);
  // Checked before RocksDB parses it.
  TableEnd end;
  if (s.ok() && absl::EndsWith(path, ".sst")) {
    uint64_t size = 0;
    s = target()->GetFileSize(path, options.io_options, &size, dbg);
    if (s.ok()) s = ReadTableEnd(**result, size, path, &end);
    if (!s.ok()) result->reset();
  }
  if (!s.ok()) return s;
  // Packs are prefetched and checked; failed reads are recorded for the other tables,
  // which include packs in incoming/ before they are linked.
  if (!GuardedName(path).empty()) {
    *result = NewReadAheadFile(std::move(*result), end.index);
  } else if (absl::EndsWith(path, ".sst")) {
    *result = NewNotedFile(std::move(*result), this, path);
  }
  return s;
}

rocksdb::IOStatus EngineFileSystem::LinkFile(const std::string& from,
                                             const std::string& to,
                                             const rocksdb::IOOptions& options,
                                             rocksdb::IODebugContext* dbg) {
  {
    MutexLock lock(mutex_);
    // RocksDB could not read the table completely, but may not have noticed.
    const auto unread = unread_.find(from);
    if (unread != unread_.end()) return unread->second;
  }
  rocksdb::IOStatus s = target()->LinkFile(from, to, options, dbg);
  // Only packs are copied: for other files the caller chooses what to do.
  if (s.IsNotSupported() && !GuardedName(to).empty()) {
    s = CopyEntireFile(target(), from,
                       absl::StrCat(drafts_folder_, "/", BaseName(to), ".draft"), to);
  }
  if (s.ok()) OnFileCreated(to);
  return s;
}

rocksdb::IOStatus EngineFileSystem::DeleteFile(const std::string& path,
                                               const rocksdb::IOOptions& options,
                                               rocksdb::IODebugContext* dbg) {
  const std::string name = GuardedName(path);
  {
    MutexLock lock(mutex_);
    // A file that is not released is kept, but OK is returned: RocksDB does not open if a
    // deletion fails. The next recovery finds the file.
    if (!name.empty() && deletable_.erase(name) == 0) return rocksdb::IOStatus::OK();
    unread_.erase(path);
    std::erase_if(journals_,
                  [&](const auto& journal) { return journal.name == BaseName(path); });
  }
  return target()->DeleteFile(path, options, dbg);
}

}  // namespace modelstore::storage::rocks
