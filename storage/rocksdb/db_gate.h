// A database with counted users, so that it can be closed and reopened after a fault
// while running calls drain.
//
//   DbGate::Use use = gate.Enter();
//   if (!use) return absl::UnavailableError(...);
//   use->db->Get(...);
#pragma once

#include <atomic>
#include <memory>
#include <vector>

#include "absl/status/status.h"
#include "absl/time/time.h"
#include "proto/contract/mutex.h"
#include "rocksdb/db.h"

namespace modelstore::storage::rocks {

// An open database and its column families; closes them when destroyed.
struct Database {
  ~Database();

  std::unique_ptr<rocksdb::DB> db;
  std::vector<rocksdb::ColumnFamilyHandle*> families;
};

// Thread-safe.
class DbGate {
 public:
  // Keeps the database open while it lives. False if the database is closed or closing.
  class Use {
   public:
    Use() = default;
    Use(Use&& other) noexcept
        : gate_(std::exchange(other.gate_, nullptr)), database_(other.database_) {}
    Use& operator=(Use&&) = delete;
    ~Use() {
      if (gate_ != nullptr) gate_->Leave();
    }

    explicit operator bool() const { return gate_ != nullptr; }
    Database* operator->() const { return database_; }
    // True once Close() waits: a long scan should stop.
    bool IsCloseRequested() const {
      return gate_->closing_.load(std::memory_order_relaxed);
    }

   private:
    friend class DbGate;
    Use(DbGate* gate, Database* database) : gate_(gate), database_(database) {}

    DbGate* gate_ = nullptr;
    Database* database_ = nullptr;
  };

  ~DbGate();

  Use Enter() EXCLUDES(mutex_);

  // Refuses new uses, waits for running ones, then closes the database. UNAVAILABLE if
  // they take longer than `patience`: new uses stay refused, and Close() may be called
  // again.
  absl::Status Close(absl::Duration patience) EXCLUDES(mutex_);

  // Only after Close() has succeeded, or before the first use.
  void Open(std::unique_ptr<Database> database) EXCLUDES(mutex_);

 private:
  void Leave() EXCLUDES(mutex_);

  // Written under mutex_; atomic, so that IsCloseRequested() needs no lock.
  std::atomic<bool> closing_{true};
  Mutex mutex_;
  CondVar left_;
  int users_ GUARDED_BY(mutex_) = 0;
  std::unique_ptr<Database> database_ GUARDED_BY(mutex_);
};

}  // namespace modelstore::storage::rocks
