// The catalog on RocksDB: one column family per Space, every write through the WAL, one
// writer at a time.
//
// Commit: a durable write is one WriteBatch with the next commit number, synced by one
// fdatasync; then HIGH_WATER records the number. A failed write leaves RocksDB read-only:
// the catalog reports UNAVAILABLE until Reopen() has recovered it, and a write that may
// have reached the WAL is undecided until then.
#pragma once

#include <atomic>
#include <cstdint>
#include <memory>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "proto/contract/mutex.h"
#include "rocksdb/env.h"
#include "storage/catalog.h"
#include "storage/rocksdb/compaction_guard.h"
#include "storage/rocksdb/db_gate.h"
#include "storage/rocksdb/engine_file_system.h"
#include "storage/rocksdb/folder.h"
#include "storage/rocksdb/high_water.h"

namespace modelstore::storage::rocks {

// In the default column family: the number of the last durable write.
inline constexpr char kCommitNumberKey[] = "commit_number";

class RocksCatalog final : public Catalog {
 public:
  ~RocksCatalog() override;
  static absl::StatusOr<std::unique_ptr<RocksCatalog>> Open(
      std::shared_ptr<Folder> folder, bool accept_data_loss);

  absl::StatusOr<std::optional<std::string>> Get(Space space,
                                                 absl::string_view key) override;
  absl::Status Scan(
      Space space, const KeyRange& range,
      absl::FunctionRef<bool(absl::string_view, absl::string_view)> visit) override;
  absl::Status Write(const CatalogBatch& batch, Durability durability) override;
  absl::Status Health() override;
  absl::Status Reopen() override;

 private:
  RocksCatalog(std::shared_ptr<Folder> folder, std::unique_ptr<HighWater> mark);
  // Reports the first of consecutive failures to write HIGH_WATER. The write itself is
  // durable; only a later loss of it might go undetected.
  void Noted(const absl::Status& status);

  absl::Status OpenDatabase(bool accept_data_loss) REQUIRES(write_mutex_);
  // Rewrites CURRENT if it is missing, or names a MANIFEST that is missing or older than
  // one that HIGH_WATER records, provided that the newest recorded MANIFEST is intact.
  // Nothing is lost then.
  absl::Status RestoreCurrent();
  // OK, or DATA_LOSS if the files show damage. A missing catalog next to existing packs
  // is damage, not a new store. With `all_records` every record of the journals must be
  // intact: without paranoid checks RocksDB skips damaged records and continues after
  // them. A journal that cannot be read is UNAVAILABLE, or DATA_LOSS with
  // `accept_data_loss`.
  absl::Status CheckFiles(bool all_records, bool accept_data_loss);
  // Compares the journals with what HIGH_WATER records of them.
  absl::Status CheckJournals(bool all_records, bool accept_data_loss);
  // Truncates a journal to `bytes`, durably.
  absl::Status CutJournal(const std::string& name, size_t bytes);
  // Opens an undamaged catalog. DATA_LOSS if anything is damaged, or if its last commit
  // number is below HIGH_WATER's.
  absl::Status OpenWhole(bool accept_data_loss, std::unique_ptr<Database>* database)
      REQUIRES(write_mutex_);
  // Opens a damaged catalog after the operator accepted the loss, and reports what is
  // lost. `why` is OpenWhole()'s error.
  absl::Status OpenDamaged(const absl::Status& why, std::unique_ptr<Database>* database)
      REQUIRES(write_mutex_);
  // With `paranoid` every table must open; otherwise a damaged one fails when it is read.
  absl::Status OpenRocks(bool paranoid, std::unique_ptr<Database>* database);
  absl::StatusOr<uint64_t> ReadNumber(Database& database);
  // Continues at commit number `found`, and resets HIGH_WATER if it differs.
  absl::Status SettleNumber(uint64_t found) REQUIRES(write_mutex_);
  absl::Status CheckExpectations(const CatalogBatch& batch, DbGate::Use& use);
  absl::Status Apply(const CatalogBatch& batch, Durability durability, DbGate::Use& use)
      REQUIRES(write_mutex_);
  // Classifies a failed write: undecided if the WAL was appended to, else not applied.
  // Marks the catalog as waiting for Reopen().
  absl::Status ClassifyFailure(const rocksdb::Status& status, bool journal_touched);
  void SetHealth(absl::Status health) EXCLUDES(health_mutex_);

  // Constant after construction.
  const std::shared_ptr<Folder> folder_;
  const std::shared_ptr<EngineFileSystem> fs_;
  const std::unique_ptr<rocksdb::Env> env_;
  const std::shared_ptr<CompactionGuard> guard_;

  // Thread-safe by themselves.
  const std::unique_ptr<HighWater> mark_;
  DbGate gate_;
  std::atomic<bool> note_failed_{false};

  // Held by writers and by Reopen(). Taken before health_mutex_. Readers do not take it.
  Mutex write_mutex_;
  // Commit number of the last durable write that returned OK.
  uint64_t number_ GUARDED_BY(write_mutex_) = 0;
  // The operator accepted a loss when the catalog was opened. Reopen() then tolerates
  // tables that do not open; journals and commit number are checked as always.
  bool loss_accepted_ GUARDED_BY(write_mutex_) = false;

  Mutex health_mutex_;
  absl::Status health_ GUARDED_BY(health_mutex_);
};

}  // namespace modelstore::storage::rocks
