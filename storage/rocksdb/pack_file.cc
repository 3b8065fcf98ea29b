#include "storage/rocksdb/pack_file.h"

#include <algorithm>
#include <cstring>
#include <utility>

namespace modelstore::storage::rocks {
namespace {

// Fits the second-level cache, so that copied bytes are still cached when they are
// written. Chunks arrive in fragments of 16 KiB, too small to be written one by one.
constexpr size_t kBufferBytes = size_t{256} << 10;
// Writeback starts after this many bytes, so that the final sync is short.
constexpr uint64_t kSendBytes = uint64_t{8} << 20;

}  // namespace

PackFile::PackFile(std::unique_ptr<rocksdb::FSWritableFile> file)
    : file_(std::move(file)), buffer_(new char[kBufferBytes]) {}

rocksdb::IOStatus PackFile::Create(rocksdb::FileSystem* fs, const std::string& path,
                                   std::unique_ptr<PackFile>* result) {
  std::unique_ptr<rocksdb::FSWritableFile> file;
  rocksdb::IOStatus s = fs->NewWritableFile(path, {}, &file, nullptr);
  if (s.ok()) result->reset(new PackFile(std::move(file)));
  return s;
}

rocksdb::IOStatus PackFile::Append(absl::string_view bytes) {
  while (!bytes.empty()) {
    const size_t step = std::min(bytes.size(), kBufferBytes - held_);
    std::memcpy(buffer_.get() + held_, bytes.data(), step);
    held_ += step;
    bytes.remove_prefix(step);
    if (held_ < kBufferBytes) continue;
    rocksdb::IOStatus s = WriteBuffer();
    if (!s.ok()) return s;
  }
  return rocksdb::IOStatus::OK();
}

rocksdb::IOStatus PackFile::WriteBuffer() {
  rocksdb::IOStatus s = file_->Append(rocksdb::Slice(buffer_.get(), held_), {}, nullptr);
  if (!s.ok()) return s;
  written_ += held_;
  held_ = 0;
  if (written_ - sent_ < kSendBytes) return s;
  s = file_->RangeSync(sent_, written_ - sent_, {}, nullptr);
  sent_ = written_;
  return s;
}

rocksdb::IOStatus PackFile::Finish() {
  rocksdb::IOStatus s = WriteBuffer();
  if (s.ok()) s = file_->Sync({}, nullptr);
  if (s.ok()) s = file_->Close({}, nullptr);
  return s;
}

}  // namespace modelstore::storage::rocks
