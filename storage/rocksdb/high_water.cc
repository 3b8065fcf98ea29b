#include "storage/rocksdb/high_water.h"

#include <xxhash.h>

#include <algorithm>
#include <cstring>
#include <utility>

#include "storage/rocksdb/status.h"

namespace modelstore::storage::rocks {
namespace {

constexpr int kSlots = 2;
// Apart by a page, so that no write touches both.
constexpr uint64_t kSlotStride = 4096;
constexpr char kMagic[8] = {'M', 'S', 'H', 'I', 'G', 'H', 'W', '1'};
constexpr size_t kSlotBytes = sizeof(kMagic) + 2 * sizeof(uint64_t);

void PutLittle64(uint64_t value, char* out) {
  for (int i = 0; i < 8; ++i) out[i] = static_cast<char>(value >> (8 * i));
}

uint64_t GetLittle64(const char* in) {
  uint64_t value = 0;
  for (int i = 0; i < 8; ++i) value |= uint64_t{static_cast<uint8_t>(in[i])} << (8 * i);
  return value;
}

void EncodeSlot(uint64_t number, char* out) {
  std::memcpy(out, kMagic, sizeof(kMagic));
  PutLittle64(number, out + sizeof(kMagic));
  PutLittle64(XXH3_64bits(out, sizeof(kMagic) + sizeof(uint64_t)),
              out + sizeof(kMagic) + sizeof(uint64_t));
}

bool DecodeSlot(const rocksdb::Slice& slot, uint64_t* number) {
  if (slot.size() != kSlotBytes) return false;
  const uint64_t value = GetLittle64(slot.data() + sizeof(kMagic));
  char expected[kSlotBytes];
  EncodeSlot(value, expected);
  if (std::memcmp(expected, slot.data(), kSlotBytes) != 0) return false;
  *number = value;
  return true;
}

// Whole and synced, the folder's entry included.
rocksdb::IOStatus MakeFile(rocksdb::FileSystem* fs, const std::string& path) {
  std::string content((kSlots - 1) * kSlotStride + kSlotBytes, '\0');
  for (int i = 0; i < kSlots; ++i) EncodeSlot(0, content.data() + i * kSlotStride);
  rocksdb::IOStatus s = rocksdb::WriteStringToFile(fs, content, path, true);
  if (!s.ok()) return s;
  std::unique_ptr<rocksdb::FSDirectory> folder;
  s = fs->NewDirectory(path.substr(0, path.rfind('/')), {}, &folder, nullptr);
  if (s.ok()) s = folder->Fsync({}, nullptr);
  return s;
}

}  // namespace

absl::StatusOr<std::unique_ptr<HighWater>> HighWater::Open(rocksdb::FileSystem* fs,
                                                           const std::string& path) {
  std::unique_ptr<HighWater> mark(new HighWater());
  rocksdb::IOStatus s = fs->FileExists(path, {}, nullptr);
  if (s.IsNotFound()) {
    mark->created_ = true;
    s = MakeFile(fs, path);
  }
  if (s.ok()) {
    s = fs->NewRandomRWFile(path, rocksdb::FileOptions(), &mark->file_, nullptr);
  }
  if (!s.ok()) return FromRocks(s, path);
  int intact = 0;
  for (int i = 0; i < kSlots; ++i) {
    char scratch[kSlotBytes];
    rocksdb::Slice slot;
    s = mark->file_->Read(i * kSlotStride, kSlotBytes, {}, &slot, scratch, nullptr);
    if (!s.ok()) return FromRocks(s, path);
    uint64_t number = 0;
    if (!DecodeSlot(slot, &number)) continue;
    ++intact;
    mark->number_ = std::max(mark->number_, number);
  }
  mark->damaged_ = intact == 0;
  return mark;
}

absl::Status HighWater::WriteSlot(int slot, uint64_t number) {
  char bytes[kSlotBytes];
  EncodeSlot(number, bytes);
  return FromRocks(file_->Write(slot * kSlotStride, rocksdb::Slice(bytes, kSlotBytes), {},
                                nullptr),
                   "write HIGH_WATER");
}

absl::Status HighWater::Write(uint64_t number) {
  absl::Status status = WriteSlot(static_cast<int>(number % kSlots), number);
  if (status.ok()) number_ = number;
  return status;
}

absl::Status HighWater::Reset(uint64_t number) {
  for (int i = 0; i < kSlots; ++i) {
    absl::Status status = WriteSlot(i, number);
    if (!status.ok()) return status;
  }
  number_ = number;
  damaged_ = false;
  return FromRocks(file_->Sync({}, nullptr), "sync HIGH_WATER");
}

}  // namespace modelstore::storage::rocks
