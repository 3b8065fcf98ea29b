#include <utility>

#include "proto/contract/errors.h"
#include "storage/keys.h"
#include "storage/parts.h"
#include "storage/record_codec.h"
#include "storage/resolve.h"
#include "storage/save/find_missing.h"
#include "storage/status_macros.h"

namespace modelstore::storage {
namespace {

// See Saves.
class StoredSaves final : public Saves {
 public:
  explicit StoredSaves(StoreCore* core) : core_(*core) {}

  absl::StatusOr<std::unique_ptr<OneShotSave>> StartOneShot(
      const SaveRequest& request) override {
    return StartOneShotSave(&core_, request);
  }
  absl::StatusOr<std::unique_ptr<DerivedSave>> StartDerived(
      const SaveRequest& request, std::vector<std::shared_ptr<Read>> sources) override {
    return StartDerivedSave(&core_, request, std::move(sources));
  }
  absl::StatusOr<std::optional<v1::CheckpointRecord>> FindRequested(
      absl::string_view model_id, absl::string_view request_id,
      absl::string_view request_digest) override;
  absl::StatusOr<std::vector<uint32_t>> FindMissing(const v1::CheckpointRecord& base,
                                                    absl::string_view digests) override;

 private:
  StoreCore& core_;
};

absl::StatusOr<std::optional<v1::CheckpointRecord>> StoredSaves::FindRequested(
    absl::string_view model_id, absl::string_view request_id,
    absl::string_view request_digest) {
  const std::optional<v1::CheckpointRecord> none;
  if (request_id.empty()) return none;
  absl::StatusOr<v1::ModelRecord> model = GetModel(core_, model_id);
  if (absl::IsNotFound(model.status())) return none;
  if (!model.ok()) return model.status();
  ASSIGN_OR_RETURN(const std::optional<v1::RequestRecord> request,
                   GetRecord<v1::RequestRecord>(core_.catalog(),
                                                keys::Request(model->uid(), request_id)));
  if (!request.has_value()) return none;
  if (request->request_digest() != request_digest) {
    return RequestIdReused(request_id, "another request");
  }
  if (request->version() == 0) return none;
  return GetRecord<v1::CheckpointRecord>(core_.catalog(),
                                         keys::Version(model->uid(), request->version()));
}

absl::StatusOr<std::vector<uint32_t>> StoredSaves::FindMissing(
    const v1::CheckpointRecord& base, absl::string_view digests) {
  // The stored format has one digest algorithm.
  const DigestAlgorithm algorithm = DigestAlgorithm::kXxh3_128;
  const absl::StatusOr<std::shared_ptr<const ChunkIndex>> index =
      core_.manifests.LoadIndex(base, algorithm);
  // A base whose manifest was deleted meanwhile, or is damaged, shares no chunk.
  if (!index.ok() && !absl::IsDataLoss(index.status())) return index.status();
  return FindMissingDigests(algorithm, digests, [&](const Digest& digest) {
    if (!index.ok()) return false;
    const std::optional<HeldChunk> chunk = (*index)->Find(digest);
    return chunk.has_value() && !core_.damage.Contains(chunk->id);
  });
}

}  // namespace

std::unique_ptr<Saves> MakeSaves(StoreCore* core) {
  return std::make_unique<StoredSaves>(core);
}

}  // namespace modelstore::storage
