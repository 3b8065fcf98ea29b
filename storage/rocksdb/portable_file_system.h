// Hides what differs between file systems:
//   - LinkFile() is NotSupported where hard links are not possible or not allowed, which
//     callers answer with a copy. RocksDB's own file system says so for some causes only.
//   - Syncing a folder succeeds where folders cannot be synced, as on some network and
//     FUSE file systems. SQLite does the same.
#pragma once

#include <atomic>
#include <functional>
#include <memory>
#include <string>

#include "rocksdb/file_system.h"

namespace modelstore::storage::rocks {

// Thread-safe.
class PortableFileSystem final : public rocksdb::FileSystemWrapper {
 public:
  // `report` is called once for each of the two, with what it means for the store.
  PortableFileSystem(std::shared_ptr<rocksdb::FileSystem> base,
                     std::function<void(const std::string&)> report);

  const char* Name() const override { return "modelstore.PortableFileSystem"; }

  rocksdb::IOStatus LinkFile(const std::string& from, const std::string& to,
                             const rocksdb::IOOptions& options,
                             rocksdb::IODebugContext* dbg) override;
  rocksdb::IOStatus NewDirectory(const std::string& path,
                                 const rocksdb::IOOptions& options,
                                 std::unique_ptr<rocksdb::FSDirectory>* result,
                                 rocksdb::IODebugContext* dbg) override;

 private:
  friend class PortableDirectory;
  // OK instead of an error that says that folders cannot be synced.
  rocksdb::IOStatus Synced(const std::string& path, rocksdb::IOStatus status);

  const std::function<void(const std::string&)> report_;
  std::atomic<bool> links_reported_{false};
  std::atomic<bool> syncs_reported_{false};
};

}  // namespace modelstore::storage::rocks
