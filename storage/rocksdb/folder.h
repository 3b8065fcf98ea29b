// The folder of a store: paths, lock, free space and ballast.
#pragma once

#include <cstdint>
#include <memory>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "proto/contract/mutex.h"
#include "rocksdb/file_system.h"
#include "storage/rocksdb/engine.h"
#include "storage/rocksdb/quarantine.h"

namespace modelstore::storage::rocks {

// Thread-safe. Shared by all users of the folder; the last one releases the lock.
class Folder : public std::enable_shared_from_this<Folder> {
 public:
  // Locks the folder and creates what is missing. FAILED_PRECONDITION if the store is
  // already open, in this process or another.
  static absl::StatusOr<std::shared_ptr<Folder>> Open(const RocksOptions& options);
  ~Folder();
  Folder(const Folder&) = delete;
  Folder& operator=(const Folder&) = delete;

  const std::shared_ptr<rocksdb::FileSystem>& fs() const { return fs_; }
  const std::string& path() const { return path_; }
  std::string catalog() const { return path_ + "/catalog"; }
  // A catalog that replaces catalog() once it is complete.
  std::string new_catalog() const { return path_ + "/catalog.new"; }
  std::string packs() const { return path_ + "/packs"; }
  // Packs being written, and drafts of copies.
  std::string incoming() const { return path_ + "/incoming"; }
  // Pack files, while the damaged metadata of packs/ is rebuilt.
  std::string damaged() const { return path_ + "/packs.damaged"; }
  // Pack files that could not be ingested; replaced catalogs.
  std::string quarantine() const { return path_ + "/quarantine"; }
  std::string high_water() const { return path_ + "/HIGH_WATER"; }

  // Keeps what an accepted loss replaced.
  Quarantine& loss() { return loss_; }

  absl::StatusOr<int64_t> FreeBytes() const;

  // RESOURCE_EXHAUSTED if fewer than `bytes` are free. Checked before each write to a
  // database: a journal write that fails closes it.
  absl::Status CheckSpace(int64_t bytes) const;
  // Deletes the ballast if fewer than `bytes` are free. For a reopen, which must succeed.
  void ReleaseBallastFor(int64_t bytes);

  void ReleaseBallast();
  // Does nothing unless enough space stays free beside it.
  void RestoreBallast();

  void Report(Listener::Severity severity, absl::string_view message) const;

 private:
  Folder(const RocksOptions& options, std::shared_ptr<rocksdb::FileSystem> fs)
      : path_(options.path),
        ballast_bytes_(options.ballast_bytes),
        fs_(std::move(fs)),
        listener_(options.listener),
        loss_(fs_, path_) {}
  absl::Status Make();
  // Completes or reverts a replacement of the catalog that a crash interrupted.
  absl::Status FinishCatalogReplacement();
  absl::Status WriteBallast() REQUIRES(ballast_mutex_);
  std::string ballast() const { return path_ + "/BALLAST"; }

  const std::string path_;
  const int64_t ballast_bytes_;
  const std::shared_ptr<rocksdb::FileSystem> fs_;
  Listener* const listener_;
  Quarantine loss_;
  rocksdb::FileLock* lock_ = nullptr;
  Mutex ballast_mutex_;
};

// Creates a folder and its parents, each durably.
rocksdb::IOStatus MakeFolder(rocksdb::FileSystem* fs, const std::string& path);
rocksdb::IOStatus SyncFolder(rocksdb::FileSystem* fs, const std::string& path);

}  // namespace modelstore::storage::rocks
