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

// Every digest of this format is of the one algorithm that there is.
constexpr DigestAlgorithm kAlgorithm = DigestAlgorithm::kXxh3_128;
// Bounds what a round keeps in memory, 20 bytes a chunk. One pack that has more is
// copied alone: the limits of a manifest bound it.
constexpr uint64_t kGroupChunks = uint64_t{1} << 20;
constexpr int64_t kSmallShare = 8;

using VersionKey = std::pair<std::string, int64_t>;

bool MostlyDead(const PackState& state) {
  return state.reclaimable_bytes > 0 && 2 * state.reclaimable_bytes >= state.chunk_bytes;
}

}  // namespace

CopyForward::CopyForward(StoreCore* core, const PackSizes* sizes,
                         const Liveness& liveness, absl::flat_hash_set<uint64_t>* stuck)
    : core_(*core), sizes_(*sizes), stuck_(*stuck) {
  Plan(liveness);
}

int64_t CopyForward::Tenant::needed_bytes() const {
  return std::accumulate(sizes.begin(), sizes.end(), int64_t{0});
}

void CopyForward::Plan(const Liveness& liveness) {
  // In order of their ids, so that two rounds over the same packs do the same.
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
    // Dropped as a whole once nobody reads it; or lost.
    if (living <= 0 || size == sizes_.end()) continue;
    if (MostlyDead(state)) dead[pack] = &state;
    if (size->second < core_.options.pack_bytes / kSmallShare) small[pack] = &state;
  }
  std::map<uint64_t, const PackState*> sources = dead;
  if (small.size() >= core_.options.merge_packs) {
    sources.insert(small.begin(), small.end());
  }
  Group group;
  int64_t bytes = 0, reclaimable = 0;
  uint64_t chunks = 0;
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
    const int64_t kept = state->chunk_bytes - state->reclaimable_bytes;
    if (bytes + kept > core_.options.pack_bytes ||
        chunks + state->chunk_count > kGroupChunks) {
      close();
    }
    group.hosts.push_back(pack);
    group.tenants.insert(group.tenants.end(), state->tenants.begin(),
                         state->tenants.end());
    bytes += kept;
    reclaimable += state->reclaimable_bytes;
    chunks += state->chunk_count;
  }
  close();
}

void CopyForward::GiveUpOn(uint64_t host, absl::string_view why) {
  if (!stuck_.insert(host).second) return;
  core_.Event(Listener::Severity::kWarning,
              absl::StrCat("pack ", host, " is not copied forward: ", why,
                           ". Delete the checkpoints that it damages to free it"));
}

// A later commit uses no chunk of these packs that no version uses now: it shares chunks
// only with its base, which it holds.
absl::StatusOr<std::vector<CopyForward::Tenant>> CopyForward::FindNeeded(
    const Group& group) {
  const size_t length = DigestLength(kAlgorithm);
  std::vector<Tenant> tenants;
  std::map<VersionKey, std::vector<uint64_t>> users;  // and the hosts that they use
  for (uint64_t pack : group.tenants) {
    Tenant tenant;
    tenant.pack = pack;
    std::vector<VersionKey> own;
    RETURN_IF_ERROR(
        core_.catalog().Scan(Space::kRecords, PrefixRange(keys::Pack(pack)),
                             [&](absl::string_view key, absl::string_view value) {
                               keys::PackKey parsed = keys::ParsePackKey(key);
                               if (parsed.uid.empty()) {
                                 tenant.record_bytes = std::string(value);
                               } else {
                                 own.emplace_back(std::move(parsed.uid), parsed.version);
                               }
                               return true;
                             }));
    if (own.empty()) continue;
    ASSIGN_OR_RETURN(tenant.record, Decode<v1::PackRecord>(tenant.record_bytes));
    tenant.host = tenant.record.has_place() ? tenant.record.place().pack() : pack;
    tenant.sizes.resize(tenant.record.chunk_count());
    tenant.digests.resize(tenant.record.chunk_count() * length);
    for (VersionKey& user : own) users[std::move(user)].push_back(tenant.host);
    tenants.push_back(std::move(tenant));
  }
  for (const auto& [user, hosts] : users) {
    const absl::Status status = MarkNeeded(user.first, user.second, tenants);
    if (!absl::IsDataLoss(status)) {
      RETURN_IF_ERROR(status);
      continue;
    }
    for (uint64_t host : hosts) GiveUpOn(host, status.message());
  }
  std::erase_if(tenants,
                [this](const Tenant& tenant) { return stuck_.contains(tenant.host); });
  return tenants;
}

absl::Status CopyForward::MarkNeeded(const std::string& uid, int64_t version,
                                     std::vector<Tenant>& tenants) {
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
  absl::flat_hash_map<uint64_t, Tenant*> by_pack;
  for (Tenant& tenant : tenants) by_pack[tenant.pack] = &tenant;
  for (const v1::TensorRecord& tensor : manifest->tensors()) {
    for (const v1::PieceRecord& piece : tensor.pieces()) {
      const int64_t piece_bytes = PieceBytes(tensor, piece);
      for (int i = 0; i < piece.packs_size(); ++i) {
        auto it = by_pack.find(piece.packs(i));
        if (it == by_pack.end()) continue;
        Tenant& tenant = *it->second;
        const uint32_t sequence = piece.sequences(i);
        if (sequence >= tenant.sizes.size()) {
          return absl::DataLossError("a manifest names a chunk that its pack never had");
        }
        tenant.sizes[sequence] =
            static_cast<uint32_t>(ChunkBytes(piece_bytes, piece.chunk_size_bytes(), i));
        tenant.digests.replace(sequence * length, length, piece.digests(), i * length,
                               length);
      }
    }
  }
  return absl::OkStatus();
}

// The chunks of an inline pack are rows of the catalog: the dead ones are deleted.
absl::StatusOr<int64_t> CopyForward::ShrinkInline(uint64_t pack) {
  ASSIGN_OR_RETURN(std::vector<Tenant> tenants, FindNeeded({{pack}, {pack}}));
  if (tenants.empty()) return 0;
  Tenant& tenant = tenants.front();
  CatalogBatch batch;
  const std::string key = keys::Pack(pack);
  for (uint32_t c = 0; c < tenant.sizes.size(); ++c) {
    if (tenant.sizes[c] == 0) batch.Delete(Space::kChunks, keys::Chunk(pack, c));
  }
  const int64_t before = tenant.record.chunk_bytes();
  tenant.record.set_chunk_bytes(tenant.needed_bytes());
  batch.Expect(Space::kRecords, key, tenant.record_bytes);
  batch.Put(Space::kRecords, key, Encode(tenant.record));
  RETURN_IF_ERROR(
      core_.WriteSettled(batch, Durability::kBuffered, StoreCore::Room::kFreesSpace,
                         core_.KeyIs(Space::kRecords, key, Encode(tenant.record))));
  return before - tenant.record.chunk_bytes();
}

// DATA_LOSS if one of the chunks is damaged.
absl::Status CopyForward::Copy(Tenant& tenant, PackWriter& writer, SpaceGrant& grant,
                               uint32_t& next) {
  const size_t length = DigestLength(kAlgorithm);
  std::optional<uint32_t> last;
  for (uint32_t sequence = 0; sequence < tenant.sizes.size(); ++sequence) {
    const uint32_t size = tenant.sizes[sequence];
    if (size == 0) continue;
    if (!go_on_()) return absl::CancelledError("the collection was stopped");
    const absl::StatusOr<PinnedBytes> bytes =
        core_.chunks().Read({tenant.host, sequence + tenant.record.place().shift()});
    if (absl::IsNotFound(bytes.status()) || absl::IsDataLoss(bytes.status())) {
      core_.damage.Mark({tenant.pack, sequence});
    }
    if (absl::IsNotFound(bytes.status())) {
      return absl::DataLossError(absl::StrCat("chunk ", sequence, " is gone"));
    }
    RETURN_IF_ERROR(bytes.status());
    if (bytes->view().size() != size ||
        ComputeDigest(kAlgorithm, bytes->view()).bytes() !=
            absl::string_view(tenant.digests).substr(sequence * length, length)) {
      core_.damage.Mark({tenant.pack, sequence});
      return absl::DataLossError(
          absl::StrCat("chunk ", sequence, " does not match its digest"));
    }
    if (!last.has_value()) {
      tenant.place.set_shift(next - sequence);
    } else {
      writer.Skip(sequence - *last - 1);
    }
    RETURN_IF_ERROR(grant.Take(size));
    RETURN_IF_ERROR(writer.Append(bytes->view()).status());
    last = sequence;
    next = sequence + tenant.place.shift() + 1;
  }
  return absl::OkStatus();
}

absl::Status CopyForward::Switch(const std::vector<Tenant>& tenants) {
  CatalogBatch batch;
  std::string key, value;
  for (const Tenant& tenant : tenants) {
    v1::PackRecord record = tenant.record;
    record.set_chunk_bytes(tenant.needed_bytes());
    *record.mutable_place() = tenant.place;
    key = keys::Pack(tenant.pack);
    value = Encode(record);
    batch.Expect(Space::kRecords, key, tenant.record_bytes);
    batch.Put(Space::kRecords, key, value);
  }
  // Durably, before the old packs go.
  RETURN_IF_ERROR(core_.WriteSettled(batch, Durability::kDurable,
                                     StoreCore::Room::kFreesSpace,
                                     core_.KeyIs(Space::kRecords, key, value)));
  for (const Tenant& tenant : tenants) core_.places.Moved(tenant.pack, tenant.place);
  return absl::OkStatus();
}

absl::StatusOr<int64_t> CopyForward::MoveGroup(const Group& group) {
  while (true) {
    ASSIGN_OR_RETURN(std::vector<Tenant> tenants, FindNeeded(group));
    if (tenants.empty()) return 0;
    const uint64_t pack = RandomNumber() & ~keys::kInlinePackBit;
    const RunningIds::Entry running = core_.running_packs.Enter(pack);
    ASSIGN_OR_RETURN(std::unique_ptr<PackWriter> writer, core_.chunks().NewPack(pack));
    SpaceGrant grant(&core_.space);
    uint32_t next = 0;
    absl::Status status;
    for (Tenant& tenant : tenants) {
      status = Copy(tenant, *writer, grant, next);
      if (absl::IsDataLoss(status)) GiveUpOn(tenant.host, status.message());
      if (!status.ok()) break;
    }
    if (absl::IsDataLoss(status)) continue;  // without it
    RETURN_IF_ERROR(status);
    const int64_t written = writer->size_bytes();
    for (Tenant& tenant : tenants) {
      tenant.place.set_pack(pack);
      tenant.place.set_pack_bytes(written);
    }
    core_.garbage_possible = true;  // until the old ones are dropped
    RETURN_IF_ERROR(writer->Finish());
    RETURN_IF_ERROR(core_.chunks().Publish(std::move(writer)));
    RETURN_IF_ERROR(Switch(tenants));
    std::vector<uint64_t> old;
    for (const Tenant& tenant : tenants) old.push_back(tenant.host);
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

absl::StatusOr<int64_t> CopyForward::Run(const std::function<bool()>& go_on) {
  go_on_ = go_on;
  int64_t freed = 0;
  for (uint64_t pack : inline_) {
    ASSIGN_OR_RETURN(const int64_t went, ShrinkInline(pack));
    freed += went;
  }
  for (const Group& group : groups_) {
    const absl::StatusOr<int64_t> went = MoveGroup(group);
    if (absl::IsResourceExhausted(went.status())) {
      core_.garbage_possible = true;
      break;
    }
    RETURN_IF_ERROR(went.status());
    freed += *went;
  }
  // Merging may cost a few bytes.
  return std::max<int64_t>(0, freed);
}

}  // namespace modelstore::storage
