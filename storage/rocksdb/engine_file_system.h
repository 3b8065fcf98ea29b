// The file system under both databases: the real one (or one that tests inject) with
// these additions.
//   - Counts appends to a database's journals (WAL and MANIFEST), so that after a failed
//     call the engine knows whether anything can have been applied. Tracks the synced
//     part of each journal for HIGH_WATER.
//   - Deletes a pack only if the engine has released it. RocksDB deletes every file that
//     its MANIFEST does not name, and a truncated MANIFEST names few.
//   - Prefetches the next block for a sequential reader of a pack.
//   - Refuses to open a table that would make RocksDB abort (CheckTableEnd()).
//   - Refuses to link a table of which a read failed since it was opened. RocksDB 7.8
//     mistakes a failed read of the first chunk for an empty table, and ingests it.
//   - Remembers an open that failed for lack of descriptors. RocksDB turns it into errors
//     that look like damage.
#pragma once

#include <atomic>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <unordered_map>
#include <unordered_set>
#include <vector>

#include "proto/contract/mutex.h"
#include "rocksdb/file_system.h"
#include "storage/rocksdb/high_water.h"

namespace modelstore::storage::rocks {

// While it lives, blocks that this thread reads from packs are checked by IsValidBlock()
// instead of RocksDB's checksum. A malformed block is a corruption error.
class ScopedBlockValidation {
 public:
  ScopedBlockValidation();
  ~ScopedBlockValidation();
  ScopedBlockValidation(const ScopedBlockValidation&) = delete;
  ScopedBlockValidation& operator=(const ScopedBlockValidation&) = delete;
};

// Thread-safe. One per database.
class EngineFileSystem final : public rocksdb::FileSystemWrapper {
 public:
  // Guards the .sst files in `packs_folder`; no files if it is empty. If hard links are
  // not supported, a file is copied to `drafts_folder` and renamed into `packs_folder`.
  EngineFileSystem(std::shared_ptr<rocksdb::FileSystem> base, std::string packs_folder,
                   std::string drafts_folder);

  const char* Name() const override { return "modelstore.EngineFileSystem"; }

  // Number of appends to a WAL or MANIFEST, including failed ones.
  int64_t journal_appends() const { return journal_appends_.load(); }

  // The synced part of each live journal, in order of creation.
  std::vector<SyncedJournal> synced_journals() const EXCLUDES(mutex_);
  // Called when another database replaces the one that they belong to.
  void ForgetJournals() EXCLUDES(mutex_);
  // `on_sync` is called after each sync of a MANIFEST, on the thread that synced it and
  // with no lock of this class held.
  void SetOnManifestSync(std::function<void()> on_sync) EXCLUDES(mutex_);
  void NoteSync(const SyncedJournal& journal) EXCLUDES(mutex_);

  // The file last opened for reading. After a failed open of a database it is most
  // likely the damaged one.
  std::string last_opened() const EXCLUDES(mutex_);

  // The last open since the previous call that failed for lack of descriptors, or OK.
  rocksdb::IOStatus TakeDescriptorFailure() EXCLUDES(mutex_);
  // Records a failed read of a table outside the packs folder.
  void NoteRead(const std::string& path, const rocksdb::IOStatus& status)
      EXCLUDES(mutex_);

  // Allows the file of this name in the packs folder to be deleted, once.
  void Release(const std::string& name) EXCLUDES(mutex_);
  // Revokes Release().
  void Keep(const std::string& name) EXCLUDES(mutex_);
  // Files linked into the packs folder since the last call. They stay deletable until
  // Keep(): their pack is not acknowledged yet.
  std::vector<std::string> TakeArrivals() EXCLUDES(mutex_);
  // Deletes the arrivals of a failed ingestion. RocksDB does so itself, except when the
  // sync after the link failed.
  void DeleteArrivals() EXCLUDES(mutex_);

  rocksdb::IOStatus NewSequentialFile(const std::string& path,
                                      const rocksdb::FileOptions& options,
                                      std::unique_ptr<rocksdb::FSSequentialFile>* result,
                                      rocksdb::IODebugContext* dbg) override;
  rocksdb::IOStatus NewWritableFile(const std::string& path,
                                    const rocksdb::FileOptions& options,
                                    std::unique_ptr<rocksdb::FSWritableFile>* result,
                                    rocksdb::IODebugContext* dbg) override;
  rocksdb::IOStatus ReuseWritableFile(const std::string& path,
                                      const std::string& old_path,
                                      const rocksdb::FileOptions& options,
                                      std::unique_ptr<rocksdb::FSWritableFile>* result,
                                      rocksdb::IODebugContext* dbg) override;
  rocksdb::IOStatus NewRandomAccessFile(
      const std::string& path, const rocksdb::FileOptions& options,
      std::unique_ptr<rocksdb::FSRandomAccessFile>* result,
      rocksdb::IODebugContext* dbg) override;
  rocksdb::IOStatus LinkFile(const std::string& from, const std::string& to,
                             const rocksdb::IOOptions& options,
                             rocksdb::IODebugContext* dbg) override;
  rocksdb::IOStatus DeleteFile(const std::string& path, const rocksdb::IOOptions& options,
                               rocksdb::IODebugContext* dbg) override;

 private:
  void OnFileCreated(const std::string& path) EXCLUDES(mutex_);
  void NoteOpen(const std::string& path, const rocksdb::IOStatus& status)
      EXCLUDES(mutex_);
  // The file name if `path` is an .sst in the guarded folder, else empty.
  std::string GuardedName(const std::string& path) const;

  const std::string packs_prefix_;
  const std::string drafts_folder_;
  std::atomic<int64_t> journal_appends_{0};
  mutable Mutex mutex_;
  std::string last_opened_ GUARDED_BY(mutex_);
  std::vector<SyncedJournal> journals_ GUARDED_BY(mutex_);
  std::function<void()> on_manifest_sync_ GUARDED_BY(mutex_);
  std::vector<std::string> arrivals_ GUARDED_BY(mutex_);
  std::unordered_set<std::string> deletable_ GUARDED_BY(mutex_);
  rocksdb::IOStatus descriptor_failure_ GUARDED_BY(mutex_);
  // The last failed read of a table by path. Cleared when the table is opened again.
  std::unordered_map<std::string, rocksdb::IOStatus> unread_ GUARDED_BY(mutex_);
};

}  // namespace modelstore::storage::rocks
