#include "storage/rocksdb/options.h"

#include <sys/resource.h>

#include <algorithm>
#include <cstdarg>
#include <cstdio>
#include <string>
#include <utility>

#include "absl/strings/str_cat.h"
#include "rocksdb/env.h"
#include "rocksdb/table.h"
#include "storage/rocksdb/table_format.h"

namespace modelstore::storage::rocks {
namespace {

// RocksDB's own errors go to the listener; the rest of its log nowhere.
class ListenerLogger final : public rocksdb::Logger {
 public:
  explicit ListenerLogger(std::shared_ptr<Folder> folder)
      : Logger(rocksdb::InfoLogLevel::ERROR_LEVEL), folder_(std::move(folder)) {}

  using rocksdb::Logger::Logv;
  void Logv(const char* format, va_list arguments) override {
    char text[1024];
    std::vsnprintf(text, sizeof(text), format, arguments);
    folder_->Report(Listener::Severity::kWarning, absl::StrCat("rocksdb: ", text));
  }

 private:
  const std::shared_ptr<Folder> folder_;
};

// Packs that are held open, however many there are: a quarter of what this process may
// hold, the rest is for connections and packs that are written. More than a few hundred
// make nothing faster; each costs its index's memory.
int PackDescriptors() {
  constexpr rlim_t kFewest = 24;  // RocksDB takes no less than 20
  constexpr rlim_t kMost = 512;
  rlimit limit{};
  if (getrlimit(RLIMIT_NOFILE, &limit) != 0) return kFewest;
  return static_cast<int>(std::clamp(limit.rlim_cur / 4, kFewest, kMost));
}

rocksdb::Options CommonOptions(rocksdb::Env* env, std::shared_ptr<Folder> folder) {
  rocksdb::Options options;
  options.env = env;
  options.create_if_missing = true;
  options.info_log = std::make_shared<ListenerLogger>(std::move(folder));
  // A MANIFEST that rolls on a full disk can leave a database that does not open.
  options.max_manifest_file_size = uint64_t{1} << 30;
  // After a fault the engine reopens the database; RocksDB's own attempts would
  // only race with it.
  options.max_bgerror_resume_count = 0;
  options.compression = rocksdb::kNoCompression;
  options.bottommost_compression = rocksdb::kDisableCompressionOption;
  options.stats_dump_period_sec = 0;
  options.stats_persist_period_sec = 0;
  options.max_background_jobs = 2;
  options.wal_recovery_mode = rocksdb::WALRecoveryMode::kTolerateCorruptedTailRecords;
  options.track_and_verify_wals_in_manifest = false;
  return options;
}

}  // namespace

rocksdb::Options CatalogOptions(rocksdb::Env* env, std::shared_ptr<Folder> folder) {
  rocksdb::Options options = CommonOptions(env, std::move(folder));
  options.create_missing_column_families = true;
  options.paranoid_checks = true;
  // All of them, about one per 64 MiB: each is checked when the catalog is opened.
  options.max_open_files = -1;
  // Memory: 8 MiB a column family, 24 in all, 8 of cache.
  options.write_buffer_size = size_t{8} << 20;
  options.db_write_buffer_size = size_t{24} << 20;
  options.max_total_wal_size = uint64_t{64} << 20;
  rocksdb::BlockBasedTableOptions table;
  // That of packs, which every RocksDB from 7.8 on reads; newer ones would write newer.
  table.format_version = kTableFormat;
  table.checksum = rocksdb::kXXH3;
  table.block_cache = rocksdb::NewLRUCache(size_t{8} << 20);
  options.table_factory.reset(rocksdb::NewBlockBasedTableFactory(table));
  return options;
}

rocksdb::Options PackOptions(rocksdb::Env* env, std::shared_ptr<Folder> folder,
                             std::shared_ptr<rocksdb::Cache> cache) {
  rocksdb::Options options = CommonOptions(env, std::move(folder));
  // One hurt pack must not keep the others from being read.
  options.paranoid_checks = false;
  options.max_open_files = PackDescriptors();
  // RocksDB divides that by its shards and rounds up, 64 of them unless it is told.
  options.table_cache_numshardbits = 2;
  options.write_buffer_size = size_t{1} << 20;
  // Packs are never rewritten: not to compact them, not because they are old.
  options.disable_auto_compactions = true;
  options.ttl = 0;
  options.periodic_compaction_seconds = 0;
  // PackIngestOptions() needs it. A database that was made without it opens, too: its
  // packs are in the last level already.
  options.allow_ingest_behind = true;
  // Chunks of a load are read in order: keep the kernel's readahead.
  options.advise_random_on_open = false;
  rocksdb::BlockBasedTableOptions table;
  table.block_cache = std::move(cache);
  options.table_factory.reset(rocksdb::NewBlockBasedTableFactory(table));
  return options;
}

rocksdb::IngestExternalFileOptions PackIngestOptions() {
  rocksdb::IngestExternalFileOptions options;
  options.move_files = true;
  // EngineFileSystem::LinkFile() copies where links are not possible.
  options.failed_move_fall_back_to_copy = false;
  // Compares the pack's range of keys with the metadata of the others. Otherwise RocksDB
  // reads the neighbouring pack, and refuses this one if that one is damaged.
  options.ingest_behind = true;
  options.snapshot_consistency = false;
  options.write_global_seqno = false;
  options.allow_global_seqno = false;
  options.allow_blocking_flush = false;
  return options;
}

}  // namespace modelstore::storage::rocks
