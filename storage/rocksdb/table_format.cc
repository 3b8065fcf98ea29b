#include "storage/rocksdb/table_format.h"

#include <memory>
#include <optional>

#include "storage/rocksdb/block_checksum.h"

namespace modelstore::storage::rocks {
namespace {

constexpr size_t kHandleNumberBytes = 10;

uint64_t Fixed(absl::string_view bytes) {
  uint64_t value = 0;
  for (size_t i = bytes.size(); i-- > 0;) {
    value = value << 8 | static_cast<uint8_t>(bytes[i]);
  }
  return value;
}

// Finds the handle of the properties in the metaindex, a block of restart entries only.
std::optional<BlockHandle> FindProperties(absl::string_view block) {
  if (block.size() < sizeof(uint32_t)) return std::nullopt;
  const uint64_t restarts = Fixed(block.substr(block.size() - sizeof(uint32_t)));
  if (restarts >= block.size() / sizeof(uint32_t)) return std::nullopt;
  absl::string_view in =
      block.substr(0, block.size() - (restarts + 1) * sizeof(uint32_t));
  while (!in.empty()) {
    uint64_t shared = 0, name_bytes = 0, value_bytes = 0;
    if (!TakeVarint(&in, kLengthBytes, &shared) || shared != 0 ||
        !TakeVarint(&in, kLengthBytes, &name_bytes) ||
        !TakeVarint(&in, kLengthBytes, &value_bytes) ||
        in.size() < name_bytes + value_bytes) {
      return std::nullopt;
    }
    absl::string_view value = in.substr(name_bytes, value_bytes);
    BlockHandle handle;
    if (in.substr(0, name_bytes) == kPropertiesBlock) {
      return TakeHandle(&value, &handle) ? std::optional(handle) : std::nullopt;
    }
    in.remove_prefix(name_bytes + value_bytes);
  }
  return std::nullopt;
}

}  // namespace

// Written without sums that damaged values could overflow.
bool BlockHandle::EndsAtOrBefore(uint64_t end) const {
  return end >= kBlockTrailerBytes && bytes <= end - kBlockTrailerBytes &&
         offset <= end - kBlockTrailerBytes - bytes;
}

bool TakeHandle(absl::string_view* in, BlockHandle* handle) {
  return TakeVarint(in, kHandleNumberBytes, &handle->offset) &&
         TakeVarint(in, kHandleNumberBytes, &handle->bytes);
}

rocksdb::IOStatus ReadTableAt(const rocksdb::FSRandomAccessFile& file,
                              const std::string& path, uint64_t offset, uint64_t bytes,
                              std::string* out) {
  // Callers check `bytes` against the file size: damage cannot cause a huge allocation.
  out->resize(bytes);
  rocksdb::Slice read;
  rocksdb::IOStatus s = file.Read(offset, bytes, {}, &read, out->data(), nullptr);
  if (!s.ok()) return s;
  if (read.data() != out->data()) out->assign(read.data(), read.size());
  return read.size() == bytes
             ? s
             : rocksdb::IOStatus::Corruption(path, "the table ends early");
}

bool TakeVarint(absl::string_view* in, size_t max_bytes, uint64_t* value) {
  *value = 0;
  for (size_t i = 0; i < max_bytes && i < in->size(); ++i) {
    const auto byte = static_cast<uint8_t>((*in)[i]);
    *value |= uint64_t{byte & 0x7fu} << (7 * i);
    if ((byte & 0x80) == 0) {
      in->remove_prefix(i + 1);
      return true;
    }
  }
  return false;
}

bool HasValidChecksum(absl::string_view block_with_trailer) {
  if (block_with_trailer.size() < kBlockTrailerBytes) return false;
  const size_t bytes = block_with_trailer.size() - kBlockTrailerBytes;
  const auto type = static_cast<uint8_t>(block_with_trailer[bytes]);
  return Fixed(block_with_trailer.substr(bytes + 1)) ==
         BlockChecksum::Of(block_with_trailer.substr(0, bytes), type);
}

rocksdb::IOStatus HasTableFooter(rocksdb::FileSystem* fs, const std::string& path,
                                 bool* has_footer) {
  *has_footer = false;
  uint64_t size = 0;
  rocksdb::IOStatus s = fs->GetFileSize(path, {}, &size, nullptr);
  if (!s.ok() || size < kFooterBytes) return s;
  std::unique_ptr<rocksdb::FSSequentialFile> file;
  s = fs->NewSequentialFile(path, rocksdb::FileOptions(), &file, nullptr);
  if (s.ok()) s = file->Skip(size - sizeof(kTableMagic));
  char scratch[sizeof(kTableMagic)];
  rocksdb::Slice magic;
  if (s.ok()) s = file->Read(sizeof(scratch), {}, &magic, scratch, nullptr);
  if (!s.ok()) return s;
  *has_footer = magic.size() == sizeof(scratch) &&
                Fixed(absl::string_view(magic.data(), magic.size())) == kTableMagic;
  return s;
}

rocksdb::IOStatus CheckTableEnd(const rocksdb::FSRandomAccessFile& file, uint64_t size,
                                const std::string& path) {
  TableEnd end;
  return ReadTableEnd(file, size, path, &end);
}

rocksdb::IOStatus ReadTableEnd(const rocksdb::FSRandomAccessFile& file, uint64_t size,
                               const std::string& path, TableEnd* result) {
  const auto damaged = [&path](const char* what) {
    return rocksdb::IOStatus::Corruption(path, what);
  };
  if (size < kFooterBytes) return damaged("the table is shorter than a footer");
  std::string bytes;
  rocksdb::IOStatus s =
      ReadTableAt(file, path, size - kFooterBytes, kFooterBytes, &bytes);
  if (!s.ok()) return s;
  absl::string_view footer = bytes;
  const absl::string_view end = footer.substr(kFooterBytes - kFooterEndBytes);
  if (Fixed(end.substr(sizeof(kTableFormat))) != kTableMagic) {
    return damaged("the table has no footer");
  }
  // Format 6 stores format and magic number at the same place, and RocksDB verifies its
  // footer.
  const uint64_t format = Fixed(end.substr(0, sizeof(kTableFormat)));
  result->format = static_cast<uint32_t>(format);
  if (format == kNextTableFormat) return rocksdb::IOStatus::OK();
  BlockHandle metaindex;
  const bool sound = format == kTableFormat && footer.front() == kChecksumXxh3;
  footer.remove_prefix(1);
  // The metaindex must end where the footer starts.
  if (!sound || !TakeHandle(&footer, &metaindex) ||
      !TakeHandle(&footer, &result->index) ||
      !metaindex.EndsAtOrBefore(size - kFooterBytes) ||
      metaindex.offset + metaindex.bytes + kBlockTrailerBytes != size - kFooterBytes ||
      !result->index.EndsAtOrBefore(metaindex.offset)) {
    return damaged("the table's footer is damaged");
  }
  s = ReadTableAt(file, path, metaindex.offset, metaindex.bytes + kBlockTrailerBytes,
                  &bytes);
  if (!s.ok()) return s;
  if (!HasValidChecksum(bytes)) return damaged("the table's metaindex is damaged");
  const std::optional<BlockHandle> properties =
      FindProperties(absl::string_view(bytes).substr(0, metaindex.bytes));
  if (!properties.has_value() || !properties->EndsAtOrBefore(metaindex.offset)) {
    return damaged("the table has no properties");
  }
  s = ReadTableAt(file, path, properties->offset, properties->bytes + kBlockTrailerBytes,
                  &bytes);
  if (!s.ok()) return s;
  if (!HasValidChecksum(bytes)) return damaged("the table's properties are damaged");
  result->properties = bytes.substr(0, properties->bytes);
  return s;
}

}  // namespace modelstore::storage::rocks
