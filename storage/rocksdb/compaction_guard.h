// Keeps the catalog writable when one of its tables is damaged. A compaction that reads
// the damage fails, and RocksDB would refuse all writes from then on, after each
// reopening again. Here only the compactions of that column family stop.
#pragma once

#include <atomic>
#include <memory>
#include <set>
#include <string>

#include "proto/contract/mutex.h"
#include "rocksdb/listener.h"
#include "storage/rocksdb/db_gate.h"
#include "storage/rocksdb/folder.h"

namespace modelstore::storage::rocks {

// Listens to one catalog, across its reopenings. Thread-safe.
class CompactionGuard final : public rocksdb::EventListener {
 public:
  explicit CompactionGuard(std::shared_ptr<Folder> folder) : folder_(std::move(folder)) {}

  // Stops the compactions of the column families in which one has failed, until the
  // database is opened again. To be called before each write, because RocksDB's callbacks
  // must not change options. One atomic load if none has failed.
  void StopFailing(DbGate::Use& use) EXCLUDES(mutex_);

  void OnBackgroundError(rocksdb::BackgroundErrorReason reason,
                         rocksdb::Status* error) override;
  void OnCompactionCompleted(rocksdb::DB* db,
                             const rocksdb::CompactionJobInfo& info) override
      EXCLUDES(mutex_);

 private:
  const std::shared_ptr<Folder> folder_;
  std::atomic<bool> pending_{false};
  Mutex mutex_;
  std::set<std::string> failed_ GUARDED_BY(mutex_);    // still to be stopped
  std::set<std::string> reported_ GUARDED_BY(mutex_);  // once each
};

}  // namespace modelstore::storage::rocks
