#include "storage/rocksdb/db_gate.h"

#include <utility>

namespace modelstore::storage::rocks {

Database::~Database() {
  if (db == nullptr) return;
  for (rocksdb::ColumnFamilyHandle* family : families) {
    db->DestroyColumnFamilyHandle(family).PermitUncheckedError();
  }
  db->Close().PermitUncheckedError();
}

DbGate::~DbGate() { Close(absl::InfiniteDuration()).IgnoreError(); }

DbGate::Use DbGate::Enter() {
  MutexLock lock(mutex_);
  if (database_ == nullptr || closing_.load(std::memory_order_relaxed)) return Use();
  ++users_;
  return Use(this, database_.get());
}

void DbGate::Leave() {
  MutexLock lock(mutex_);
  if (--users_ == 0) left_.NotifyAll();
}

absl::Status DbGate::Close(absl::Duration patience) {
  std::unique_ptr<Database> database;
  {
    MutexLock lock(mutex_);
    closing_.store(true, std::memory_order_relaxed);
    if (!left_.WaitFor(mutex_, patience,
                       [this]() REQUIRES(mutex_) { return users_ == 0; })) {
      return absl::UnavailableError(
          "the database is still used by calls that began before a fault: retry later");
    }
    // Closed below, without the lock: closing waits for RocksDB's threads.
    database = std::move(database_);
  }
  return absl::OkStatus();
}

void DbGate::Open(std::unique_ptr<Database> database) {
  MutexLock lock(mutex_);
  database_ = std::move(database);
  closing_.store(false, std::memory_order_relaxed);
}

}  // namespace modelstore::storage::rocks
