// Hides differences between file systems:
//   - LinkFile() returns NotSupported if hard links are not possible or not permitted;
//     callers then copy. RocksDB's own file system returns it for some causes only.
//   - Syncing a folder returns OK if folders cannot be synced, as on some network and
//   FUSE
//     file systems. SQLite does the same.
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
  // `report` is called once for each of the two cases, with the consequence.
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
  // Replaces an error that means "folders cannot be synced" by OK.
  rocksdb::IOStatus Synced(const std::string& path, rocksdb::IOStatus status);

  const std::function<void(const std::string&)> report_;
  std::atomic<bool> links_reported_{false};
  std::atomic<bool> syncs_reported_{false};
};

}  // namespace modelstore::storage::rocks
