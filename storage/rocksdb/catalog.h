// The catalog over RocksDB: one column family a Space, every write through the
// WAL, one writer at a time.
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
  // The write is durable whatever becomes of the note; only the notice of a later
  // loss suffers.
  void Noted(const absl::Status& status);

  absl::Status OpenDatabase(bool accept_data_loss) REQUIRES(write_mutex_);
  // A CURRENT that is lost, or names a MANIFEST that is gone or older than one that
  // HIGH_WATER notes, is written anew if the newest that it notes is whole: nothing is
  // lost then.
  absl::Status RestoreCurrent();
  // OK, or how the catalog is damaged as far as its files tell. A missing catalog is not
  // taken for a new store. With `all_records` every record of the journals must be sound:
  // without paranoid checks RocksDB leaves out those that are not, and goes on behind
  // them. A journal that cannot be read is UNAVAILABLE, or damaged if `accept_data_loss`.
  absl::Status CheckFiles(bool all_records, bool accept_data_loss);
  // Compares the journals with what HIGH_WATER knows of them.
  absl::Status CheckJournals(bool all_records, bool accept_data_loss);
  // Keeps the first `bytes` of a journal.
  absl::Status CutJournal(const std::string& name, size_t bytes);
  // Opens what the files say, and compares the number of the last durable write with
  // HIGH_WATER's. DATA_LOSS if it is less, or if anything is damaged.
  absl::Status OpenWhole(bool accept_data_loss, std::unique_ptr<Database>* database)
      REQUIRES(write_mutex_);
  // Opens what is left, and says what is lost.
  absl::Status OpenDamaged(const absl::Status& why, std::unique_ptr<Database>* database)
      REQUIRES(write_mutex_);
  // A table that does not open is refused when it is read, unless `paranoid`.
  absl::Status OpenRocks(bool paranoid, std::unique_ptr<Database>* database);
  absl::StatusOr<uint64_t> ReadNumber(Database& database);
  // Takes the number that was found for the one that HIGH_WATER shall name.
  absl::Status SettleNumber(uint64_t found) REQUIRES(write_mutex_);
  absl::Status CheckExpectations(const CatalogBatch& batch, DbGate::Use& use);
  absl::Status Apply(const CatalogBatch& batch, Durability durability, DbGate::Use& use)
      REQUIRES(write_mutex_);
  // Names the fate of a write that RocksDB failed.
  absl::Status Judge(const rocksdb::Status& status, bool journal_touched);
  void SetHealth(absl::Status health) EXCLUDES(health_mutex_);

  // Constant after construction.
  const std::shared_ptr<Folder> folder_;
  const std::shared_ptr<EngineFileSystem> fs_;
  const std::unique_ptr<rocksdb::Env> env_;

  // Have their own synchronisation.
  const std::unique_ptr<HighWater> mark_;
  DbGate gate_;
  std::atomic<bool> note_failed_{false};

  // Held by writers and by Reopen(), in front of health_mutex_.
  Mutex write_mutex_;
  // Of the last durable write that returned OK.
  uint64_t number_ GUARDED_BY(write_mutex_) = 0;
  // By the operator, when the catalog was opened. A table that does not open is then no
  // reason not to reopen it; journals and commit number are held to what they were.
  bool loss_accepted_ GUARDED_BY(write_mutex_) = false;

  Mutex health_mutex_;
  absl::Status health_ GUARDED_BY(health_mutex_);
};

}  // namespace modelstore::storage::rocks
