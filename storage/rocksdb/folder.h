// The folder of a store: its paths, its lock, its free space, its ballast.
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

// Thread-safe. Shared by everything that works in the folder; the lock is given
// back when the last of them is gone.
class Folder : public std::enable_shared_from_this<Folder> {
 public:
  // Makes what does not exist. FAILED_PRECONDITION if the store is open already.
  static absl::StatusOr<std::shared_ptr<Folder>> Open(const RocksOptions& options);
  ~Folder();
  Folder(const Folder&) = delete;
  Folder& operator=(const Folder&) = delete;

  const std::shared_ptr<rocksdb::FileSystem>& fs() const { return fs_; }
  const std::string& path() const { return path_; }
  std::string catalog() const { return path_ + "/catalog"; }
  // A catalog that takes the other's place once it is whole.
  std::string fresh_catalog() const { return path_ + "/catalog.new"; }
  std::string packs() const { return path_ + "/packs"; }
  // Packs that are being written.
  std::string incoming() const { return path_ + "/incoming"; }
  // Metadata of packs/ that was found damaged, while it is rebuilt.
  std::string damaged() const { return path_ + "/packs.damaged"; }
  // Pack files that could not be taken in again.
  std::string quarantine() const { return path_ + "/quarantine"; }
  std::string high_water() const { return path_ + "/HIGH_WATER"; }

  // What was given up when a loss was accepted.
  Quarantine& loss() { return loss_; }

  absl::StatusOr<int64_t> FreeBytes() const;

  // RESOURCE_EXHAUSTED if fewer than `bytes` are free. Asked before a database
  // is touched, whose journals do not get over a full disk.
  absl::Status CheckRoom(int64_t bytes) const;
  // The same for a reopen, which gives up the ballast first.
  void MakeRoom(int64_t bytes);

  void ReleaseBallast();
  // If there is room for it and some more.
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
  // Ends or undoes the replacement of a catalog that was cut short.
  absl::Status SettleCatalog();
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

// Makes a folder and those above it, each durably.
rocksdb::IOStatus MakeFolder(rocksdb::FileSystem* fs, const std::string& path);
rocksdb::IOStatus SyncFolder(rocksdb::FileSystem* fs, const std::string& path);

}  // namespace modelstore::storage::rocks
