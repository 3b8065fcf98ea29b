#include "storage/repair.h"

#include <algorithm>
#include <optional>
#include <utility>

#include "absl/container/flat_hash_set.h"
#include "absl/strings/str_cat.h"
#include "storage/keys.h"
#include "storage/pack_release.h"
#include "storage/random_id.h"
#include "storage/record_codec.h"
#include "storage/status_macros.h"

namespace modelstore::storage {
namespace {

// Every digest of this format is of the one algorithm that there is.
constexpr DigestAlgorithm kAlgorithm = DigestAlgorithm::kXxh3_128;

// The manifest of one version on its way to other places.
class MovedManifest {
 public:
  MovedManifest(uint64_t pack, const std::map<uint32_t, DamagedChunks::Copy>& copies)
      : pack_(pack), copies_(copies) {}

  // Reads the pages and puts those that change into `batch`. DATA_LOSS if one is
  // damaged.
  absl::Status Run(Catalog& catalog, uint64_t manifest_id, CatalogBatch& batch) {
    absl::Status status;
    RETURN_IF_ERROR(catalog.Scan(
        Space::kManifests, PrefixRange(keys::ManifestPages(manifest_id)),
        [&](absl::string_view key, absl::string_view value) {
          absl::StatusOr<v1::ManifestPage> page = Decode<v1::ManifestPage>(value);
          status = page.status();
          if (!status.ok()) return false;
          if (MovePage(*page)) {
            batch.Put(Space::kManifests, std::string(key), Encode(*page));
            bytes_ += static_cast<int64_t>(value.size());
          }
          return true;
        }));
    return status;
  }

  bool moved() const { return bytes_ > 0; }
  // Of the pages that change.
  int64_t bytes() const { return bytes_; }
  // Bytes of distinct chunks by pack, of the whole manifest.
  const std::map<uint64_t, int64_t>& uses() const { return uses_; }

 private:
  bool MovePage(v1::ManifestPage& page) {
    bool moved = false;
    for (v1::TensorRecord& tensor : *page.mutable_tensors()) {
      for (v1::PieceRecord& piece : *tensor.mutable_pieces()) {
        const int64_t piece_bytes = PieceBytes(tensor, piece);
        for (int i = 0; i < piece.packs_size() && i < piece.sequences_size(); ++i) {
          moved = MoveChunk(piece, i) || moved;
          if (!seen_.emplace(piece.packs(i), piece.sequences(i)).second) continue;
          uses_[piece.packs(i)] += ChunkBytes(piece_bytes, piece.chunk_size_bytes(), i);
        }
      }
    }
    return moved;
  }

  bool MoveChunk(v1::PieceRecord& piece, int i) {
    if (piece.packs(i) != pack_) return false;
    auto copy = copies_.find(piece.sequences(i));
    const size_t length = DigestLength(kAlgorithm);
    if (copy == copies_.end() ||
        absl::string_view(piece.digests()).substr(i * length, length) !=
            copy->second.digest) {
      return false;
    }
    piece.set_packs(i, copy->second.place.pack);
    piece.set_sequences(i, copy->second.place.sequence);
    return true;
  }

  const uint64_t pack_;
  const std::map<uint32_t, DamagedChunks::Copy>& copies_;
  int64_t bytes_ = 0;
  std::map<uint64_t, int64_t> uses_;
  absl::flat_hash_set<std::pair<uint64_t, uint32_t>> seen_;
};

}  // namespace

absl::Status Repair::ReadModels() {
  if (!models_.empty()) return absl::OkStatus();
  return core_.catalog().Scan(Space::kRecords, PrefixRange(keys::Models()),
                              [&](absl::string_view, absl::string_view value) {
                                const absl::StatusOr<v1::ModelRecord> model =
                                    Decode<v1::ModelRecord>(value);
                                if (model.ok()) models_[model->uid()] = model->model_id();
                                return true;
                              });
}

absl::StatusOr<std::optional<uint64_t>> Repair::Plan(int64_t version, uint64_t pack,
                                                     const Copies& copies,
                                                     ModelChange& change) {
  const std::optional<uint64_t> none;
  v1::ModelRecord& model = change.model;
  ASSIGN_OR_RETURN(std::optional<v1::CheckpointRecord> record,
                   GetRecord<v1::CheckpointRecord>(core_.catalog(),
                                                   keys::Version(model.uid(), version)));
  if (!record.has_value()) return none;  // deleted
  // DATA_LOSS if it does not hold together.
  RETURN_IF_ERROR(core_.manifests.Load(*record).status());
  CatalogBatch& batch = change.batch;
  MovedManifest manifest(pack, copies);
  RETURN_IF_ERROR(manifest.Run(core_.catalog(), record->manifest_id(), batch));
  if (!manifest.moved()) return none;
  RETURN_IF_ERROR(core_.space.CheckRoom(manifest.bytes()));
  UnusedPacks unused;
  for (uint64_t used : record->packs()) {
    if (manifest.uses().contains(used)) continue;
    RETURN_IF_ERROR(ReleasePack(core_, used, model.uid(), version, batch, unused));
  }
  record->clear_packs();
  for (const auto& [used, bytes] : manifest.uses()) {
    v1::PackUseRecord use;
    use.set_used_bytes(bytes);
    batch.Put(Space::kRecords, keys::PackUse(used, model.uid(), version), Encode(use));
    record->add_packs(used);
  }
  batch.Put(Space::kRecords, keys::Version(model.uid(), version), Encode(*record));
  // No change that an etag tells; but whoever changes the version at the same time
  // reads it again.
  model.set_lease_change(RandomNumber());
  change.skip = false;
  return std::optional<uint64_t>(record->manifest_id());
}

absl::Status Repair::RepairVersion(const std::string& uid, int64_t version, uint64_t pack,
                                   const Copies& copies) {
  auto model = models_.find(uid);
  if (model == models_.end()) return absl::OkStatus();  // deleted
  std::optional<uint64_t> manifest_id;
  const absl::Status status =
      ChangeModel(core_, model->second, StoreCore::Room::kOrdinary,
                  [&](ModelChange& change) -> absl::Status {
                    change.skip = true;
                    manifest_id.reset();
                    if (change.model.uid() != uid) return absl::OkStatus();
                    ASSIGN_OR_RETURN(manifest_id, Plan(version, pack, copies, change));
                    return absl::OkStatus();
                  })
          .status();
  if (absl::IsNotFound(status)) return absl::OkStatus();  // deleted
  // Also where it is not known whether it was changed.
  if (manifest_id.has_value()) core_.manifests.Forget(*manifest_id);
  if (status.ok() && manifest_id.has_value()) ++repaired_;
  return status;
}

absl::StatusOr<bool> Repair::RepairPack(uint64_t pack, const Copies& copies,
                                        const std::function<bool()>& go_on) {
  std::vector<std::pair<std::string, int64_t>> users;
  RETURN_IF_ERROR(core_.catalog().Scan(Space::kRecords, PrefixRange(keys::Pack(pack)),
                                       [&](absl::string_view key, absl::string_view) {
                                         keys::PackKey parsed = keys::ParsePackKey(key);
                                         if (!parsed.uid.empty())
                                           users.emplace_back(std::move(parsed.uid),
                                                              parsed.version);
                                         return true;
                                       }));
  bool whole = true;
  for (const auto& [uid, version] : users) {
    if (!go_on()) return absl::CancelledError("the collection was stopped");
    // Whoever reads it now knows the old places, and what is whole there stays.
    if (core_.holds.IsHeld(uid, version)) {
      whole = false;
      continue;
    }
    const absl::Status status = RepairVersion(uid, version, pack, copies);
    // A manifest that is damaged itself is left; a full disk waits for another time.
    if (status.ok() || absl::IsDataLoss(status)) continue;
    if (!absl::IsResourceExhausted(status)) return status;
    whole = false;
  }
  return whole;
}

// Of a copy whose version was deleted since nothing may be left. While this thread
// collects no other pack goes.
absl::Status Repair::DropGone(uint64_t pack, Copies& copies) {
  Copies gone;
  for (auto it = copies.begin(); it != copies.end();) {
    ASSIGN_OR_RETURN(
        const std::optional<std::string> there,
        core_.catalog().Get(Space::kRecords, keys::Pack(it->second.place.pack)));
    if (there.has_value() && !core_.damage.Contains(it->second.place)) {
      ++it;
    } else {
      gone.insert(copies.extract(it++));
    }
  }
  if (!gone.empty()) core_.damage.DropCopies(pack, gone);
  return absl::OkStatus();
}

absl::Status Repair::Run(const std::function<bool()>& go_on) {
  for (auto& [pack, copies] : core_.damage.Copies()) {
    RETURN_IF_ERROR(DropGone(pack, copies));
    if (copies.empty()) continue;
    RETURN_IF_ERROR(ReadModels());
    ASSIGN_OR_RETURN(const bool whole, RepairPack(pack, copies, go_on));
    if (!whole) continue;
    ASSIGN_OR_RETURN(const std::optional<std::string> used,
                     core_.catalog().Get(Space::kRecords, keys::Pack(pack)));
    if (!used.has_value()) core_.places.Forget(pack);
    core_.damage.Repaired(pack, copies, /*pack_is_gone=*/!used.has_value());
  }
  if (repaired_ > 0) {
    core_.Event(Listener::Severity::kInfo,
                absl::StrCat("gave ", repaired_,
                             " versions whole copies of chunks that were damaged"));
  }
  return absl::OkStatus();
}

}  // namespace modelstore::storage
