#include "storage/manifest_cache.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "proto/contract/dtype.h"
#include "proto/contract/errors.h"
#include "proto/contract/message_codec.h"
#include "storage/keys.h"
#include "storage/record_codec.h"
#include "storage/status_macros.h"

namespace modelstore::storage {
namespace {

// Bounds of `recent_`: number of indexes, and chunks of one index.
constexpr size_t kRecentIndexes = 8;
constexpr size_t kRecentIndexChunks = 100'000;

// Removes entries without users, once there are enough of them to be worth a pass.
template <typename Map>
void ForgetDead(Map& map) {
  if (map.size() < 64) return;
  absl::erase_if(map, [](const auto& entry) { return entry.second.expired(); });
}

// Checks what readers rely on. A committed manifest is consistent, but damage may go
// unnoticed when a page is read.
bool IsConsistent(const v1::ManifestPage& manifest) {
  for (const v1::TensorRecord& tensor : manifest.tensors()) {
    if (!DTypeFromNumber(static_cast<int>(tensor.dtype())).ok()) return false;
    for (const v1::PieceRecord& piece : tensor.pieces()) {
      const size_t chunks = static_cast<size_t>(piece.packs_size());
      if (piece.sequences_size() != piece.packs_size() || piece.chunk_size_bytes() <= 0 ||
          chunks == 0 || piece.digests().size() % chunks != 0 ||
          piece.digests().size() / chunks != DigestLength(DigestAlgorithm::kXxh3_128)) {
        return false;
      }
    }
  }
  return true;
}

}  // namespace

int64_t PieceBytes(const v1::TensorRecord& tensor, const v1::PieceRecord& piece) {
  int64_t bytes = ElementSize(static_cast<DType>(tensor.dtype()));
  for (int64_t size : piece.size()) bytes *= size;
  return bytes;
}

ChunkIndex::ChunkIndex(const v1::ManifestPage& manifest, DigestAlgorithm algorithm) {
  const size_t length = DigestLength(algorithm);
  for (const v1::TensorRecord& tensor : manifest.tensors()) {
    // The commit checked the chunks of bool tensors.
    const auto bools = tensor.dtype() == static_cast<uint32_t>(DType::kBool)
                           ? HeldChunk::Bools::kOnly
                           : HeldChunk::Bools::kUnknown;
    for (const v1::PieceRecord& piece : tensor.pieces()) {
      const int64_t bytes = PieceBytes(tensor, piece);
      for (int i = 0; i < piece.packs_size(); ++i) {
        absl::StatusOr<Digest> digest = Digest::FromBytes(
            algorithm, absl::string_view(piece.digests()).substr(i * length, length));
        if (!digest.ok()) continue;
        const int64_t size = ChunkBytes(bytes, piece.chunk_size_bytes(), i);
        chunks_.try_emplace(*digest, HeldChunk{{piece.packs(i), piece.sequences(i)},
                                               static_cast<uint32_t>(size),
                                               bools});
      }
    }
  }
}

absl::StatusOr<std::shared_ptr<const v1::ManifestPage>> ManifestCache::LoadPages(
    uint64_t manifest_id, std::optional<uint32_t> pages) {
  uint64_t forgotten = 0;
  {
    MutexLock lock(mutex_);
    forgotten = forgotten_;
    auto it = manifests_.find(manifest_id);
    if (it != manifests_.end()) {
      if (auto manifest = it->second.lock()) return manifest;
    }
  }
  auto manifest = std::make_shared<v1::ManifestPage>();
  uint32_t found = 0;
  bool damaged = false;
  const absl::Status scanned =
      catalog_->Scan(Space::kManifests, PrefixRange(keys::ManifestPages(manifest_id)),
                     [&](absl::string_view key, absl::string_view value) {
                       // Pages are numbered without gaps. Their repeated fields are
                       // joined by merging.
                       damaged = key != keys::ManifestPage(manifest_id, found) ||
                                 !MergeMessage(value, manifest.get());
                       ++found;
                       return !damaged;
                     });
  if (absl::IsDataLoss(scanned)) {
    // A scan opens every table, so the damage may be that of other manifests. A Get reads
    // only tables whose range has the key.
    manifest->Clear();
    for (found = 0; !pages.has_value() || found < *pages; ++found) {
      ASSIGN_OR_RETURN(
          const std::optional<std::string> page,
          catalog_->Get(Space::kManifests, keys::ManifestPage(manifest_id, found)));
      if (!page.has_value()) break;
      damaged = damaged || !manifest->MergeFromString(*page);
    }
  } else {
    RETURN_IF_ERROR(scanned);
  }
  if (damaged || (pages.has_value() && found != *pages) || !IsConsistent(*manifest)) {
    return DataDamaged("manifest", absl::StrCat(manifest_id), "it is damaged");
  }
  std::shared_ptr<const v1::ManifestPage> result = std::move(manifest);
  MutexLock lock(mutex_);
  ForgetDead(manifests_);
  if (forgotten == forgotten_) manifests_[manifest_id] = result;
  return result;
}

absl::StatusOr<std::shared_ptr<const v1::ManifestPage>> ManifestCache::Load(
    const v1::CheckpointRecord& checkpoint) {
  return LoadPages(checkpoint.manifest_id(), checkpoint.manifest_pages());
}

absl::StatusOr<std::shared_ptr<const v1::ManifestPage>> ManifestCache::Load(
    uint64_t manifest_id) {
  return LoadPages(manifest_id, std::nullopt);
}

absl::StatusOr<std::shared_ptr<const ChunkIndex>> ManifestCache::LoadIndex(
    const v1::CheckpointRecord& checkpoint, DigestAlgorithm algorithm) {
  uint64_t forgotten = 0;
  {
    MutexLock lock(mutex_);
    forgotten = forgotten_;
    auto it = indexes_.find(checkpoint.manifest_id());
    if (it != indexes_.end()) {
      if (auto index = it->second.lock()) return index;
    }
  }
  ASSIGN_OR_RETURN(std::shared_ptr<const v1::ManifestPage> manifest, Load(checkpoint));
  auto index = std::make_shared<const ChunkIndex>(*manifest, algorithm);
  MutexLock lock(mutex_);
  if (forgotten != forgotten_) return index;
  ForgetDead(indexes_);
  indexes_[checkpoint.manifest_id()] = index;
  if (index->size() <= kRecentIndexChunks) {
    recent_.push_back(index);
    if (recent_.size() > kRecentIndexes) recent_.pop_front();
  }
  return index;
}

void ManifestCache::Forget(uint64_t manifest_id) {
  MutexLock lock(mutex_);
  ++forgotten_;
  manifests_.erase(manifest_id);
  indexes_.erase(manifest_id);
  // The indexes of other manifests are built again when needed.
  recent_.clear();
}

}  // namespace modelstore::storage
