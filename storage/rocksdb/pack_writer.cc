#include "storage/rocksdb/pack_writer.h"

#include <utility>

#include "absl/strings/str_cat.h"
#include "storage/rocksdb/pack_format.h"
#include "storage/rocksdb/status.h"

namespace modelstore::storage::rocks {

RocksPackWriter::RocksPackWriter(uint64_t pack, std::shared_ptr<Folder> folder,
                                 std::function<void(const std::string&)> on_end)
    : pack_(pack),
      folder_(std::move(folder)),
      name_(PackFileName(pack)),
      path_(absl::StrCat(folder_->incoming(), "/", name_)),
      on_end_(std::move(on_end)) {}

RocksPackWriter::~RocksPackWriter() {
  // Fails harmlessly if Publish() has moved the file to packs/.
  folder_->fs()->DeleteFile(path_, {}, nullptr).PermitUncheckedError();
  on_end_(name_);
}

absl::Status RocksPackWriter::Open() {
  const rocksdb::IOStatus s = PackFile::Create(folder_->fs().get(), path_, &file_);
  if (s.ok()) table_.emplace(file_.get());
  return Fail(FromRocks(s, absl::StrCat("make pack ", pack_)));
}

absl::StatusOr<ChunkId> RocksPackWriter::Append(
    absl::Span<const absl::string_view> fragments) {
  if (!status_.ok()) return status_;
  if (finished_) return absl::FailedPreconditionError("the pack is finished");
  uint64_t bytes = 0;
  for (const absl::string_view fragment : fragments) bytes += fragment.size();
  const ChunkId id{pack_, next_sequence_};
  const rocksdb::IOStatus s = table_->Add(EncodeChunkKey(id), bytes, fragments);
  if (!s.ok()) return Fail(FromRocks(s, absl::StrCat("write pack ", pack_)));
  ++next_sequence_;
  size_bytes_ += static_cast<int64_t>(bytes);
  return id;
}

absl::Status RocksPackWriter::Finish() {
  if (!status_.ok()) return status_;
  if (finished_) return absl::FailedPreconditionError("the pack is finished");
  if (next_sequence_ == 0) return absl::FailedPreconditionError("the pack is empty");
  rocksdb::IOStatus s = table_->Finish();
  if (s.ok()) s = file_->Finish();
  if (!s.ok()) return Fail(FromRocks(s, absl::StrCat("finish pack ", pack_)));
  finished_ = true;
  return absl::OkStatus();
}

absl::Status RocksPackWriter::Fail(absl::Status status) {
  if (!status.ok()) status_ = status;
  return status;
}

}  // namespace modelstore::storage::rocks
