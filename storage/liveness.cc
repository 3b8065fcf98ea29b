#include "storage/liveness.h"

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

class Measure {
 public:
  Measure(StoreCore& core, const PackSizes& sizes, const DeadFilter& filter)
      : core_(core), sizes_(sizes), filter_(filter) {}

  absl::StatusOr<DeadBytes> Run(const std::optional<std::vector<uint64_t>>& packs);

 private:
  struct User {
    VersionKey version;
    int64_t used_bytes = 0;
  };
  // A pack whose manifests must be looked at chunk by chunk.
  struct Shared {
    int64_t total = 0;
    int64_t living = 0;
    int64_t dead = 0;
    absl::flat_hash_set<uint32_t> seen;
  };

  absl::Status ReadDead();
  absl::Status ScanPacks(const std::string& prefix);
  void EndPack();
  bool IsDead(const VersionKey& version) const {
    return dead_.contains(version) || dead_models_.contains(version.first);
  }
  bool Counts(const VersionKey& version) const {
    return !filter_ || filter_(version.first, version.second);
  }
  absl::Status Mark(const VersionKey& version, bool living);

  StoreCore& core_;
  const PackSizes& sizes_;
  const DeadFilter& filter_;
  std::map<VersionKey, uint64_t> dead_;  // their manifests
  absl::flat_hash_set<std::string> dead_models_;
  // The pack that the scan is at.
  uint64_t pack_ = 0;
  int64_t total_ = 0;
  std::vector<User> users_;

  absl::flat_hash_map<uint64_t, Shared> shared_;
  std::map<VersionKey, bool> to_mark_;  // true: living
  DeadBytes result_;
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

void Measure::EndPack() {
  if (users_.empty()) return;
  auto size = sizes_.find(pack_);
  const int64_t on_disk = size == sizes_.end() ? total_ : size->second;
  std::vector<const User*> living, dead;
  bool whole = false;
  for (const User& user : users_) {
    if (!IsDead(user.version)) {
      living.push_back(&user);
      whole = whole || user.used_bytes >= total_;
    } else {
      dead.push_back(&user);
    }
  }
  const bool counted = std::any_of(
      dead.begin(), dead.end(), [&](const User* user) { return Counts(user->version); });
  if (living.empty()) {
    if (counted) result_.waiting_bytes += on_disk;
  } else if (dead.empty() && living.size() == 1) {
    result_.reclaimable_bytes += std::max<int64_t>(0, total_ - living[0]->used_bytes);
  } else if (!whole) {
    shared_[pack_].total = total_;
    for (const User* user : living) to_mark_[user->version] = true;
    for (const User* user : dead) {
      if (Counts(user->version)) to_mark_[user->version] = false;
    }
  }
  users_.clear();
  total_ = 0;
}

absl::Status Measure::ScanPacks(const std::string& prefix) {
  RETURN_IF_ERROR(core_.catalog().Scan(
      Space::kRecords, PrefixRange(prefix),
      [&](absl::string_view key, absl::string_view value) {
        keys::PackKey parsed = keys::ParsePackKey(key);
        if (parsed.pack != pack_) {
          EndPack();
          pack_ = parsed.pack;
        }
        if (parsed.uid.empty()) {
          absl::StatusOr<v1::PackRecord> record = Decode<v1::PackRecord>(value);
          if (record.ok()) total_ = record->chunk_bytes();
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
  // A damaged manifest keeps what it names: that is for its readers to find out.
  if (absl::IsDataLoss(manifest.status())) return absl::OkStatus();
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

absl::StatusOr<DeadBytes> Measure::Run(
    const std::optional<std::vector<uint64_t>>& packs) {
  RETURN_IF_ERROR(ReadDead());
  if (packs.has_value()) {
    for (uint64_t pack : *packs) RETURN_IF_ERROR(ScanPacks(keys::Pack(pack)));
  } else {
    RETURN_IF_ERROR(ScanPacks(keys::Packs()));
  }
  for (bool living : {true, false}) {
    for (const auto& [version, lives] : to_mark_) {
      if (lives == living) RETURN_IF_ERROR(Mark(version, living));
    }
  }
  for (const auto& [pack, shared] : shared_) {
    result_.waiting_bytes += shared.dead;
    result_.reclaimable_bytes +=
        std::max<int64_t>(0, shared.total - shared.living - shared.dead);
  }
  return result_;
}

}  // namespace

absl::StatusOr<PackSizes> ReadPackSizes(StoreCore& core) {
  ASSIGN_OR_RETURN(const std::vector<PackInfo> packs, core.chunks().ListPacks());
  PackSizes sizes;
  for (const PackInfo& pack : packs) sizes[pack.pack] = pack.size_bytes;
  return sizes;
}

absl::StatusOr<DeadBytes> MeasureDeadBytes(
    StoreCore& core, const PackSizes& sizes,
    const std::optional<std::vector<uint64_t>>& packs, const DeadFilter& filter) {
  return Measure(core, sizes, filter).Run(packs);
}

}  // namespace modelstore::storage
