#include "storage/save/chunk_intake.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "proto/contract/errors.h"
#include "proto/contract/limits.h"
#include "proto/contract/steady_time.h"
#include "storage/keys.h"
#include "storage/random_id.h"
#include "storage/status_macros.h"

namespace modelstore::storage {
namespace {

// Limit for the inline chunks of all saves together. Above it, small saves write packs
// like large ones, so that many of them cannot exhaust the memory.
constexpr int64_t kInlineBudget = int64_t{32} << 20;
// A manifest of the largest size could not name more: each digest takes 16 bytes.
constexpr size_t kMaxHeldChunks = kMaxManifestBytes / 16;
// How long Put() waits for another stream that is writing the same chunk, and how long
// Seal() and WaitUntilIdle() wait for other threads.
constexpr absl::Duration kAppendDeadline = absl::Seconds(30);
constexpr absl::Duration kSealDeadline = absl::Seconds(60);

// Random ids need no stored counter and are unique also across restarts.
uint64_t NewPackId(bool is_inline) {
  const uint64_t id = RandomNumber();
  return is_inline ? id | keys::kInlinePackBit : id & ~keys::kInlinePackBit;
}

absl::Status TimedOut() {
  return Overloaded(
      "timed out waiting for a pack write: storage is overloaded, retry later");
}

}  // namespace

ChunkIntake::Feeder::Feeder(ChunkIntake* intake) : intake_(intake) {
  MutexLock lock(intake_->mutex_);
  // The slot with fewer streams.
  slot_ = intake_->feeders_[0] <= intake_->feeders_[1] ? 0 : 1;
  ++intake_->feeders_[slot_];
}

ChunkIntake::Feeder::~Feeder() {
  MutexLock lock(intake_->mutex_);
  --intake_->feeders_[slot_];
  // An upload may stay open for days without a stream: unused space must not stay
  // reserved.
  if (intake_->feeders_[0] + intake_->feeders_[1] == 0) intake_->grant_.ReturnUnused();
}

ChunkIntake::ChunkIntake(StoreCore* core, DigestAlgorithm algorithm, PackJournal* journal)
    : core_(core), algorithm_(algorithm), journal_(journal), grant_(&core->space) {}

ChunkIntake::~ChunkIntake() {
  for (Slot& slot : slots_) {
    MutexLock lock(slot.mutex);
    if (slot.pack != nullptr) ReleaseInline(*slot.pack);
  }
}

void ChunkIntake::AddBase(std::shared_ptr<const ChunkIndex> base) {
  MutexLock lock(mutex_);
  bases_.push_back(std::move(base));
}

void ChunkIntake::Restore(const v1::SealedPackRecord& record) {
  const size_t length = DigestLength(algorithm_);
  // A record that does not hold together is ignored: its chunks are missing and are sent
  // again.
  if (record.digests().size() != length * static_cast<size_t>(record.sizes_size()))
    return;
  MutexLock lock(mutex_);
  Sealed sealed{record.pack(), 0, static_cast<uint32_t>(record.sizes_size()), {}};
  for (int i = 0; i < record.sizes_size(); ++i) {
    absl::StatusOr<Digest> digest = Digest::FromBytes(
        algorithm_, absl::string_view(record.digests()).substr(i * length, length));
    if (!digest.ok()) continue;
    held_.try_emplace(
        *digest, Held{{record.pack(), static_cast<uint32_t>(i)}, record.sizes(i), false});
    sealed.bytes += record.sizes(i);
  }
  received_bytes_ += sealed.bytes;
  sealed_.push_back(std::move(sealed));
}

// A damaged copy counts as absent, so that the new version does not depend on it.
std::optional<HeldChunk> ChunkIntake::FindInBases(const Digest& digest) const {
  for (const auto& base : bases_) {
    auto chunk = base->Find(digest);
    if (chunk.has_value() && !core_->damage.Contains(chunk->id)) return chunk;
  }
  return std::nullopt;
}

bool ChunkIntake::IsDamagedInBases(const Digest& digest) const {
  return std::any_of(bases_.begin(), bases_.end(), [&](const auto& base) {
    const auto chunk = base->Find(digest);
    return chunk.has_value() && core_->damage.Contains(chunk->id);
  });
}

bool ChunkIntake::IsDamaged(const Digest& digest) {
  if (!core_->damage.any()) return false;
  MutexLock lock(mutex_);
  return !FindInBases(digest).has_value() && IsDamagedInBases(digest);
}

std::vector<Renewal> ChunkIntake::Renewals() {
  std::vector<Renewal> renewals;
  if (!core_->damage.any()) return renewals;
  MutexLock lock(mutex_);
  for (const auto& [digest, held] : held_) {
    int64_t bytes = held.size_bytes;  // counted once
    for (const auto& base : bases_) {
      const std::optional<HeldChunk> chunk = base->Find(digest);
      if (!chunk.has_value() || !core_->damage.Contains(chunk->id)) continue;
      renewals.push_back(
          {{chunk->id, {held.id, std::string(digest.bytes())}}, std::exchange(bytes, 0)});
    }
  }
  return renewals;
}

std::optional<HeldChunk> ChunkIntake::Find(const Digest& digest) {
  MutexLock lock(mutex_);
  if (auto chunk = FindInBases(digest)) return chunk;
  auto it = held_.find(digest);
  if (it == held_.end() || it->second.pending || core_->damage.Contains(it->second.id)) {
    return std::nullopt;
  }
  return HeldChunk{it->second.id, it->second.size_bytes, it->second.bools};
}

// Returns true if the caller must append the chunk, false if it is already held. A claim
// is an entry of `held_` that is pending: a second stream with the same chunk waits for
// it rather than writing the bytes twice.
absl::StatusOr<bool> ChunkIntake::Claim(const Digest& digest, int64_t bytes) {
  MutexLock lock(mutex_);
  const absl::Time deadline = SteadyNow() + kAppendDeadline;
  while (true) {
    RETURN_IF_ERROR(refusal_);
    if (FindInBases(digest).has_value()) return false;
    auto it = held_.find(digest);
    if (it == held_.end()) break;
    if (!it->second.pending) {
      if (!core_->damage.Contains(it->second.id)) return false;
      held_.erase(it);  // damaged since a restart
      break;
    }
    // Another stream is writing the same chunk. If it fails, this stream writes it.
    const bool settled = changed_.WaitUntil(mutex_, deadline, [&]() REQUIRES(mutex_) {
      auto now = held_.find(digest);
      return now == held_.end() || !now->second.pending;
    });
    if (!settled) return TimedOut();
  }
  if (held_.size() >= kMaxHeldChunks) {
    return OverLimit("chunks", kMaxHeldChunks,
                     absl::StrCat("the save has ", held_.size(), " new chunks, at most ",
                                  kMaxHeldChunks, " are allowed: use larger ones"));
  }
  RETURN_IF_ERROR(grant_.Take(bytes));
  held_.emplace(digest, Held{{}, 0, true});
  ++pending_;
  received_bytes_ += bytes;
  return true;
}

void ChunkIntake::ReleaseClaim(const Digest& digest, int64_t bytes) {
  MutexLock lock(mutex_);
  held_.erase(digest);
  received_bytes_ -= bytes;
  --pending_;
  changed_.NotifyAll();
}

size_t ChunkIntake::ChooseSlot(const Feeder& feeder) {
  MutexLock lock(mutex_);
  // Few large packs: all streams share the first slot until its pack is large enough to
  // justify a second one. Ingesting slows with the number of packs, and each takes a file
  // descriptor.
  return received_bytes_ < core_->options.second_pack_bytes ? 0 : feeder.slot_;
}

bool ChunkIntake::IsSmall() {
  if (core_->inline_bytes >= kInlineBudget) return false;
  MutexLock lock(mutex_);
  return received_bytes_ < kSmallSaveBytes;
}

absl::StatusOr<bool> ChunkIntake::Put(Feeder& feeder, const ReceivedChunk& chunk) {
  ASSIGN_OR_RETURN(const bool claimed, Claim(chunk.digest, chunk.bytes));
  if (!claimed) return false;
  PackPtr full;
  const absl::Status status = Append(feeder, slots_[ChooseSlot(feeder)], chunk, full);
  if (!status.ok()) {
    ReleaseClaim(chunk.digest, chunk.bytes);
    return status;
  }
  // Outside of the slot's mutex: other streams open the next pack meanwhile.
  if (full != nullptr) RETURN_IF_ERROR(SealDetached(full));
  return true;
}

absl::Status ChunkIntake::Append(Feeder& feeder, Slot& slot, const ReceivedChunk& chunk,
                                 PackPtr& full) {
  MutexLock slot_lock(slot.mutex);
  RETURN_IF_ERROR(EnsurePack(slot));
  const PackPtr pack = slot.pack;
  ChunkId id{pack->record.pack(), static_cast<uint32_t>(pack->record.sizes_size())};
  if (pack->is_inline) {
    pack->inline_chunks.push_back(absl::StrJoin(chunk.fragments, ""));
    core_->inline_bytes += chunk.bytes;
  } else {
    absl::StatusOr<ChunkId> appended = pack->writer->Append(chunk.fragments);
    if (!appended.ok()) {
      // The writer is broken: the whole pack is lost, with the chunks of other streams.
      // Their Seal() reports it.
      slot.pack = nullptr;
      Forget(pack, appended.status());
      return appended.status();
    }
    id = *appended;
  }
  const absl::string_view digest = chunk.digest.bytes();
  pack->record.mutable_digests()->append(digest.data(), digest.size());
  pack->record.add_sizes(static_cast<uint32_t>(chunk.bytes));
  pack->bytes += chunk.bytes;
  if (std::find(feeder.packs_.begin(), feeder.packs_.end(), pack) ==
      feeder.packs_.end()) {
    feeder.packs_.push_back(pack);
  }
  {
    MutexLock lock(mutex_);
    held_[chunk.digest] =
        Held{id, static_cast<uint32_t>(chunk.bytes), false,
             chunk.only_bools ? HeldChunk::Bools::kOnly : HeldChunk::Bools::kNotOnly};
    --pending_;
    changed_.NotifyAll();
    // Forgets full packs that other streams have sealed meanwhile.
    std::erase_if(feeder.packs_, [](const PackPtr& fed) {
      return fed->state == IntakePack::State::kSealed;
    });
  }
  if (pack->bytes >= core_->options.pack_bytes) full = Detach(slot);
  return absl::OkStatus();
}

absl::Status ChunkIntake::EnsurePack(Slot& slot) {
  const bool small = IsSmall();
  if (slot.pack == nullptr) {
    auto pack = std::make_shared<IntakePack>();
    pack->is_inline = small;
    pack->record.set_pack(NewPackId(small));
    pack->record.set_digest_bytes(static_cast<uint32_t>(DigestLength(algorithm_)));
    if (!small) RETURN_IF_ERROR(OpenWriter(*pack));
    slot.pack = std::move(pack);
    return absl::OkStatus();
  }
  if (!slot.pack->is_inline || small) return absl::OkStatus();
  const absl::Status status = MoveOut(*slot.pack);
  if (!status.ok()) {
    Forget(slot.pack, status);
    slot.pack = nullptr;
  }
  return status;
}

absl::Status ChunkIntake::OpenWriter(IntakePack& pack) {
  pack.running = core_->running_packs.Enter(pack.record.pack());
  auto writer = core_->chunks().NewPack(pack.record.pack());
  // A fault has closed storage. Reopens it rather than failing the stream.
  if (absl::IsUnavailable(writer.status())) {
    RETURN_IF_ERROR(core_->ReopenIfClosed());
    writer = core_->chunks().NewPack(pack.record.pack());
  }
  if (!writer.ok()) return writer.status();
  pack.writer = *std::move(writer);
  return absl::OkStatus();
}

// Converts an inline pack, whose save is no longer small, to an ordinary one: writes its
// chunks to a new pack in the same order, so that sequences stay the same and only the
// pack id in `held_` changes.
absl::Status ChunkIntake::MoveOut(IntakePack& pack) {
  pack.record.set_pack(NewPackId(false));
  RETURN_IF_ERROR(OpenWriter(pack));
  for (const std::string& chunk : pack.inline_chunks) {
    ASSIGN_OR_RETURN([[maybe_unused]] const ChunkId id, pack.writer->Append(chunk));
  }
  ReleaseInline(pack);
  pack.is_inline = false;
  const size_t length = DigestLength(algorithm_);
  MutexLock lock(mutex_);
  for (int i = 0; i < pack.record.sizes_size(); ++i) {
    absl::StatusOr<Digest> digest = Digest::FromBytes(
        algorithm_, absl::string_view(pack.record.digests()).substr(i * length, length));
    if (digest.ok()) held_[*digest].id.pack = pack.record.pack();
  }
  return absl::OkStatus();
}

void ChunkIntake::ReleaseInline(IntakePack& pack) {
  for (const std::string& chunk : pack.inline_chunks) {
    core_->inline_bytes -= static_cast<int64_t>(chunk.size());
  }
  pack.inline_chunks.clear();
}

ChunkIntake::PackPtr ChunkIntake::Detach(Slot& slot) {
  PackPtr pack = std::exchange(slot.pack, nullptr);
  MutexLock lock(mutex_);
  pack->state = IntakePack::State::kSealing;
  ++sealing_;
  return pack;
}

absl::Status ChunkIntake::WriteOut(IntakePack& pack) {
  if (pack.is_inline) {
    return journal_ == nullptr ? absl::OkStatus()
                               : journal_->Record(pack.record, pack.inline_chunks);
  }
  // The order matters: synced first, then in the journal, then published. A journal entry
  // without a published pack is dropped at the next start; a published pack without a
  // journal entry would be garbage.
  RETURN_IF_ERROR(pack.writer->Finish());
  if (journal_ != nullptr) RETURN_IF_ERROR(journal_->Record(pack.record, {}));
  return core_->chunks().Publish(std::move(pack.writer));
}

// Runs without locks but for the bookkeeping at its end, as it syncs a file.
absl::Status ChunkIntake::SealDetached(const PackPtr& pack) {
  const absl::Status status = WriteOut(*pack);
  if (!status.ok()) Forget(pack, status);
  MutexLock lock(mutex_);
  --sealing_;
  if (status.ok()) {
    pack->state = IntakePack::State::kSealed;
    Sealed sealed{pack->record.pack(),
                  pack->bytes,
                  static_cast<uint32_t>(pack->record.sizes_size()),
                  {}};
    if (journal_ == nullptr) {
      // The commit writes them, and records the packs.
      sealed.inline_chunks = pack->inline_chunks;
      running_.push_back(std::move(pack->running));
    }
    sealed_.push_back(std::move(sealed));
    ReleaseInline(*pack);
    pack->running = {};
  }
  changed_.NotifyAll();
  return status;
}

// Removes the pack's chunks from the index, so that FindMissing() reports them and a
// later Put() takes them again.
void ChunkIntake::Forget(const PackPtr& pack, const absl::Status& failure) {
  const size_t length = DigestLength(algorithm_);
  {
    MutexLock lock(mutex_);
    for (int i = 0; i < pack->record.sizes_size(); ++i) {
      absl::StatusOr<Digest> digest = Digest::FromBytes(
          algorithm_,
          absl::string_view(pack->record.digests()).substr(i * length, length));
      if (!digest.ok()) continue;
      auto it = held_.find(*digest);
      // A pending entry is a claim of another stream, not a chunk of this pack.
      if (it != held_.end() && !it->second.pending) held_.erase(it);
    }
    received_bytes_ -= pack->bytes;
    pack->state = IntakePack::State::kFailed;
    pack->failure = failure;
    changed_.NotifyAll();
  }
  ReleaseInline(*pack);
  pack->writer.reset();
  pack->running = {};
  core_->garbage_possible = true;
  if (absl::IsUnavailable(failure)) {
    // Reopens storage for the client's next attempt. If that fails now, the periodic
    // ReopenIfClosed() repeats it.
    core_->ReopenIfClosed().IgnoreError();
  }
}

absl::Status ChunkIntake::Seal(Feeder& feeder) {
  for (Slot& slot : slots_) {
    PackPtr pack;
    {
      MutexLock lock(slot.mutex);
      if (std::find(feeder.packs_.begin(), feeder.packs_.end(), slot.pack) !=
          feeder.packs_.end()) {
        pack = Detach(slot);
      }
    }
    // A failure is kept in the pack and returned below.
    if (pack != nullptr) SealDetached(pack).IgnoreError();
  }
  MutexLock lock(mutex_);
  // Packs that other feeders detached are sealed by their threads.
  auto settled = [&]() REQUIRES(mutex_) {
    return std::all_of(
        feeder.packs_.begin(), feeder.packs_.end(),
        [](const PackPtr& pack) { return pack->state >= IntakePack::State::kSealed; });
  };
  if (!changed_.WaitFor(mutex_, kSealDeadline, settled)) {
    return TimedOut();
  }
  absl::Status status;
  for (const PackPtr& pack : feeder.packs_) {
    if (pack->state == IntakePack::State::kFailed) status.Update(pack->failure);
  }
  feeder.packs_.clear();
  return status;
}

absl::Status ChunkIntake::WaitUntilIdle() {
  MutexLock lock(mutex_);
  if (!changed_.WaitFor(mutex_, kSealDeadline, [this]() REQUIRES(mutex_) {
        return pending_ == 0 && sealing_ == 0;
      })) {
    return TimedOut();
  }
  return absl::OkStatus();
}

absl::Status ChunkIntake::SealAll() {
  RETURN_IF_ERROR(WaitUntilIdle());
  absl::Status status;
  for (Slot& slot : slots_) {
    PackPtr pack;
    {
      MutexLock lock(slot.mutex);
      if (slot.pack != nullptr) pack = Detach(slot);
    }
    if (pack != nullptr) status.Update(SealDetached(pack));
  }
  RETURN_IF_ERROR(status);
  return WaitUntilIdle();
}

absl::Status ChunkIntake::AbandonOpen() {
  RETURN_IF_ERROR(WaitUntilIdle());
  for (Slot& slot : slots_) {
    MutexLock lock(slot.mutex);
    if (slot.pack == nullptr) continue;
    Forget(slot.pack, absl::NotFoundError("the upload does not exist any more"));
    slot.pack = nullptr;
  }
  // A stream that closed meanwhile may have started to seal its pack.
  return WaitUntilIdle();
}

void ChunkIntake::Refuse(absl::Status reason) {
  MutexLock lock(mutex_);
  refusal_ = std::move(reason);
}

void ChunkIntake::ForgetChunks() {
  MutexLock lock(mutex_);
  // clear() would keep the table's memory.
  decltype(held_)().swap(held_);
  bases_.clear();
  grant_.ReturnUnused();
}

std::vector<ChunkIntake::Sealed> ChunkIntake::sealed() {
  MutexLock lock(mutex_);
  return sealed_;
}

int64_t ChunkIntake::received_bytes() {
  MutexLock lock(mutex_);
  return received_bytes_;
}

int64_t ChunkIntake::sealed_bytes() {
  MutexLock lock(mutex_);
  int64_t bytes = 0;
  for (const Sealed& sealed : sealed_) bytes += sealed.bytes;
  return bytes;
}

}  // namespace modelstore::storage
