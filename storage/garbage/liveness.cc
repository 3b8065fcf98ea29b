#include "storage/garbage/liveness.h"

#include <algorithm>
#include <map>
#include <utility>

#include "absl/container/flat_hash_set.h"
#include "storage/keys.h"
#include "storage/record_codec.h"
#include "storage/status_macros.h"

namespace modelstore::storage {
namespace {

using VersionKey = std::pair<std::string, int64_t>;

// One measurement, in two phases. ScanPacks() classifies each pack by its uses alone:
// used only by deleted versions (all of it waits), by one living version (the rest is
// dead), or by one that uses all of it (nothing is dead). For the other packs, Mark()
// then counts the distinct chunks of each manifest, living versions first, so that a
// chunk counts as living if any living version names it.
class Measure {
 public:
  Measure(StoreCore& core, const PackSizes& sizes, const DeadFilter& filter)
      : core_(core), sizes_(sizes), filter_(filter) {}

  absl::StatusOr<Liveness> Run(const std::optional<std::vector<uint64_t>>& packs);

 private:
  struct User {
    VersionKey version;
    int64_t used_bytes = 0;
  };
  // A pack whose users' manifests must be read to tell which chunks live.
  struct Shared {
    uint64_t host = 0;
    // Bytes of all chunks, and of the distinct ones that living, or only deleted,
    // versions name.
    int64_t total = 0;
    int64_t living = 0;
    int64_t dead = 0;
    // Sequences that are counted.
    absl::flat_hash_set<uint32_t> seen;
    // The manifest of a user cannot be read: it may name any chunk, so none counts as
    // reclaimable.
    bool unknown = false;
  };

  // Reads which versions and models are deleted.
  absl::Status ReadDead();
  absl::Status ScanPacks(const std::string& prefix);
  // Classifies the pack whose record and uses have been scanned.
  void EndPack();
  void AddTenant(int64_t waiting, int64_t reclaimable);
  bool IsDead(const VersionKey& version) const {
    return dead_.contains(version) || dead_models_.contains(version.first);
  }
  bool Counts(const VersionKey& version) const {
    return !filter_ || filter_(version.first, version.second);
  }
  // Counts the chunks of shared packs that a version's manifest names.
  absl::Status Mark(const VersionKey& version, bool living);
  // Treats every chunk of the packs that the version uses as living.
  void MarkAllLive(const VersionKey& version);

  StoreCore& core_;
  const PackSizes& sizes_;
  const DeadFilter& filter_;
  std::map<VersionKey, uint64_t> dead_;  // their manifests
  absl::flat_hash_set<std::string> dead_models_;
  // The pack that the scan has reached.
  uint64_t pack_ = 0;
  v1::PackRecord record_;
  std::vector<User> users_;

  absl::flat_hash_map<uint64_t, Shared> shared_;
  std::map<VersionKey, bool> to_mark_;  // true: living
  // For each host to which chunks were copied: bytes of the logical packs that still
  // exist there.
  absl::flat_hash_map<uint64_t, int64_t> known_bytes_;
  Liveness result_;
};

absl::Status Measure::ReadDead() {
  RETURN_IF_ERROR(core_.catalog().Scan(Space::kRecords, PrefixRange(keys::DeadModels()),
                                       [&](absl::string_view key, absl::string_view) {
                                         dead_models_.emplace(
                                             key.substr(keys::DeadModels().size()));
                                         return true;
                                       }));
  return core_.catalog().Scan(
      Space::kRecords, PrefixRange(keys::DeadCheckpoints()),
      [&](absl::string_view, absl::string_view value) {
        absl::StatusOr<v1::DeadCheckpointRecord> dead =
            Decode<v1::DeadCheckpointRecord>(value);
        if (dead.ok()) dead_[{dead->model_uid(), dead->version()}] = dead->manifest_id();
        return true;
      });
}

// Adds the current pack, with its dead bytes, to the state of its host.
void Measure::AddTenant(int64_t waiting, int64_t reclaimable) {
  const bool moved = record_.has_place();
  const uint64_t host = moved ? record_.place().pack() : pack_;
  PackState& state = result_.packs[host];
  state.chunk_bytes = moved ? record_.place().pack_bytes() : record_.chunk_bytes();
  state.waiting_bytes += waiting;
  state.reclaimable_bytes += reclaimable;
  state.logical_packs.push_back(pack_);
  state.chunk_count += record_.chunk_count();
  if (moved) known_bytes_[host] += record_.chunk_bytes();
}

void Measure::EndPack() {
  if (users_.empty()) return;
  const int64_t total = record_.chunk_bytes();
  auto size = record_.has_place() ? sizes_.end() : sizes_.find(pack_);
  const int64_t on_disk = size == sizes_.end() ? total : size->second;
  std::vector<const User*> living, dead;
  bool whole = false;
  for (const User& user : users_) {
    if (!IsDead(user.version)) {
      living.push_back(&user);
      whole = whole || user.used_bytes >= total;
    } else {
      dead.push_back(&user);
    }
  }
  const bool counted = std::any_of(
      dead.begin(), dead.end(), [&](const User* user) { return Counts(user->version); });
  if (living.empty()) {
    // Only deleted versions use it: all of it waits.
    AddTenant(counted ? on_disk : 0, 0);
  } else if (dead.empty() && living.size() == 1) {
    // One version uses it: the rest is dead.
    AddTenant(0, std::max<int64_t>(0, total - living[0]->used_bytes));
  } else {
    AddTenant(0, 0);
    // Nothing is dead if one living version uses all of it; otherwise the manifests tell.
    if (!whole) {
      Shared& shared = shared_[pack_];
      shared.host = record_.has_place() ? record_.place().pack() : pack_;
      shared.total = total;
      for (const User* user : living) to_mark_[user->version] = true;
      for (const User* user : dead) {
        if (Counts(user->version)) to_mark_[user->version] = false;
      }
    }
  }
  users_.clear();
  record_.Clear();
}

absl::Status Measure::ScanPacks(const std::string& prefix) {
  RETURN_IF_ERROR(core_.catalog().Scan(
      Space::kRecords, PrefixRange(prefix),
      [&](absl::string_view key, absl::string_view value) {
        keys::PackKey parsed = keys::ParsePackKey(key);
        // A pack's record sorts directly before its uses: the next pack begins.
        if (parsed.pack != pack_) {
          EndPack();
          pack_ = parsed.pack;
          record_.Clear();
        }
        if (parsed.uid.empty()) {
          absl::StatusOr<v1::PackRecord> record = Decode<v1::PackRecord>(value);
          if (record.ok()) record_ = *std::move(record);
        } else {
          absl::StatusOr<v1::PackUseRecord> use = Decode<v1::PackUseRecord>(value);
          users_.push_back({{std::move(parsed.uid), parsed.version},
                            use.ok() ? use->used_bytes() : 0});
        }
        return true;
      }));
  EndPack();
  return absl::OkStatus();
}

absl::Status Measure::Mark(const VersionKey& version, bool living) {
  uint64_t manifest_id = 0;
  if (living) {
    ASSIGN_OR_RETURN(const std::optional<v1::CheckpointRecord> record,
                     GetRecord<v1::CheckpointRecord>(
                         core_.catalog(), keys::Version(version.first, version.second)));
    if (!record.has_value()) return absl::OkStatus();  // deleted meanwhile
    manifest_id = record->manifest_id();
  } else {
    auto it = dead_.find(version);
    if (it == dead_.end()) return absl::OkStatus();
    manifest_id = it->second;
  }
  absl::StatusOr<std::shared_ptr<const v1::ManifestPage>> manifest =
      core_.manifests.Load(manifest_id);
  // A manifest that cannot be read keeps everything that it may name alive. Its readers
  // report the damage.
  if (absl::IsDataLoss(manifest.status()) || core_.IsReadError(manifest.status())) {
    MarkAllLive(version);
    return absl::OkStatus();
  }
  if (!manifest.ok()) return manifest.status();
  for (const v1::TensorRecord& tensor : (*manifest)->tensors()) {
    for (const v1::PieceRecord& piece : tensor.pieces()) {
      const int64_t piece_bytes = PieceBytes(tensor, piece);
      for (int i = 0; i < piece.packs_size(); ++i) {
        auto it = shared_.find(piece.packs(i));
        if (it == shared_.end() || !it->second.seen.insert(piece.sequences(i)).second) {
          continue;
        }
        (living ? it->second.living : it->second.dead) +=
            ChunkBytes(piece_bytes, piece.chunk_size_bytes(), i);
      }
    }
  }
  return absl::OkStatus();
}

void Measure::MarkAllLive(const VersionKey& version) {
  for (auto& [pack, shared] : shared_) {
    const absl::StatusOr<std::optional<std::string>> use = core_.catalog().Get(
        Space::kRecords, keys::PackUse(pack, version.first, version.second));
    shared.unknown = shared.unknown || !use.ok() || use->has_value();
  }
}

absl::StatusOr<Liveness> Measure::Run(const std::optional<std::vector<uint64_t>>& packs) {
  RETURN_IF_ERROR(ReadDead());
  if (packs.has_value()) {
    for (uint64_t pack : *packs) RETURN_IF_ERROR(ScanPacks(keys::Pack(pack)));
  } else {
    RETURN_IF_ERROR(ScanPacks(keys::Packs()));
  }
  // Living versions first: a chunk that a deleted version names too is living.
  for (bool living : {true, false}) {
    for (const auto& [version, lives] : to_mark_) {
      if (lives == living) RETURN_IF_ERROR(Mark(version, living));
    }
  }
  for (const auto& [pack, shared] : shared_) {
    PackState& state = result_.packs[shared.host];
    state.waiting_bytes += shared.dead;
    if (shared.unknown) continue;
    state.reclaimable_bytes +=
        std::max<int64_t>(0, shared.total - shared.living - shared.dead);
  }
  // Chunks that were copied for packs that no longer exist are dead.
  for (const auto& [host, known] : known_bytes_) {
    PackState& state = result_.packs[host];
    state.reclaimable_bytes += std::max<int64_t>(0, state.chunk_bytes - known);
  }
  for (const auto& [pack, state] : result_.packs) {
    result_.bytes.waiting_bytes += state.waiting_bytes;
    result_.bytes.reclaimable_bytes += state.reclaimable_bytes;
  }
  return std::move(result_);
}

}  // namespace

absl::StatusOr<PackSizes> ReadPackSizes(StoreCore& core) {
  ASSIGN_OR_RETURN(const std::vector<PackInfo> packs, core.chunks().ListPacks());
  PackSizes sizes;
  for (const PackInfo& pack : packs) sizes[pack.pack] = pack.size_bytes;
  return sizes;
}

absl::StatusOr<Liveness> MeasureLiveness(
    StoreCore& core, const PackSizes& sizes,
    const std::optional<std::vector<uint64_t>>& packs, const DeadFilter& filter) {
  return Measure(core, sizes, filter).Run(packs);
}

}  // namespace modelstore::storage
