#include "storage/garbage/copy_forward.h"

#include <algorithm>
#include <map>
#include <numeric>
#include <utility>

#include "absl/container/flat_hash_map.h"
#include "absl/strings/str_cat.h"
#include "proto/contract/digest.h"
#include "storage/keys.h"
#include "storage/random_id.h"
#include "storage/record_codec.h"
#include "storage/status_macros.h"

namespace modelstore::storage {
namespace {

// The stored format has one digest algorithm.
constexpr DigestAlgorithm kAlgorithm = DigestAlgorithm::kXxh3_128;
// Bounds the memory of a group, 20 bytes a chunk. A pack with more chunks is copied
// alone: the limits of a manifest bound it.
constexpr uint64_t kGroupChunks = uint64_t{1} << 20;
// A pack is small below this fraction of pack_bytes.
constexpr int64_t kSmallShare = 8;

using VersionKey = std::pair<std::string, int64_t>;

// At least half of the chunk bytes can be freed, so copying writes no more than it frees.
bool MostlyDead(const PackState& state) {
  return state.reclaimable_bytes > 0 && 2 * state.reclaimable_bytes >= state.chunk_bytes;
}

}  // namespace

CopyForward::CopyForward(StoreCore* core, const PackSizes* sizes,
                         const Liveness& liveness, absl::flat_hash_set<uint64_t>* stuck)
    : core_(*core), sizes_(*sizes), stuck_(*stuck) {
  Plan(liveness);
}

int64_t CopyForward::LogicalPack::needed_bytes() const {
  return std::accumulate(sizes.begin(), sizes.end(), int64_t{0});
}

void CopyForward::Plan(const Liveness& liveness) {
  // In the order of ids, so that two rounds over the same packs plan the same.
  std::map<uint64_t, const PackState*> dead, small;
  for (const auto& [pack, state] : liveness.packs) {
    if (stuck_.contains(pack)) continue;
    if (keys::IsInlinePack(pack)) {
      if (!MostlyDead(state)) continue;
      inline_.push_back(pack);
      planned_bytes_ += state.reclaimable_bytes;
      continue;
    }
    const int64_t living =
        state.chunk_bytes - state.reclaimable_bytes - state.waiting_bytes;
    auto size = sizes_.find(pack);
    // Nothing lives in it: it is dropped as a whole once nobody reads it. Or the pack is
    // lost.
    if (living <= 0 || size == sizes_.end()) continue;
    if (MostlyDead(state)) dead[pack] = &state;
    if (size->second < core_.options.pack_bytes / kSmallShare) small[pack] = &state;
  }
  std::map<uint64_t, const PackState*> sources = dead;
  // Merging pays only for many small packs: each merge writes their bytes again.
  if (small.size() >= core_.options.merge_packs) {
    sources.insert(small.begin(), small.end());
  }
  Group group;
  int64_t bytes = 0, reclaimable = 0;
  uint64_t chunks = 0;
  // Ends the current group and keeps it if it is worth copying.
  auto close = [&] {
    // One pack alone is worth copying for its dead bytes only.
    if (group.hosts.size() > 1 ||
        (group.hosts.size() == 1 && dead.contains(group.hosts.front()))) {
      planned_bytes_ += reclaimable;
      groups_.push_back(std::move(group));
    }
    group = {};
    bytes = reclaimable = 0;
    chunks = 0;
  };
  for (const auto& [pack, state] : sources) {
    // Waiting chunks are copied too: their readers may still need them.
    const int64_t kept = state->chunk_bytes - state->reclaimable_bytes;
    if (bytes + kept > core_.options.pack_bytes ||
        chunks + state->chunk_count > kGroupChunks) {
      close();
    }
    group.hosts.push_back(pack);
    group.logical_packs.insert(group.logical_packs.end(), state->logical_packs.begin(),
                               state->logical_packs.end());
    bytes += kept;
    reclaimable += state->reclaimable_bytes;
    chunks += state->chunk_count;
  }
  close();
}

bool CopyForward::LeaveOut(uint64_t host, const absl::Status& status) {
  if (absl::IsDataLoss(status)) {
    if (!stuck_.insert(host).second) return true;
    core_.Event(Listener::Severity::kWarning,
                absl::StrCat("pack ", host, " is not copied forward: ", status.message(),
                             ". Delete the checkpoints that it damages to free it"));
    return true;
  }
  if (!core_.IsReadError(status)) return false;
  if (unread_.insert(host).second) {
    core_.Event(Listener::Severity::kWarning,
                absl::StrCat("pack ", host,
                             " cannot be read and is not copied forward, "
                             "a later collection tries again: ",
                             status.message()));
  }
  return true;
}

bool CopyForward::IsLeftOut(uint64_t host) const {
  return stuck_.contains(host) || unread_.contains(host);
}

// No lock against saves is needed: a commit shares chunks only with a base that it holds,
// so a chunk that no version uses now is not used by a later one either.
absl::StatusOr<std::vector<CopyForward::LogicalPack>> CopyForward::FindNeeded(
    const Group& group) {
  const size_t length = DigestLength(kAlgorithm);
  std::vector<LogicalPack> logical_packs;
  std::map<VersionKey, std::vector<uint64_t>> users;  // and the hosts that they use
  for (uint64_t pack : group.logical_packs) {
    LogicalPack logical;
    logical.pack = pack;
    std::vector<VersionKey> own;
    RETURN_IF_ERROR(
        core_.catalog().Scan(Space::kRecords, PrefixRange(keys::Pack(pack)),
                             [&](absl::string_view key, absl::string_view value) {
                               keys::PackKey parsed = keys::ParsePackKey(key);
                               if (parsed.uid.empty()) {
                                 logical.record_bytes = std::string(value);
                               } else {
                                 own.emplace_back(std::move(parsed.uid), parsed.version);
                               }
                               return true;
                             }));
    // No version uses it.
    if (own.empty()) continue;
    ASSIGN_OR_RETURN(logical.record, Decode<v1::PackRecord>(logical.record_bytes));
    logical.host = logical.record.has_place() ? logical.record.place().pack() : pack;
    logical.sizes.resize(logical.record.chunk_count());
    logical.digests.resize(logical.record.chunk_count() * length);
    for (VersionKey& user : own) users[std::move(user)].push_back(logical.host);
    logical_packs.push_back(std::move(logical));
  }
  // A version whose manifest cannot be read keeps every pack that it uses as it is.
  for (const auto& [user, hosts] : users) {
    const absl::Status status = MarkNeeded(user.first, user.second, logical_packs);
    if (status.ok()) continue;
    for (uint64_t host : hosts) {
      if (!LeaveOut(host, status)) return status;
    }
  }
  std::erase_if(logical_packs,
                [this](const LogicalPack& logical) { return IsLeftOut(logical.host); });
  return logical_packs;
}

absl::Status CopyForward::MarkNeeded(const std::string& uid, int64_t version,
                                     std::vector<LogicalPack>& logical_packs) {
  uint64_t manifest_id = 0;
  ASSIGN_OR_RETURN(
      const std::optional<v1::CheckpointRecord> record,
      GetRecord<v1::CheckpointRecord>(core_.catalog(), keys::Version(uid, version)));
  if (record.has_value()) {
    manifest_id = record->manifest_id();
  } else {
    ASSIGN_OR_RETURN(const std::optional<v1::DeadCheckpointRecord> dead,
                     GetRecord<v1::DeadCheckpointRecord>(
                         core_.catalog(), keys::DeadCheckpoint(uid, version)));
    if (!dead.has_value()) return absl::DataLossError("a version's record is missing");
    manifest_id = dead->manifest_id();
  }
  ASSIGN_OR_RETURN(const std::shared_ptr<const v1::ManifestPage> manifest,
                   core_.manifests.Load(manifest_id));
  const size_t length = DigestLength(kAlgorithm);
  absl::flat_hash_map<uint64_t, LogicalPack*> by_pack;
  for (LogicalPack& logical : logical_packs) by_pack[logical.pack] = &logical;
  for (const v1::TensorRecord& tensor : manifest->tensors()) {
    for (const v1::PieceRecord& piece : tensor.pieces()) {
      const int64_t piece_bytes = PieceBytes(tensor, piece);
      for (int i = 0; i < piece.packs_size(); ++i) {
        auto it = by_pack.find(piece.packs(i));
        if (it == by_pack.end()) continue;
        LogicalPack& logical = *it->second;
        const uint32_t sequence = piece.sequences(i);
        if (sequence >= logical.sizes.size()) {
          return absl::DataLossError("a manifest names a chunk that its pack never had");
        }
        logical.sizes[sequence] =
            static_cast<uint32_t>(ChunkBytes(piece_bytes, piece.chunk_size_bytes(), i));
        logical.digests.replace(sequence * length, length, piece.digests(), i * length,
                                length);
      }
    }
  }
  return absl::OkStatus();
}

// The chunks of an inline pack are rows of the catalog, so the dead ones are simply
// deleted.
absl::StatusOr<int64_t> CopyForward::ShrinkInline(uint64_t pack) {
  ASSIGN_OR_RETURN(std::vector<LogicalPack> logical_packs, FindNeeded({{pack}, {pack}}));
  if (logical_packs.empty()) return 0;
  LogicalPack& logical = logical_packs.front();
  CatalogBatch batch;
  const std::string key = keys::Pack(pack);
  for (uint32_t c = 0; c < logical.sizes.size(); ++c) {
    if (logical.sizes[c] == 0) batch.Delete(Space::kChunks, keys::Chunk(pack, c));
  }
  const int64_t before = logical.record.chunk_bytes();
  logical.record.set_chunk_bytes(logical.needed_bytes());
  batch.Expect(Space::kRecords, key, logical.record_bytes);
  batch.Put(Space::kRecords, key, Encode(logical.record));
  RETURN_IF_ERROR(
      core_.WriteResolved(batch, Durability::kBuffered, StoreCore::Room::kFreesSpace,
                          core_.KeyIs(Space::kRecords, key, Encode(logical.record))));
  return before - logical.record.chunk_bytes();
}

// Keeps the distances between sequences, with Skip(), so that one shift locates every
// chunk. Each chunk is checked against its digest before it is written. Leaves out the
// host if a chunk is damaged or cannot be read.
absl::Status CopyForward::Copy(LogicalPack& logical, PackWriter& writer,
                               SpaceGrant& grant, uint32_t& next) {
  const size_t length = DigestLength(kAlgorithm);
  std::optional<uint32_t> last;
  for (uint32_t sequence = 0; sequence < logical.sizes.size(); ++sequence) {
    const uint32_t size = logical.sizes[sequence];
    if (size == 0) continue;
    if (!keep_going_()) return absl::CancelledError("the collection was stopped");
    const absl::StatusOr<PinnedBytes> bytes =
        core_.chunks().Read({logical.host, sequence + logical.record.place().shift()});
    if (absl::IsNotFound(bytes.status()) || absl::IsDataLoss(bytes.status())) {
      core_.damage.Mark({logical.pack, sequence});
    }
    absl::Status read = bytes.status();
    if (absl::IsNotFound(read)) {
      read = absl::DataLossError(absl::StrCat("chunk ", sequence, " is gone"));
    } else if (read.ok() && (bytes->view().size() != size ||
                             ComputeDigest(kAlgorithm, bytes->view()).bytes() !=
                                 absl::string_view(logical.digests)
                                     .substr(sequence * length, length))) {
      core_.damage.Mark({logical.pack, sequence});
      read = absl::DataLossError(
          absl::StrCat("chunk ", sequence, " does not match its digest"));
    }
    if (!read.ok()) {
      LeaveOut(logical.host, read);
      return read;
    }
    if (!last.has_value()) {
      // Unsigned and modulo 2^32: the first kept chunk gets the sequence `next`.
      logical.place.set_shift(next - sequence);
    } else {
      writer.Skip(sequence - *last - 1);
    }
    RETURN_IF_ERROR(grant.Take(size));
    RETURN_IF_ERROR(writer.Append(bytes->view()).status());
    last = sequence;
    next = sequence + logical.place.shift() + 1;
  }
  return absl::OkStatus();
}

absl::Status CopyForward::Switch(const std::vector<LogicalPack>& logical_packs) {
  CatalogBatch batch;
  std::string key, value;
  for (const LogicalPack& logical : logical_packs) {
    v1::PackRecord record = logical.record;
    record.set_chunk_bytes(logical.needed_bytes());
    *record.mutable_place() = logical.place;
    key = keys::Pack(logical.pack);
    value = Encode(record);
    batch.Expect(Space::kRecords, key, logical.record_bytes);
    batch.Put(Space::kRecords, key, value);
  }
  // Durable before the old packs are dropped.
  RETURN_IF_ERROR(core_.WriteResolved(batch, Durability::kDurable,
                                      StoreCore::Room::kFreesSpace,
                                      core_.KeyIs(Space::kRecords, key, value)));
  for (const LogicalPack& logical : logical_packs)
    core_.places.Moved(logical.pack, logical.place);
  return absl::OkStatus();
}

absl::StatusOr<int64_t> CopyForward::MoveGroup(const Group& group) {
  // Starts again without a pack that turns out to be damaged or unreadable; the abandoned
  // writer leaves nothing behind.
  while (true) {
    ASSIGN_OR_RETURN(std::vector<LogicalPack> logical_packs, FindNeeded(group));
    if (logical_packs.empty()) return 0;
    const uint64_t pack = RandomNumber() & ~keys::kInlinePackBit;
    const RunningIds::Entry running = core_.running_packs.Enter(pack);
    ASSIGN_OR_RETURN(std::unique_ptr<PackWriter> writer, core_.chunks().NewPack(pack));
    SpaceGrant grant(&core_.space);
    uint32_t next = 0;
    bool again = false;
    for (LogicalPack& logical : logical_packs) {
      const absl::Status status = Copy(logical, *writer, grant, next);
      if (status.ok()) continue;
      again = IsLeftOut(logical.host);
      if (!again) return status;
      break;
    }
    if (again) continue;  // without it
    const int64_t written = writer->size_bytes();
    for (LogicalPack& logical : logical_packs) {
      logical.place.set_pack(pack);
      logical.place.set_pack_bytes(written);
    }
    // If anything fails from here on, a later collection drops what is left.
    core_.garbage_possible = true;  // until the old ones are dropped
    RETURN_IF_ERROR(writer->Finish());
    RETURN_IF_ERROR(core_.chunks().Publish(std::move(writer)));
    RETURN_IF_ERROR(Switch(logical_packs));
    std::vector<uint64_t> old;
    for (const LogicalPack& logical : logical_packs) old.push_back(logical.host);
    std::sort(old.begin(), old.end());
    old.erase(std::unique(old.begin(), old.end()), old.end());
    RETURN_IF_ERROR(core_.chunks().DropPacks(old));
    ASSIGN_OR_RETURN(const PackSizes now, ReadPackSizes(core_));
    auto made = now.find(pack);
    int64_t freed = made == now.end() ? 0 : -made->second;
    for (uint64_t host : old) freed += sizes_.at(host);
    return freed;
  }
}

absl::StatusOr<int64_t> CopyForward::Run(const std::function<bool()>& keep_going) {
  keep_going_ = keep_going;
  int64_t freed = 0;
  for (uint64_t pack : inline_) {
    ASSIGN_OR_RETURN(const int64_t went, ShrinkInline(pack));
    freed += went;
  }
  for (const Group& group : groups_) {
    const absl::StatusOr<int64_t> went = MoveGroup(group);
    // No room to copy: a later collection continues.
    if (absl::IsResourceExhausted(went.status())) {
      core_.garbage_possible = true;
      break;
    }
    RETURN_IF_ERROR(went.status());
    freed += *went;
  }
  // Merging alone may take a few bytes more than it frees.
  return std::max<int64_t>(0, freed);
}

}  // namespace modelstore::storage
