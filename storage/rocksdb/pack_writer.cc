#include "storage/rocksdb/pack_writer.h"

#include <utility>

#include "absl/strings/str_cat.h"
#include "storage/rocksdb/pack_format.h"
#include "storage/rocksdb/status.h"

namespace modelstore::storage::rocks {

RocksPackWriter::RocksPackWriter(uint64_t pack, std::shared_ptr<Folder> folder,
                                 const rocksdb::Options& options,
                                 std::function<void(const std::string&)> on_end)
    : pack_(pack),
      folder_(std::move(folder)),
      name_(PackFileName(pack)),
      path_(absl::StrCat(folder_->incoming(), "/", name_)),
      on_end_(std::move(on_end)),
      // What is written stays in the page cache: a load may follow the save.
      writer_(rocksdb::EnvOptions(options), options, /*column_family=*/nullptr,
              /*invalidate_page_cache=*/false) {}

RocksPackWriter::~RocksPackWriter() {
  // Published, the file is gone already.
  folder_->fs()->DeleteFile(path_, {}, nullptr).PermitUncheckedError();
  on_end_(name_);
}

absl::Status RocksPackWriter::Open() {
  return Fail(FromRocks(writer_.Open(path_), absl::StrCat("make pack ", pack_)));
}

absl::StatusOr<ChunkId> RocksPackWriter::Append(absl::string_view chunk) {
  if (!status_.ok()) return status_;
  if (finished_) return absl::FailedPreconditionError("the pack is finished");
  const ChunkId id{pack_, next_sequence_};
  const ChunkKey key = EncodeChunkKey(id);
  const rocksdb::Status s = writer_.Put(rocksdb::Slice(key.data(), key.size()),
                                        rocksdb::Slice(chunk.data(), chunk.size()));
  if (!s.ok()) return Fail(FromRocks(s, absl::StrCat("write pack ", pack_)));
  ++next_sequence_;
  size_bytes_ += static_cast<int64_t>(chunk.size());
  return id;
}

absl::Status RocksPackWriter::Finish() {
  if (!status_.ok()) return status_;
  if (finished_) return absl::FailedPreconditionError("the pack is finished");
  if (next_sequence_ == 0) return absl::FailedPreconditionError("the pack is empty");
  const rocksdb::Status s = writer_.Finish();
  if (!s.ok()) return Fail(FromRocks(s, absl::StrCat("finish pack ", pack_)));
  finished_ = true;
  return absl::OkStatus();
}

absl::Status RocksPackWriter::Fail(absl::Status status) {
  if (!status.ok()) status_ = status;
  return status;
}

}  // namespace modelstore::storage::rocks
