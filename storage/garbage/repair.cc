#include "storage/garbage/repair.h"

#include <memory>
#include <optional>
#include <utility>
#include <vector>

#include "absl/container/flat_hash_set.h"
#include "absl/strings/str_cat.h"
#include "storage/garbage/pack_release.h"
#include "storage/keys.h"
#include "storage/random_id.h"
#include "storage/record_codec.h"
#include "storage/status_macros.h"

namespace modelstore::storage {
namespace {

// The stored format has one digest algorithm.
constexpr DigestAlgorithm kAlgorithm = DigestAlgorithm::kXxh3_128;

// Rewrites the places of damaged chunks in the manifest of one version.
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
  // Bytes of the pages that change.
  int64_t bytes() const { return bytes_; }
  // Bytes of distinct chunks of the whole manifest, by pack, after the change.
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

  // Only if the digests agree: the content must not change.
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

absl::StatusOr<bool> Repair::IsIntact(const DamagedChunks::Copy& copy) {
  if (core_.damage.Contains(copy.place)) return false;
  // Cannot become stale: only the collecting thread, which is this one, deletes records
  // of packs.
  ASSIGN_OR_RETURN(const std::optional<std::string> record,
                   core_.catalog().Get(Space::kRecords, keys::Pack(copy.place.pack)));
  if (!record.has_value()) return false;
  const absl::StatusOr<PinnedBytes> bytes = core_.places.Read(copy.place);
  if (absl::IsNotFound(bytes.status()) || absl::IsDataLoss(bytes.status())) return false;
  if (!bytes.ok()) return bytes.status();
  return ComputeDigest(kAlgorithm, bytes->view()).bytes() == copy.digest;
}

absl::Status Repair::CheckCopies(const v1::ManifestPage& manifest) {
  for (const v1::TensorRecord& tensor : manifest.tensors()) {
    for (const v1::PieceRecord& piece : tensor.pieces()) {
      for (int i = 0; i < piece.packs_size(); ++i) {
        if (piece.packs(i) != pack_ || checked_.contains(piece.sequences(i))) continue;
        auto copy = copies_.find(piece.sequences(i));
        if (copy == copies_.end()) continue;
        const absl::StatusOr<bool> whole = IsIntact(copy->second);
        if (core_.IsReadError(whole.status())) {
          core_.Event(Listener::Severity::kWarning,
                      absl::StrCat("the copy of a damaged chunk cannot be read, the next "
                                   "collection tries again: ",
                                   whole.status().message()));
          copies_.erase(copy);
          continue;
        }
        RETURN_IF_ERROR(whole.status());
        if (*whole) {
          checked_.insert(copy->first);
        } else {
          gone_.insert(copies_.extract(copy));
        }
      }
    }
  }
  return absl::OkStatus();
}

absl::StatusOr<Repair::Planned> Repair::Plan(int64_t version, ModelChange& change) {
  Planned planned;
  v1::ModelRecord& model = change.model;
  ASSIGN_OR_RETURN(std::optional<v1::CheckpointRecord> record,
                   GetRecord<v1::CheckpointRecord>(core_.catalog(),
                                                   keys::Version(model.uid(), version)));
  if (!record.has_value()) return planned;  // deleted
  planned.manifest_id = record->manifest_id();
  // Load() checks that the manifest is consistent; the rewriting below does not.
  const absl::StatusOr<std::shared_ptr<const v1::ManifestPage>> before =
      core_.manifests.Load(*record);
  if (core_.IsReadError(before.status())) {
    planned.waits = true;
    return planned;
  }
  RETURN_IF_ERROR(before.status());
  RETURN_IF_ERROR(CheckCopies(**before));
  CatalogBatch& batch = change.batch;
  MovedManifest manifest(pack_, copies_);
  RETURN_IF_ERROR(manifest.Run(core_.catalog(), record->manifest_id(), batch));
  planned.moved = manifest.moved();
  RETURN_IF_ERROR(core_.space.CheckSpace(manifest.bytes()));
  // Holders may have the old manifest in memory, so the version keeps its use of packs
  // while it is held. A holder that comes later may still load the old manifest, but
  // misses only the damaged chunks, and no save shares these since BeginRepair().
  const bool held = core_.holds.IsHeld(model.uid(), version);
  std::vector<uint64_t> kept;
  UnusedPacks unused;
  for (uint64_t used : record->packs()) {
    if (manifest.uses().contains(used)) continue;
    if (held) {
      kept.push_back(used);
      continue;
    }
    RETURN_IF_ERROR(ReleasePack(core_, used, model.uid(), version, batch, unused));
    planned.released = true;
  }
  planned.waits = !kept.empty();
  if (!planned.moved && !planned.released) return planned;
  record->clear_packs();
  for (const auto& [used, bytes] : manifest.uses()) {
    v1::PackUseRecord use;
    use.set_used_bytes(bytes);
    batch.Put(Space::kRecords, keys::PackUse(used, model.uid(), version), Encode(use));
    record->add_packs(used);
  }
  for (uint64_t used : kept) record->add_packs(used);
  batch.Put(Space::kRecords, keys::Version(model.uid(), version), Encode(*record));
  // Does not change the etag, but makes concurrent changes of the version read it again.
  model.set_lease_change(RandomNumber());
  change.skip = false;
  return planned;
}

absl::Status Repair::RepairVersion(const std::string& uid, int64_t version, bool& whole) {
  auto model = models_.find(uid);
  if (model == models_.end()) return absl::OkStatus();  // deleted
  Planned planned;
  const absl::Status status =
      ChangeModel(core_, model->second, StoreCore::Room::kNormalWrite,
                  [&](ModelChange& change) -> absl::Status {
                    change.skip = true;
                    planned = {};
                    if (change.model.uid() != uid) return absl::OkStatus();
                    ASSIGN_OR_RETURN(planned, Plan(version, change));
                    return absl::OkStatus();
                  })
          .status();
  if (absl::IsNotFound(status)) return absl::OkStatus();  // deleted
  // Also if the outcome is unknown: the cached manifest may be out of date.
  if (planned.moved) core_.manifests.Forget(planned.manifest_id);
  RETURN_IF_ERROR(status);
  if (planned.moved) ++repaired_;
  if (planned.moved || planned.released) changed_ = true;
  if (planned.waits) whole = false;
  return absl::OkStatus();
}

absl::StatusOr<bool> Repair::RepairPack(const std::function<bool()>& keep_going) {
  std::vector<std::pair<std::string, int64_t>> users;
  RETURN_IF_ERROR(core_.catalog().Scan(Space::kRecords, PrefixRange(keys::Pack(pack_)),
                                       [&](absl::string_view key, absl::string_view) {
                                         keys::PackKey parsed = keys::ParsePackKey(key);
                                         if (!parsed.uid.empty())
                                           users.emplace_back(std::move(parsed.uid),
                                                              parsed.version);
                                         return true;
                                       }));
  bool whole = true;
  for (const auto& [uid, version] : users) {
    if (!keep_going()) return absl::CancelledError("the collection was stopped");
    const absl::Status status = RepairVersion(uid, version, whole);
    if (status.ok()) continue;
    // A damaged manifest stays as it is and still names the damaged chunks. If the disk
    // is full a later round repairs the version.
    if (!absl::IsDataLoss(status) && !absl::IsResourceExhausted(status)) return status;
    whole = false;
  }
  return whole;
}

absl::Status Repair::Run(const std::function<bool()>& keep_going) {
  for (auto& [pack, copies] : core_.damage.BeginRepair()) {
    pack_ = pack;
    copies_ = std::move(copies);
    checked_.clear();
    gone_.clear();
    RETURN_IF_ERROR(ReadModels());
    const absl::StatusOr<bool> whole = RepairPack(keep_going);
    if (!gone_.empty()) core_.damage.DropCopies(pack, gone_);
    RETURN_IF_ERROR(whole.status());
    if (!*whole || copies_.empty()) continue;
    ASSIGN_OR_RETURN(const std::optional<std::string> used,
                     core_.catalog().Get(Space::kRecords, keys::Pack(pack)));
    if (!used.has_value()) core_.places.Forget(pack);
    core_.damage.Repaired(pack, copies_, /*pack_is_gone=*/!used.has_value());
  }
  if (repaired_ > 0) {
    core_.Event(Listener::Severity::kInfo,
                absl::StrCat("gave ", repaired_,
                             " versions whole copies of chunks that were damaged"));
  }
  return absl::OkStatus();
}

}  // namespace modelstore::storage
