// The chunk store on RocksDB: one ingested SST file per pack. FORMAT.md describes how
// its metadata is rebuilt.
#pragma once

#include <atomic>
#include <cstdint>
#include <memory>
#include <string>
#include <unordered_map>
#include <unordered_set>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "proto/contract/mutex.h"
#include "rocksdb/cache.h"
#include "rocksdb/env.h"
#include "storage/chunk_store.h"
#include "storage/rocksdb/buffer_pool.h"
#include "storage/rocksdb/db_gate.h"
#include "storage/rocksdb/engine_file_system.h"
#include "storage/rocksdb/folder.h"
#include "storage/rocksdb/pack_writer.h"

namespace modelstore::storage::rocks {

class RocksChunkStore final : public ChunkStore {
 public:
  explicit RocksChunkStore(std::shared_ptr<Folder> folder);
  ~RocksChunkStore() override;

  absl::StatusOr<std::unique_ptr<PackWriter>> NewPack(uint64_t pack) override;
  absl::Status Publish(std::unique_ptr<PackWriter> writer) override;
  absl::StatusOr<PinnedBytes> Read(ChunkId chunk) override;
  absl::StatusOr<std::vector<PackInfo>> ListPacks() override;
  absl::Status DropPacks(absl::Span<const uint64_t> packs) override;
  absl::Status Health() override;
  absl::Status Reopen(absl::Span<const uint64_t> expected) override;

  // Cost of reads, for tests and benchmarks.
  BufferPool::Counts pool_counts() const { return pool_->counts(); }
  int64_t copied_reads() const { return copied_reads_.load(); }

 private:
  struct Pack {
    int64_t size_bytes = 0;
    std::string file;  // its name in packs/
  };

  // Files in incoming/ that belong to live writers. Shared with the writers, which may
  // outlive the store.
  struct Writers {
    Mutex mutex;
    std::unordered_set<std::string> names GUARDED_BY(mutex);
  };

  // Reads the packs of an opened database into packs_.
  void LoadPacks(rocksdb::DB* db) EXCLUDES(packs_mutex_);
  // Deletes the files in incoming/ that belong to no live writer.
  void CleanIncoming();
  // Classifies a failed change of the pack list. If the MANIFEST was appended to, the
  // store reports UNAVAILABLE until Reopen().
  absl::Status ClassifyFailure(const rocksdb::Status& status, absl::string_view what,
                               bool journal_touched);
  void SetHealth(absl::Status health) EXCLUDES(health_mutex_);

  // Constant after construction.
  const std::shared_ptr<Folder> folder_;
  const std::shared_ptr<EngineFileSystem> fs_;
  const std::shared_ptr<rocksdb::Env> env_;
  const std::shared_ptr<BufferPool> pool_;
  const std::shared_ptr<rocksdb::Cache> cache_;
  const std::shared_ptr<Writers> writers_;

  // Thread-safe by themselves.
  DbGate gate_;
  std::atomic<int64_t> copied_reads_{0};

  // Serializes changes of the pack list. Taken before packs_mutex_ and health_mutex_.
  Mutex change_mutex_;
  Mutex packs_mutex_;
  std::unordered_map<uint64_t, Pack> packs_ GUARDED_BY(packs_mutex_);
  Mutex health_mutex_;
  absl::Status health_ GUARDED_BY(health_mutex_);
};

}  // namespace modelstore::storage::rocks
