#include "storage/rocksdb/portable_file_system.h"

#include <algorithm>
#include <cerrno>
#include <utility>

#include "absl/strings/str_cat.h"
#include "storage/rocksdb/status.h"

namespace modelstore::storage::rocks {
namespace {

bool FailedWithAny(const rocksdb::Status& status, std::initializer_list<int> errors) {
  return std::any_of(errors.begin(), errors.end(),
                     [&](int error) { return FailedWith(status, error); });
}

}  // namespace

class PortableDirectory final : public rocksdb::FSDirectoryWrapper {
 public:
  PortableDirectory(std::unique_ptr<rocksdb::FSDirectory> folder, PortableFileSystem* fs,
                    std::string path)
      : FSDirectoryWrapper(std::move(folder)), fs_(fs), path_(std::move(path)) {}

  rocksdb::IOStatus Fsync(const rocksdb::IOOptions& options,
                          rocksdb::IODebugContext* dbg) override {
    return fs_->Synced(path_, FSDirectoryWrapper::Fsync(options, dbg));
  }
  rocksdb::IOStatus FsyncWithDirOptions(const rocksdb::IOOptions& options,
                                        rocksdb::IODebugContext* dbg,
                                        const rocksdb::DirFsyncOptions& sync) override {
    return fs_->Synced(path_,
                       FSDirectoryWrapper::FsyncWithDirOptions(options, dbg, sync));
  }

 private:
  PortableFileSystem* const fs_;
  const std::string path_;
};

PortableFileSystem::PortableFileSystem(std::shared_ptr<rocksdb::FileSystem> base,
                                       std::function<void(const std::string&)> report)
    : FileSystemWrapper(std::move(base)), report_(std::move(report)) {}

rocksdb::IOStatus PortableFileSystem::LinkFile(const std::string& from,
                                               const std::string& to,
                                               const rocksdb::IOOptions& options,
                                               rocksdb::IODebugContext* dbg) {
  rocksdb::IOStatus s = target()->LinkFile(from, to, options, dbg);
  if (FailedWithAny(s, {EPERM, EACCES, EMLINK, ENOSYS, EOPNOTSUPP, EXDEV})) {
    s = rocksdb::IOStatus::NotSupported(s.ToString());
  }
  if (s.IsNotSupported() && !links_reported_.exchange(true)) {
    report_(absl::StrCat("hard links are not supported here, packs are written twice: ",
                         s.ToString()));
  }
  return s;
}

rocksdb::IOStatus PortableFileSystem::NewDirectory(
    const std::string& path, const rocksdb::IOOptions& options,
    std::unique_ptr<rocksdb::FSDirectory>* result, rocksdb::IODebugContext* dbg) {
  rocksdb::IOStatus s = target()->NewDirectory(path, options, result, dbg);
  if (s.ok())
    *result = std::make_unique<PortableDirectory>(std::move(*result), this, path);
  return s;
}

rocksdb::IOStatus PortableFileSystem::Synced(const std::string& path,
                                             rocksdb::IOStatus status) {
  if (!status.IsNotSupported() && !FailedWithAny(status, {EINVAL, ENOSYS, EOPNOTSUPP})) {
    return status;
  }
  if (!syncs_reported_.exchange(true)) {
    report_(
        absl::StrCat("folders cannot be synced here; whether a new file survives a power "
                     "loss depends on the file system: ",
                     path, ": ", status.ToString()));
  }
  return rocksdb::IOStatus::OK();
}

}  // namespace modelstore::storage::rocks
