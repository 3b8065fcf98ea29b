#include "storage/damage.h"

#include <algorithm>
#include <optional>
#include <utility>

#include "storage/keys.h"
#include "storage/record_codec.h"
#include "storage/status_macros.h"

namespace modelstore::storage {
namespace {

// A pack with more damaged chunks counts as damaged as a whole: bounds its row and the
// memory.
constexpr size_t kListedChunks = 1024;
// Number of chunks of a pack that are tried when one of them cannot be read.
constexpr uint32_t kTried = 8;
// Copies that are kept for a pack: also bounds its row.
constexpr size_t kCopies = 4096;

bool IsGoneOrDamaged(const absl::Status& status) {
  return absl::IsNotFound(status) || absl::IsDataLoss(status);
}

uint64_t HostOf(uint64_t pack, const v1::PackRecord& record) {
  return record.has_place() ? record.place().pack() : pack;
}

absl::StatusOr<absl::flat_hash_set<uint64_t>> ListedPacks(ChunkStore& chunks) {
  ASSIGN_OR_RETURN(const std::vector<PackInfo> packs, chunks.ListPacks());
  absl::flat_hash_set<uint64_t> listed;
  for (const PackInfo& pack : packs) listed.insert(pack.pack);
  return listed;
}

}  // namespace

void DamagedChunks::Pack::ForgetAllButUnshared() {
  sequences.clear();
  copies.clear();
  many = unreadable = lost = false;
}

absl::Status DamagedChunks::Load() {
  absl::flat_hash_map<uint64_t, Pack> found;
  CatalogBatch stale;
  RETURN_IF_ERROR(engine_.catalog->Scan(
      Space::kRecords, PrefixRange(keys::DamagedPacks()),
      [&](absl::string_view key, absl::string_view value) {
        const absl::StatusOr<v1::DamagedPackRecord> row =
            Decode<v1::DamagedPackRecord>(value);
        Pack& pack = found[keys::DamagedPackOf(key)];
        if (row.ok()) {
          pack.sequences.insert(row->sequences().begin(), row->sequences().end());
          pack.unreadable = row->unreadable();
          for (const v1::ChunkCopy& copy : row->copies()) {
            pack.copies[copy.sequence()] = {{copy.copy().pack(), copy.copy().sequence()},
                                            copy.digest()};
          }
        }
        // A damaged row still tells that some chunk of the pack is damaged: treats all of
        // them so.
        pack.many = !row.ok() || row->many();
        return true;
      }));
  for (auto it = found.begin(); it != found.end();) {
    ASSIGN_OR_RETURN(const std::optional<std::string> record,
                     engine_.catalog->Get(Space::kRecords, keys::Pack(it->first)));
    if (record.has_value()) {
      ++it;
      continue;
    }
    stale.Delete(Space::kRecords, keys::DamagedPack(it->first));
    found.erase(it++);
  }
  // If this fails, the next start finds the rows again.
  if (!stale.empty() && space_.CheckSpace(1).ok()) {
    engine_.catalog->Write(stale, Durability::kBuffered).IgnoreError();
  }
  MutexLock lock(mutex_);
  packs_ = std::move(found);
  any_ = !packs_.empty();
  return absl::OkStatus();
}

absl::Status DamagedChunks::FindLostPacks() {
  absl::flat_hash_map<uint64_t, uint64_t> named;  // to their hosts
  RETURN_IF_ERROR(
      ScanPackRecords(*engine_.catalog, [&](uint64_t pack, const v1::PackRecord& record) {
        if (!keys::IsInlinePack(pack)) named[pack] = HostOf(pack, record);
      }));
  ASSIGN_OR_RETURN(absl::flat_hash_set<uint64_t> listed, ListedPacks(*engine_.chunks));
  absl::flat_hash_set<uint64_t> lost;
  for (const auto& [pack, host] : named) {
    if (!listed.contains(host)) lost.insert(pack);
  }
  // Looks again: some may have been copied elsewhere, or dropped, since the records were
  // read.
  if (!lost.empty()) {
    ASSIGN_OR_RETURN(listed, ListedPacks(*engine_.chunks));
  }
  std::vector<uint64_t> gone;
  for (uint64_t pack : lost) {
    ASSIGN_OR_RETURN(const std::optional<v1::PackRecord> record,
                     GetRecord<v1::PackRecord>(*engine_.catalog, keys::Pack(pack)));
    if (record.has_value() && !listed.contains(HostOf(pack, *record))) {
      gone.push_back(pack);
    }
  }
  MutexLock lock(mutex_);
  for (auto& [id, pack] : packs_) pack.lost = false;
  for (uint64_t pack : gone) packs_[pack].lost = true;
  absl::erase_if(packs_, [](const auto& entry) { return !entry.second.known(); });
  any_ = !packs_.empty();
  return absl::OkStatus();
}

std::vector<uint64_t> DamagedChunks::UnreadableWith(ChunkId chunk) {
  const std::vector<uint64_t> none;
  if (keys::IsInlinePack(chunk.pack)) return none;
  const absl::StatusOr<std::optional<v1::PackRecord>> record =
      GetRecord<v1::PackRecord>(*engine_.catalog, keys::Pack(chunk.pack));
  if (!record.ok() || !record->has_value()) return none;
  const uint64_t host = HostOf(chunk.pack, **record);
  const absl::StatusOr<absl::flat_hash_set<uint64_t>> listed =
      ListedPacks(*engine_.chunks);
  if (!listed.ok()) return none;
  bool damaged = !listed->contains(host);
  if (!damaged) {
    // Tries about kTried chunks, evenly spread. Sequences may have gaps, which read as
    // NOT_FOUND without any damage, so at least one read must return DATA_LOSS.
    const uint32_t count = std::max<uint32_t>((*record)->chunk_count(), 1);
    const uint32_t step = std::max<uint32_t>(count / kTried, 1);
    for (uint32_t sequence = 0; sequence < count; sequence += step) {
      const absl::Status tried = places_.Read({chunk.pack, sequence}).status();
      if (!IsGoneOrDamaged(tried)) return none;
      damaged = damaged || absl::IsDataLoss(tried);
    }
  }
  if (!damaged) return none;
  std::vector<uint64_t> packs;
  const absl::Status scanned =
      ScanPackRecords(*engine_.catalog, [&](uint64_t pack, const v1::PackRecord& other) {
        if (HostOf(pack, other) == host) packs.push_back(pack);
      });
  return scanned.ok() ? packs : none;
}

void DamagedChunks::Mark(ChunkId chunk) {
  if (IsSettled(chunk)) return;
  // A chunk that is readable but does not match its digest says nothing about the rest of
  // the pack. The reads are done without the lock.
  const bool unread = IsGoneOrDamaged(places_.Read(chunk).status());
  const std::vector<uint64_t> unreadable =
      unread ? UnreadableWith(chunk) : std::vector<uint64_t>();
  {
    MutexLock lock(mutex_);
    for (uint64_t pack : unreadable) {
      packs_[pack].unreadable = true;
      unwritten_.insert(pack);
    }
    Pack& pack = packs_[chunk.pack];
    pack.sequences.insert(chunk.sequence);
    if (pack.sequences.size() > kListedChunks) {
      pack.many = true;
      pack.sequences.clear();
    }
    unwritten_.insert(chunk.pack);
    any_ = true;
  }
  Persist();
}

void DamagedChunks::Clear(ChunkId chunk) {
  if (!any()) return;
  {
    MutexLock lock(mutex_);
    auto it = packs_.find(chunk.pack);
    if (it == packs_.end()) return;
    Pack& pack = it->second;
    const bool was_written = pack.written();
    const bool was_unreadable = std::exchange(pack.unreadable, false);
    const bool was_lost = std::exchange(pack.lost, false);
    const bool was_listed = pack.sequences.erase(chunk.sequence) > 0;
    // One good read refutes the verdict about the whole pack. Copies of chunks that no
    // longer count as damaged are not needed.
    if (was_unreadable || was_lost || was_listed) {
      std::erase_if(pack.copies,
                    [&](const auto& copy) { return !pack.counts(copy.first); });
    }
    if (was_written && (was_unreadable || was_listed)) unwritten_.insert(chunk.pack);
    if (!pack.known()) packs_.erase(it);
    any_ = !packs_.empty();
  }
  Persist();
}

void DamagedChunks::Forget(uint64_t pack) {
  if (!any()) return;
  MutexLock lock(mutex_);
  unwritten_.erase(pack);
  auto it = packs_.find(pack);
  if (it == packs_.end()) return;
  it->second.ForgetAllButUnshared();
  if (!it->second.known()) packs_.erase(it);
  any_ = !packs_.empty();
}

void DamagedChunks::AddCopies(const std::vector<NewCopy>& copies) {
  if (copies.empty()) return;
  {
    MutexLock lock(mutex_);
    for (const NewCopy& added : copies) {
      auto it = packs_.find(added.damaged.pack);
      // Skips chunks that were found intact meanwhile or whose pack is gone.
      if (it == packs_.end() || it->second.copies.size() >= kCopies) continue;
      Pack& pack = it->second;
      if (!pack.counts(added.damaged.sequence)) continue;
      pack.copies[added.damaged.sequence] = added.copy;
      unwritten_.insert(added.damaged.pack);
    }
  }
  Persist();
}

std::map<uint64_t, std::map<uint32_t, DamagedChunks::Copy>> DamagedChunks::BeginRepair() {
  std::map<uint64_t, std::map<uint32_t, Copy>> copies;
  if (!any()) return copies;
  MutexLock lock(mutex_);
  for (auto& [id, pack] : packs_) {
    for (const auto& [sequence, copy] : pack.copies) {
      if (!pack.counts(sequence)) continue;
      copies[id].emplace(sequence, copy);
      pack.unshared.insert(sequence);
    }
  }
  return copies;
}

std::vector<uint32_t> DamagedChunks::TakeCopies(uint64_t id,
                                                const std::map<uint32_t, Copy>& copies) {
  std::vector<uint32_t> taken;
  auto pack = packs_.find(id);
  if (pack == packs_.end()) return taken;
  for (const auto& [sequence, copy] : copies) {
    auto it = pack->second.copies.find(sequence);
    // A later save may have replaced the copy meanwhile: that one is not verified yet.
    if (it == pack->second.copies.end() || it->second != copy) continue;
    pack->second.copies.erase(it);
    taken.push_back(sequence);
  }
  if (!taken.empty()) unwritten_.insert(id);
  return taken;
}

void DamagedChunks::Repaired(uint64_t id, const std::map<uint32_t, Copy>& copies,
                             bool pack_is_gone) {
  {
    MutexLock lock(mutex_);
    for (uint32_t sequence : TakeCopies(id, copies)) {
      Pack& pack = packs_[id];
      pack.sequences.erase(sequence);
      pack.repaired.insert(sequence);
    }
    auto it = packs_.find(id);
    if (pack_is_gone && it != packs_.end()) {
      it->second.ForgetAllButUnshared();
    }
  }
  Persist();
}

void DamagedChunks::DropCopies(uint64_t id, const std::map<uint32_t, Copy>& copies) {
  {
    MutexLock lock(mutex_);
    TakeCopies(id, copies);
  }
  Persist();
}

bool DamagedChunks::IsSettled(ChunkId chunk) const {
  if (!any()) return false;
  MutexLock lock(mutex_);
  auto it = packs_.find(chunk.pack);
  return it != packs_.end() && (it->second.counts(chunk.sequence) ||
                                it->second.repaired.contains(chunk.sequence));
}

bool DamagedChunks::Contains(ChunkId chunk) const {
  if (!any()) return false;
  MutexLock lock(mutex_);
  auto it = packs_.find(chunk.pack);
  return it != packs_.end() && (it->second.counts(chunk.sequence) ||
                                it->second.unshared.contains(chunk.sequence));
}

absl::StatusOr<int64_t> DamagedChunks::Count() const {
  if (!any()) return 0;
  int64_t count = 0;
  std::vector<uint64_t> whole;
  {
    MutexLock lock(mutex_);
    for (const auto& [id, pack] : packs_) {
      if (pack.whole()) {
        whole.push_back(id);
      } else {
        count += static_cast<int64_t>(pack.sequences.size());
      }
    }
  }
  for (uint64_t pack : whole) {
    ASSIGN_OR_RETURN(const std::optional<v1::PackRecord> record,
                     GetRecord<v1::PackRecord>(*engine_.catalog, keys::Pack(pack)));
    if (record.has_value()) count += record->chunk_count();
  }
  return count;
}

std::string DamagedChunks::Row(const Pack& pack) const {
  v1::DamagedPackRecord row;
  row.mutable_sequences()->Add(pack.sequences.begin(), pack.sequences.end());
  std::sort(row.mutable_sequences()->begin(), row.mutable_sequences()->end());
  row.set_many(pack.many);
  row.set_unreadable(pack.unreadable);
  for (const auto& [sequence, copy] : pack.copies) {
    v1::ChunkCopy& added = *row.add_copies();
    added.set_sequence(sequence);
    added.mutable_copy()->set_pack(copy.place.pack);
    added.mutable_copy()->set_sequence(copy.place.sequence);
    added.set_digest(copy.digest);
  }
  return Encode(row);
}

// One thread writes at a time, and repeats until no changed rows are left, including
// those that others change meanwhile. So no caller waits for another's write, and rows
// are written in order.
void DamagedChunks::Persist() {
  MutexLock lock(mutex_);
  if (writing_) return;
  writing_ = true;
  bool ok = true;
  while (ok && !unwritten_.empty()) {
    // Without the lock, which every read of a chunk takes while there is damage: this may
    // query the disk.
    lock.Unlock();
    const bool room = space_.CheckSpace(1).ok();
    lock.Lock();
    if (!room || unwritten_.empty()) break;
    absl::flat_hash_set<uint64_t> packs;
    packs.swap(unwritten_);
    CatalogBatch batch;
    for (uint64_t id : packs) {
      auto it = packs_.find(id);
      if (it != packs_.end() && it->second.written()) {
        batch.Put(Space::kRecords, keys::DamagedPack(id), Row(it->second));
      } else {
        batch.Delete(Space::kRecords, keys::DamagedPack(id));
      }
    }
    lock.Unlock();
    ok = engine_.catalog->Write(batch, Durability::kDurable).ok();
    lock.Lock();
    // After a failure the rows stay marked, for a later call.
    if (!ok) unwritten_.insert(packs.begin(), packs.end());
  }
  writing_ = false;
}

}  // namespace modelstore::storage
