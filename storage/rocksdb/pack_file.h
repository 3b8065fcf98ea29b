// The file of a pack while it is being written.
#pragma once

#include <cstdint>
#include <memory>
#include <string>

#include "absl/strings/string_view.h"
#include "rocksdb/file_system.h"

namespace modelstore::storage::rocks {

// Buffered writes through the page cache, where a load soon after the save finds the
// bytes. After an error the file must be discarded. Used by one thread at a time.
class PackFile {
 public:
  static rocksdb::IOStatus Create(rocksdb::FileSystem* fs, const std::string& path,
                                  std::unique_ptr<PackFile>* result);

  // Bytes appended.
  uint64_t size() const { return written_ + held_; }

  rocksdb::IOStatus Append(absl::string_view bytes);
  // Writes the remaining bytes, syncs and closes the file.
  rocksdb::IOStatus Finish();

 private:
  explicit PackFile(std::unique_ptr<rocksdb::FSWritableFile> file);
  rocksdb::IOStatus WriteBuffer();

  const std::unique_ptr<rocksdb::FSWritableFile> file_;
  const std::unique_ptr<char[]> buffer_;
  size_t held_ = 0;       // in the buffer
  uint64_t written_ = 0;  // given to the file
  uint64_t sent_ = 0;     // of those, handed to writeback
};

}  // namespace modelstore::storage::rocks
