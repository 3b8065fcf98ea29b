// The file HIGH_WATER: a lower bound of what the catalog holds durably.
//
// RocksDB does not detect every loss: a WAL or MANIFEST with a missing or apparently
// missing end opens without an error. After each sync the engine therefore records the
// number of the last durable write and, for every live WAL and MANIFEST, the number of
// synced bytes and their hash. The record is written after the sync and is not synced
// itself, so it never exceeds what is durable. Two checksummed slots are written in
// turn: a torn write damages one, and the other is at most one write behind.
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
  // Opens `path`; creates it durably if it does not exist.
  static absl::StatusOr<std::unique_ptr<HighWater>> Open(rocksdb::FileSystem* fs,
                                                         const std::string& path);

  // Values of the newer intact slot. A new file has 0 and none.
  uint64_t number() const EXCLUDES(mutex_);
  std::vector<SyncedJournal> journals() const EXCLUDES(mutex_);
  // The file existed, but no slot is intact.
  bool damaged() const EXCLUDES(mutex_);
  // The file did not exist.
  bool created() const { return created_; }

  // Records the state after a durable write.
  absl::Status Write(uint64_t number, const std::vector<SyncedJournal>& journals)
      EXCLUDES(mutex_);
  // Records new journals with the same number.
  absl::Status Note(const std::vector<SyncedJournal>& journals) EXCLUDES(mutex_);
  absl::Status Sync() EXCLUDES(mutex_);
  // Writes both slots and syncs them. The number may decrease.
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
