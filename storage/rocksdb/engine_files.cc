#include "storage/rocksdb/engine_files.h"

#include <xxhash.h>

#include <utility>

#include "storage/rocksdb/pack_format.h"

namespace modelstore::storage::rocks {
namespace {

thread_local bool validate_blocks = false;

// A read of at least this size is a large chunk, whose successor is likely read next.
constexpr size_t kLargeRead = size_t{256} << 10;

// Hashes what is appended, and reports bytes and hash to `fs` after each sync.
class JournalFile final : public rocksdb::FSWritableFileOwnerWrapper {
 public:
  JournalFile(std::unique_ptr<rocksdb::FSWritableFile> file, std::string name,
              EngineFileSystem* fs, std::atomic<int64_t>* appends)
      : FSWritableFileOwnerWrapper(std::move(file)), fs_(fs), appends_(appends) {
    written_.name = std::move(name);
    XXH3_64bits_reset(hash_.get());
  }

  rocksdb::IOStatus Append(const rocksdb::Slice& data, const rocksdb::IOOptions& options,
                           rocksdb::IODebugContext* dbg) override {
    // Counted before the call: a failed append may have written a part.
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
  // RocksDB appends to a file during a sync only if this is true. Then more bytes could
  // be counted here than were synced.
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

// Prefetches the next block while the current one is copied.
class ReadAheadFile final : public rocksdb::FSRandomAccessFileOwnerWrapper {
 public:
  ReadAheadFile(std::unique_ptr<rocksdb::FSRandomAccessFile> file,
                const BlockHandle& index)
      : FSRandomAccessFileOwnerWrapper(std::move(file)), index_(index) {}

  rocksdb::IOStatus Read(uint64_t offset, size_t n, const rocksdb::IOOptions& options,
                         rocksdb::Slice* result, char* scratch,
                         rocksdb::IODebugContext* dbg) const override {
    if (n >= kLargeRead && next_.exchange(offset + n) == offset) {
      target()->Prefetch(offset + n, n, options, dbg).PermitUncheckedError();
    }
    rocksdb::IOStatus s =
        FSRandomAccessFileOwnerWrapper::Read(offset, n, options, result, scratch, dbg);
    if (s.ok() && validate_blocks &&
        !IsConsistent(offset, absl::string_view(result->data(), result->size()))) {
      return rocksdb::IOStatus::Corruption("a block of a pack is damaged");
    }
    return s;
  }

 private:
  // With verify_checksums=false RocksDB 9 does not verify the index either.
  bool IsConsistent(uint64_t offset, absl::string_view read) const {
    if (offset < index_.offset) return IsValidBlock(read);
    return offset > index_.offset || HasValidChecksum(read);
  }

  const BlockHandle index_;
  // Where the last large read ended.
  mutable std::atomic<uint64_t> next_{0};
};

// Reports failed reads to `fs`, which then refuses to link the table.
class RecordedFile final : public rocksdb::FSRandomAccessFileOwnerWrapper {
 public:
  RecordedFile(std::unique_ptr<rocksdb::FSRandomAccessFile> file, EngineFileSystem* fs,
               std::string path)
      : FSRandomAccessFileOwnerWrapper(std::move(file)),
        fs_(fs),
        path_(std::move(path)) {}

  rocksdb::IOStatus Read(uint64_t offset, size_t n, const rocksdb::IOOptions& options,
                         rocksdb::Slice* result, char* scratch,
                         rocksdb::IODebugContext* dbg) const override {
    rocksdb::IOStatus s =
        FSRandomAccessFileOwnerWrapper::Read(offset, n, options, result, scratch, dbg);
    if (!s.ok()) fs_->NoteRead(path_, s);
    return s;
  }

 private:
  EngineFileSystem* const fs_;
  const std::string path_;
};

}  // namespace

ScopedBlockValidation::ScopedBlockValidation() { validate_blocks = true; }
ScopedBlockValidation::~ScopedBlockValidation() { validate_blocks = false; }

std::unique_ptr<rocksdb::FSWritableFile> NewJournalFile(
    std::unique_ptr<rocksdb::FSWritableFile> file, std::string name, EngineFileSystem* fs,
    std::atomic<int64_t>* appends) {
  return std::make_unique<JournalFile>(std::move(file), std::move(name), fs, appends);
}

std::unique_ptr<rocksdb::FSRandomAccessFile> NewReadAheadFile(
    std::unique_ptr<rocksdb::FSRandomAccessFile> file, const BlockHandle& index) {
  return std::make_unique<ReadAheadFile>(std::move(file), index);
}

std::unique_ptr<rocksdb::FSRandomAccessFile> NewNotedFile(
    std::unique_ptr<rocksdb::FSRandomAccessFile> file, EngineFileSystem* fs,
    std::string path) {
  return std::make_unique<RecordedFile>(std::move(file), fs, std::move(path));
}

}  // namespace modelstore::storage::rocks
