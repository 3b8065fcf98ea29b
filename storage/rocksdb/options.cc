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

// Passes RocksDB's errors to the listener and drops the rest of its log.
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

// Maximum number of open packs: a quarter of the process's descriptors. The others are
// for connections and packs being written. More than a few hundred do not make reads
// faster, and each keeps its index in memory.
int PackDescriptors() {
  constexpr rlim_t kMinDescriptors = 24;  // RocksDB's minimum is 20
  constexpr rlim_t kMaxDescriptors = 512;
  rlimit limit{};
  if (getrlimit(RLIMIT_NOFILE, &limit) != 0) return kMinDescriptors;
  return static_cast<int>(
      std::clamp(limit.rlim_cur / 4, kMinDescriptors, kMaxDescriptors));
}

rocksdb::Options CommonOptions(rocksdb::Env* env, std::shared_ptr<Folder> folder) {
  rocksdb::Options options;
  options.env = env;
  options.create_if_missing = true;
  options.info_log = std::make_shared<ListenerLogger>(std::move(folder));
  // Large enough never to roll: rolling on a full disk can leave a database that does
  // not open.
  options.max_manifest_file_size = uint64_t{1} << 30;
  // The engine reopens the database after a fault; RocksDB's own attempts would race
  // with it.
  options.max_bgerror_resume_count = 0;
  options.compression = rocksdb::kNoCompression;
  options.bottommost_compression = rocksdb::kDisableCompressionOption;
  options.stats_dump_period_sec = 0;
  options.stats_persist_period_sec = 0;
  options.max_background_jobs = 2;
  // The default mode silently drops acknowledged writes after a flipped bit.
  options.wal_recovery_mode = rocksdb::WALRecoveryMode::kTolerateCorruptedTailRecords;
  options.track_and_verify_wals_in_manifest = false;
  return options;
}

}  // namespace

rocksdb::Options CatalogOptions(rocksdb::Env* env, std::shared_ptr<Folder> folder) {
  rocksdb::Options options = CommonOptions(env, std::move(folder));
  options.create_missing_column_families = true;
  options.paranoid_checks = true;
  // All tables, about one per 64 MiB, are opened, and thus checked, with the catalog.
  options.max_open_files = -1;
  // Memory: 8 MiB per column family, at most 24 MiB, and 8 MiB of cache.
  options.write_buffer_size = size_t{8} << 20;
  options.db_write_buffer_size = size_t{24} << 20;
  options.max_total_wal_size = uint64_t{64} << 20;
  rocksdb::BlockBasedTableOptions table;
  // The format of packs, readable since RocksDB 7.8. Newer versions default to newer
  // formats.
  table.format_version = kTableFormat;
  table.checksum = rocksdb::kXXH3;
  table.block_cache = rocksdb::NewLRUCache(size_t{8} << 20);
  options.table_factory.reset(rocksdb::NewBlockBasedTableFactory(table));
  return options;
}

rocksdb::Options PackOptions(rocksdb::Env* env, std::shared_ptr<Folder> folder,
                             std::shared_ptr<rocksdb::Cache> cache) {
  rocksdb::Options options = CommonOptions(env, std::move(folder));
  // A damaged pack must not make the others unreadable.
  options.paranoid_checks = false;
  options.max_open_files = PackDescriptors();
  // RocksDB divides max_open_files by the number of shards, 64 by default, and rounds up.
  options.table_cache_numshardbits = 2;
  options.write_buffer_size = size_t{1} << 20;
  // Packs are never rewritten: no compaction, and none because of age.
  options.disable_auto_compactions = true;
  options.ttl = 0;
  options.periodic_compaction_seconds = 0;
  // Required by PackIngestOptions(). A database created without it can be opened, as its
  // packs are in the last level already.
  options.allow_ingest_behind = true;
  // A load reads chunks in order, so the kernel's readahead helps.
  options.advise_random_on_open = false;
  rocksdb::BlockBasedTableOptions table;
  table.block_cache = std::move(cache);
  options.table_factory.reset(rocksdb::NewBlockBasedTableFactory(table));
  return options;
}

rocksdb::IngestExternalFileOptions PackIngestOptions() {
  rocksdb::IngestExternalFileOptions options;
  options.move_files = true;
  // EngineFileSystem::LinkFile() copies if links are not supported.
  options.failed_move_fall_back_to_copy = false;
  // Compares the pack's key range with the metadata of the others. Without it RocksDB
  // reads the neighbouring pack, and refuses this one if that one is damaged.
  options.ingest_behind = true;
  options.snapshot_consistency = false;
  options.write_global_seqno = false;
  options.allow_global_seqno = false;
  options.allow_blocking_flush = false;
  return options;
}

}  // namespace modelstore::storage::rocks
