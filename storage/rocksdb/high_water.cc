#include "storage/rocksdb/high_water.h"

#include <xxhash.h>

#include <algorithm>
#include <cstring>
#include <utility>

#include "absl/strings/str_cat.h"
#include "storage/rocksdb/folder.h"
#include "storage/rocksdb/status.h"

namespace modelstore::storage::rocks {
namespace {

constexpr int kSlots = 2;
// One page each, so that no write touches both.
constexpr size_t kSlotBytes = 4096;
constexpr absl::string_view kMagic = "MSHIGHW1";
constexpr size_t kMaxJournals = 64;
constexpr size_t kMaxName = 24;

void AppendLittle64(uint64_t value, std::string* out) {
  for (int i = 0; i < 8; ++i) out->push_back(static_cast<char>(value >> (8 * i)));
}

// Takes eight bytes from the front of `in`. False if it has fewer.
bool TakeLittle64(absl::string_view* in, uint64_t* value) {
  if (in->size() < 8) return false;
  *value = 0;
  for (int i = 0; i < 8; ++i) {
    *value |= uint64_t{static_cast<uint8_t>((*in)[i])} << (8 * i);
  }
  in->remove_prefix(8);
  return true;
}

}  // namespace

std::string HighWater::Encode(const Slot& slot) {
  std::string out(kMagic);
  AppendLittle64(slot.turn, &out);
  AppendLittle64(slot.number, &out);
  // The newest journals matter most.
  const size_t count = std::min(slot.journals.size(), kMaxJournals);
  AppendLittle64(count, &out);
  for (size_t i = slot.journals.size() - count; i < slot.journals.size(); ++i) {
    std::string name = slot.journals[i].name;
    name.resize(kMaxName, '\0');
    out += name;
    AppendLittle64(static_cast<uint64_t>(slot.journals[i].bytes), &out);
    AppendLittle64(slot.journals[i].hash, &out);
  }
  AppendLittle64(XXH3_64bits(out.data(), out.size()), &out);
  return out;
}

bool HighWater::Decode(const rocksdb::Slice& bytes, Slot* slot) {
  absl::string_view in(bytes.data(), bytes.size());
  if (in.substr(0, kMagic.size()) != kMagic) return false;
  in.remove_prefix(kMagic.size());
  uint64_t count = 0;
  if (!TakeLittle64(&in, &slot->turn) || !TakeLittle64(&in, &slot->number) ||
      !TakeLittle64(&in, &count) || count > kMaxJournals) {
    return false;
  }
  for (uint64_t i = 0; i < count; ++i) {
    if (in.size() < kMaxName) return false;
    SyncedJournal journal;
    journal.name = std::string(in.substr(0, std::min(in.find('\0'), kMaxName)));
    in.remove_prefix(kMaxName);
    uint64_t size = 0;
    if (!TakeLittle64(&in, &size) || !TakeLittle64(&in, &journal.hash)) return false;
    journal.bytes = static_cast<int64_t>(size);
    slot->journals.push_back(std::move(journal));
  }
  // The checksum covers everything before it, including the magic.
  const size_t covered = bytes.size() - in.size();
  uint64_t hash = 0;
  return TakeLittle64(&in, &hash) && hash == XXH3_64bits(bytes.data(), covered);
}

// Writes and syncs the file, and syncs the folder.
rocksdb::IOStatus HighWater::MakeFile(rocksdb::FileSystem* fs, const std::string& path) {
  std::string content;
  for (int i = 0; i < kSlots; ++i) {
    content += Encode(Slot());
    content.resize((i + 1) * kSlotBytes, '\0');
  }
  rocksdb::IOStatus s =
      rocksdb::WriteStringToFile(fs, content, path, /*should_sync=*/true);
  if (s.ok()) s = SyncFolder(fs, path.substr(0, path.rfind('/')));
  return s;
}

absl::StatusOr<std::unique_ptr<HighWater>> HighWater::Open(rocksdb::FileSystem* fs,
                                                           const std::string& path) {
  std::unique_ptr<HighWater> mark(new HighWater());
  MutexLock lock(mark->mutex_);
  rocksdb::IOStatus s = fs->FileExists(path, {}, nullptr);
  if (s.IsNotFound()) {
    mark->created_ = true;
    s = MakeFile(fs, path);
  }
  if (s.ok()) {
    s = fs->NewRandomRWFile(path, rocksdb::FileOptions(), &mark->file_, nullptr);
  }
  if (!s.ok()) return FromRocks(s, path);
  // The valid slot with the higher turn wins. One damaged slot is normal after a power
  // loss.
  bool intact = false;
  for (size_t i = 0; i < kSlots; ++i) {
    std::string scratch(kSlotBytes, '\0');
    rocksdb::Slice bytes;
    s = mark->file_->Read(i * kSlotBytes, kSlotBytes, {}, &bytes, scratch.data(),
                          nullptr);
    if (!s.ok()) return FromRocks(s, path);
    Slot slot;
    if (!Decode(bytes, &slot)) continue;
    if (!intact || slot.turn > mark->slot_.turn) mark->slot_ = std::move(slot);
    intact = true;
  }
  mark->damaged_ = !intact;
  return mark;
}

uint64_t HighWater::number() const {
  MutexLock lock(mutex_);
  return slot_.number;
}

std::vector<SyncedJournal> HighWater::journals() const {
  MutexLock lock(mutex_);
  return slot_.journals;
}

bool HighWater::damaged() const {
  MutexLock lock(mutex_);
  return damaged_;
}

// Overwrites the older slot. The newer one stays valid if this write is torn. Not synced:
// the caller has already synced what the slot describes.
absl::Status HighWater::WriteNext(uint64_t number,
                                  const std::vector<SyncedJournal>& journals) {
  Slot next{slot_.turn + 1, number, journals};
  const rocksdb::IOStatus s =
      file_->Write((next.turn % kSlots) * kSlotBytes, Encode(next), {}, nullptr);
  if (!s.ok()) return FromRocks(s, "write HIGH_WATER");
  slot_ = std::move(next);
  return absl::OkStatus();
}

absl::Status HighWater::Write(uint64_t number,
                              const std::vector<SyncedJournal>& journals) {
  MutexLock lock(mutex_);
  return WriteNext(number, journals);
}

absl::Status HighWater::Note(const std::vector<SyncedJournal>& journals) {
  MutexLock lock(mutex_);
  return WriteNext(slot_.number, journals);
}

absl::Status HighWater::Sync() {
  MutexLock lock(mutex_);
  return FromRocks(file_->Sync({}, nullptr), "sync HIGH_WATER");
}

absl::Status HighWater::Reset(uint64_t number) {
  MutexLock lock(mutex_);
  // Both slots, as an older one with a higher number would win after damage to the newer
  // one.
  for (int i = 0; i < kSlots; ++i) {
    absl::Status status = WriteNext(number, {});
    if (!status.ok()) return status;
  }
  damaged_ = false;
  return FromRocks(file_->Sync({}, nullptr), "sync HIGH_WATER");
}

}  // namespace modelstore::storage::rocks
