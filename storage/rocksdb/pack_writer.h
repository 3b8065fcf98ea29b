// Writes one pack as an SST file in incoming/. RocksChunkStore::Publish() ingests it.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>

#include "storage/chunk_store.h"
#include "storage/rocksdb/folder.h"
#include "storage/rocksdb/pack_file.h"
#include "storage/rocksdb/pack_table.h"

namespace modelstore::storage::rocks {

// Used by one thread at a time.
class RocksPackWriter final : public PackWriter {
 public:
  // The destructor deletes the file from incoming/, published or not, and then calls
  // `on_end` with its name.
  RocksPackWriter(uint64_t pack, std::shared_ptr<Folder> folder,
                  std::function<void(const std::string&)> on_end);
  ~RocksPackWriter() override;

  absl::Status Open();

  uint64_t pack() const override { return pack_; }
  int64_t size_bytes() const override { return size_bytes_; }
  absl::StatusOr<ChunkId> Append(absl::Span<const absl::string_view> fragments) override;
  void Skip(uint32_t numbers) override { next_sequence_ += numbers; }
  absl::Status Finish() override;

  bool finished() const { return finished_; }
  const std::string& path() const { return path_; }

 private:
  // Records the first error. A pack with a failed append is never finished.
  absl::Status Fail(absl::Status status);

  const uint64_t pack_;
  const std::shared_ptr<Folder> folder_;
  const std::string name_;
  const std::string path_;
  const std::function<void(const std::string&)> on_end_;
  std::unique_ptr<PackFile> file_;
  std::optional<PackTable> table_;
  absl::Status status_;
  int64_t size_bytes_ = 0;
  uint32_t next_sequence_ = 0;
  bool finished_ = false;
};

}  // namespace modelstore::storage::rocks
