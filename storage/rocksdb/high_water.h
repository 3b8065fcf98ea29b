// The file HIGH_WATER: what the catalog is known to hold durably.
//
// RocksDB does not notice every loss: a WAL or MANIFEST whose end is gone, or looks
// as if it were, opens without an error. So after each sync the engine notes the
// number of the last durable write and, for every live WAL and MANIFEST, how many
// bytes are synced and their hash. The note is written after the sync and is not
// synced itself, so that it never runs ahead of what is durable. Two checksummed
// slots take turns: a torn write hurts one, and the other is one behind at most.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "proto/contract/mutex.h"
#include "rocksdb/file_system.h"

namespace modelstore::storage::rocks {

// The synced part of a WAL or MANIFEST.
struct SyncedJournal {
  std::string name;  // in catalog/
  int64_t bytes = 0;
  uint64_t hash = 0;  // XXH3 of these bytes
};

// Thread-safe.
class HighWater {
 public:
  // Opens `path`; makes it, durably, if it does not exist.
  static absl::StatusOr<std::unique_ptr<HighWater>> Open(rocksdb::FileSystem* fs,
                                                         const std::string& path);

  // Of the newer intact slot; 0 and none of a new file.
  uint64_t number() const EXCLUDES(mutex_);
  std::vector<SyncedJournal> journals() const EXCLUDES(mutex_);
  // The file existed, and no slot of it is intact: the note is lost.
  bool damaged() const EXCLUDES(mutex_);
  // The file did not exist.
  bool created() const { return created_; }

  absl::Status Write(uint64_t number, const std::vector<SyncedJournal>& journals)
      EXCLUDES(mutex_);
  // The same number with other journals.
  absl::Status Note(const std::vector<SyncedJournal>& journals) EXCLUDES(mutex_);
  absl::Status Sync() EXCLUDES(mutex_);
  // Writes both slots and syncs them: the number may go back.
  absl::Status Reset(uint64_t number) EXCLUDES(mutex_);

 private:
  // The content of a slot.
  struct Slot {
    uint64_t turn = 0;
    uint64_t number = 0;
    std::vector<SyncedJournal> journals;
  };

  HighWater() = default;
  static std::string Encode(const Slot& slot);
  static bool Decode(const rocksdb::Slice& bytes, Slot* slot);
  static rocksdb::IOStatus MakeFile(rocksdb::FileSystem* fs, const std::string& path);
  absl::Status WriteNext(uint64_t number, const std::vector<SyncedJournal>& journals)
      REQUIRES(mutex_);

  bool created_ = false;
  mutable Mutex mutex_;
  Slot slot_ GUARDED_BY(mutex_);
  bool damaged_ GUARDED_BY(mutex_) = false;
  std::unique_ptr<rocksdb::FSRandomRWFile> file_ GUARDED_BY(mutex_);
};

}  // namespace modelstore::storage::rocks
