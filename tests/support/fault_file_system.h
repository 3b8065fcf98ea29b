// A file system for tests, on a folder of the real one. It can
//   - lose unsynced data: Materialize() writes the folder as a power loss would leave it,
//     and CutPowerAt() stops all changes at one operation;
//   - ignore syncs of one kind of file, so that a test can show why the sync is needed;
//   - fail operations, once or permanently, with EIO, ENOSPC or another errno;
//   - be full: a quota limits all files, and GetFreeSpace() returns what is left of it;
//   - count syncs and bytes by kind of file, and call a hook at each operation.
//
//   auto fs = std::make_shared<FaultFileSystem>(folder);
//   fs->SetFault({.ops = kSync, .kind = FileKind::kWal});
//   auto engine = OpenRocksEngine({.path = folder, .file_system = fs});
#pragma once

#include <array>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <set>
#include <string>

#include "absl/status/status.h"
#include "proto/contract/mutex.h"
#include "rocksdb/file_system.h"
#include "tests/support/durable_model.h"

namespace modelstore::testing {

enum class FileKind : uint8_t {
  kWal,       // of the catalog
  kManifest,  // of either database
  kCurrent,   // CURRENT and the file that is renamed to it
  kTable,     // .sst of the catalog
  kPack,      // .sst anywhere else
  kHighWater,
  kBallast,
  kDirectory,
  kOther,
};
inline constexpr int kFileKinds = 9;
FileKind KindOf(const std::string& path);
const char* KindName(FileKind kind);

// Operations, as bits.
enum FileOp : uint32_t {
  kOpen = 1,  // of a file for writing, or of a folder
  kWrite = 2,
  kSync = 4,
  kRename = 8,
  kLink = 16,
  kTruncate = 32,
  kDelete = 64,
  kMakeFolder = 128,
  kRead = 256,       // opening for reading, and reading
  kWriteBack = 512,  // RangeSync(): starts writeback
  kClose = 1024,     // of a written file
};
// All operations that change the disk.
inline constexpr uint32_t kChanges =
    kOpen | kWrite | kSync | kRename | kLink | kTruncate | kDelete | kMakeFolder;

// Thread-safe.
class FaultFileSystem final : public rocksdb::FileSystemWrapper {
 public:
  struct Operation {
    FileOp op;
    FileKind kind;
    std::string path;
    int64_t index = 0;  // number of the change; 0 for other operations
  };

  // The `at`-th operation from now that matches `ops` and `kind` fails; with `for_good`,
  // so do all later ones.
  struct Fault {
    uint32_t ops = kChanges;
    std::optional<FileKind> kind;
    int64_t at = 1;
    bool for_good = false;
    bool no_space = false;  // else EIO
    // An errno, reported with the text that RocksDB uses; 0: EIO.
    int error = 0;
  };

  struct Counts {
    int64_t writes = 0;
    int64_t bytes = 0;
    int64_t syncs = 0;
  };

  explicit FaultFileSystem(std::string root);
  ~FaultFileSystem() override;

  const char* Name() const override { return "modelstore.FaultFileSystem"; }

  void SetFault(const Fault& fault);
  void ClearFault();
  // Operations that failed because of a fault.
  int64_t failures() const;

  // Syncs of this kind succeed without making anything durable.
  void IgnoreSync(FileKind kind);
  // Limits the total size of all files; negative: no limit.
  void SetQuota(int64_t bytes);
  int64_t used_bytes() const;

  Counts counts(FileKind kind) const;
  Counts total() const;
  void ResetCounts();

  // `hook` is called before each operation, on its thread, with no lock held.
  void SetHook(std::function<void(const Operation&)> hook);

  // Number of changes so far.
  int64_t operations() const;
  // From the `n`-th change from now on, every change fails with EIO and has no effect on
  // the folder and its durable state. The folder itself is then as after a SIGKILL at
  // that moment; Materialize() gives the state after a power loss.
  void CutPowerAt(int64_t n);
  bool power_is_off() const;

  // Writes the state after a power loss to `folder`, which must not exist. With a seed,
  // unsynced changes survive at random.
  absl::Status Materialize(const std::string& folder, std::optional<uint64_t> seed) const;

  rocksdb::IOStatus NewSequentialFile(const std::string& path,
                                      const rocksdb::FileOptions& options,
                                      std::unique_ptr<rocksdb::FSSequentialFile>* result,
                                      rocksdb::IODebugContext* dbg) override;
  rocksdb::IOStatus NewRandomAccessFile(
      const std::string& path, const rocksdb::FileOptions& options,
      std::unique_ptr<rocksdb::FSRandomAccessFile>* result,
      rocksdb::IODebugContext* dbg) override;
  rocksdb::IOStatus NewWritableFile(const std::string& path,
                                    const rocksdb::FileOptions& options,
                                    std::unique_ptr<rocksdb::FSWritableFile>* result,
                                    rocksdb::IODebugContext* dbg) override;
  rocksdb::IOStatus ReopenWritableFile(const std::string& path,
                                       const rocksdb::FileOptions& options,
                                       std::unique_ptr<rocksdb::FSWritableFile>* result,
                                       rocksdb::IODebugContext* dbg) override;
  rocksdb::IOStatus NewRandomRWFile(const std::string& path,
                                    const rocksdb::FileOptions& options,
                                    std::unique_ptr<rocksdb::FSRandomRWFile>* result,
                                    rocksdb::IODebugContext* dbg) override;
  rocksdb::IOStatus NewDirectory(const std::string& path,
                                 const rocksdb::IOOptions& options,
                                 std::unique_ptr<rocksdb::FSDirectory>* result,
                                 rocksdb::IODebugContext* dbg) override;
  rocksdb::IOStatus DeleteFile(const std::string& path, const rocksdb::IOOptions& options,
                               rocksdb::IODebugContext* dbg) override;
  rocksdb::IOStatus Truncate(const std::string& path, size_t size,
                             const rocksdb::IOOptions& options,
                             rocksdb::IODebugContext* dbg) override;
  rocksdb::IOStatus CreateDir(const std::string& path, const rocksdb::IOOptions& options,
                              rocksdb::IODebugContext* dbg) override;
  rocksdb::IOStatus CreateDirIfMissing(const std::string& path,
                                       const rocksdb::IOOptions& options,
                                       rocksdb::IODebugContext* dbg) override;
  rocksdb::IOStatus DeleteDir(const std::string& path, const rocksdb::IOOptions& options,
                              rocksdb::IODebugContext* dbg) override;
  rocksdb::IOStatus RenameFile(const std::string& from, const std::string& to,
                               const rocksdb::IOOptions& options,
                               rocksdb::IODebugContext* dbg) override;
  rocksdb::IOStatus LinkFile(const std::string& from, const std::string& to,
                             const rocksdb::IOOptions& options,
                             rocksdb::IODebugContext* dbg) override;
  rocksdb::IOStatus LockFile(const std::string& path, const rocksdb::IOOptions& options,
                             rocksdb::FileLock** lock,
                             rocksdb::IODebugContext* dbg) override;
  rocksdb::IOStatus GetFreeSpace(const std::string& path,
                                 const rocksdb::IOOptions& options, uint64_t* bytes,
                                 rocksdb::IODebugContext* dbg) override;

 private:
  friend class FaultWritableFile;
  friend class FaultRandomRWFile;
  friend class FaultDirectory;
  friend class FaultSequentialFile;
  friend class FaultRandomAccessFile;

  // Counts the operation, calls the hook, and returns whether it fails.
  rocksdb::IOStatus Begin(FileOp op, FileKind kind, const std::string& path);
  // How many of `bytes` the quota allows to be written.
  int64_t FreeSpaceFor(const ModelFile& file, int64_t bytes) const REQUIRES(mutex_);
  void CountWrite(FileKind kind, int64_t bytes) REQUIRES(mutex_);
  // Counts a sync; false if syncs of this kind are ignored.
  bool CountSync(FileKind kind) REQUIRES(mutex_);
  // Path relative to the root; absent if it is outside.
  std::optional<std::string> Inside(const std::string& path) const;

  const std::string root_;
  mutable Mutex mutex_;
  DurableModel model_ GUARDED_BY(mutex_);
  std::optional<Fault> fault_ GUARDED_BY(mutex_);
  int64_t failures_ GUARDED_BY(mutex_) = 0;
  std::set<FileKind> ignored_ GUARDED_BY(mutex_);
  int64_t quota_ GUARDED_BY(mutex_) = -1;
  std::array<Counts, kFileKinds> counts_ GUARDED_BY(mutex_);
  std::function<void(const Operation&)> hook_ GUARDED_BY(mutex_);
  int64_t operations_ GUARDED_BY(mutex_) = 0;
  int64_t cut_at_ GUARDED_BY(mutex_) = -1;
  bool power_is_off_ GUARDED_BY(mutex_) = false;
};

}  // namespace modelstore::testing
