// The file system under both databases: the real one (or one that tests inject)
// with these additions.
//   - It follows a database's journals (WAL and MANIFEST): how many appends there
//     were, so that after a failed call the engine knows whether anything can have
//     been applied; and what of each is synced, for HIGH_WATER.
//   - It deletes a pack only if the engine named it. RocksDB itself deletes every
//     file that its MANIFEST does not know, and a MANIFEST cut short knows few.
//   - It asks for what a sequential reader of a pack will want next.
//   - It opens no table that RocksDB could not be given (CheckTableEnd()).
//   - It links no table of which a read failed since it was opened. RocksDB 7.8 takes a
//     failed read of the first chunk for an empty table, and takes that in.
//   - It remembers an open that failed for want of descriptors: RocksDB makes other
//     errors of it, which read as damage.
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

// While it lives, the blocks that this thread reads from packs are held to
// IsSoundBlock(), in place of RocksDB's checksum; others fail as corruption.
class SoundBlocksOnly {
 public:
  SoundBlocksOnly();
  ~SoundBlocksOnly();
  SoundBlocksOnly(const SoundBlocksOnly&) = delete;
  SoundBlocksOnly& operator=(const SoundBlocksOnly&) = delete;
};

// Thread-safe. One per database.
class EngineFileSystem final : public rocksdb::FileSystemWrapper {
 public:
  // Guards the .sst files of `packs_folder`; of none if it is empty. Where links are not
  // possible a file is copied to `drafts_folder` and renamed into `packs_folder`.
  EngineFileSystem(std::shared_ptr<rocksdb::FileSystem> base, std::string packs_folder,
                   std::string drafts_folder);

  const char* Name() const override { return "modelstore.EngineFileSystem"; }

  // Calls that appended to a WAL or MANIFEST, failed ones included.
  int64_t journal_appends() const { return journal_appends_.load(); }

  // The live journals, in the order of their making, as far as they are synced.
  std::vector<SyncedJournal> synced_journals() const EXCLUDES(mutex_);
  // Another database takes the place of the one that they are of.
  void ForgetJournals() EXCLUDES(mutex_);
  // Called when a MANIFEST was synced, on the thread that did.
  void SetOnManifestSync(std::function<void()> on_sync) EXCLUDES(mutex_);
  void NoteSync(const SyncedJournal& journal) EXCLUDES(mutex_);

  // The file that was last opened for reading: after a failed open of a database,
  // the one to blame.
  std::string last_opened() const EXCLUDES(mutex_);

  // OK, or how an open failed for want of descriptors since the last call.
  rocksdb::IOStatus TakeDescriptorFailure() EXCLUDES(mutex_);
  // A read of a table outside the packs folder.
  void NoteRead(const std::string& path, const rocksdb::IOStatus& status)
      EXCLUDES(mutex_);

  // Lets the file of this name in the packs folder be deleted, once.
  void Release(const std::string& name) EXCLUDES(mutex_);
  // Takes that back.
  void Keep(const std::string& name) EXCLUDES(mutex_);
  // Files that came into the packs folder since the last call. They may be deleted
  // until they are kept: their pack was not acknowledged yet.
  std::vector<std::string> TakeArrivals() EXCLUDES(mutex_);
  // Deletes the arrivals of a failed ingestion. RocksDB does so itself, unless what
  // failed was the sync of a link.
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
  void Arrive(const std::string& path) EXCLUDES(mutex_);
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
  // The newest failure of a read of a table, by path, until it is opened again.
  std::unordered_map<std::string, rocksdb::IOStatus> unread_ GUARDED_BY(mutex_);
};

}  // namespace modelstore::storage::rocks
