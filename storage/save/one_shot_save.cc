#include <utility>

#include "absl/strings/str_cat.h"
#include "proto/contract/errors.h"
#include "proto/contract/names.h"
#include "storage/parts.h"
#include "storage/resolve.h"
#include "storage/save/chunk_digest.h"
#include "storage/save/manifest_check.h"
#include "storage/save/pending_save.h"
#include "storage/status_macros.h"

namespace modelstore::storage {
namespace {

// See OneShotSave. The model is created by the commit, so that a failed save leaves none.
class StoredOneShotSave final : public OneShotSave {
 public:
  StoredOneShotSave(StoreCore* core, const SaveRequest& request, SaveTarget target)
      : core_(*core),
        request_(request),
        target_(std::move(target)),
        algorithm_(AlgorithmOf(target_.model)),
        save_(core, algorithm_),
        feeder_(&save_.intake()) {}

  absl::Status LoadBase() {
    if (!target_.base.has_value()) return absl::OkStatus();
    absl::StatusOr<std::shared_ptr<const ChunkIndex>> index =
        core_.manifests.LoadIndex(target_.base->checkpoint, algorithm_);
    // A base with a damaged manifest is ignored: the client sends all chunks.
    if (absl::IsDataLoss(index.status())) return absl::OkStatus();
    if (!index.ok()) return index.status();
    save_.intake().AddBase(*std::move(index));
    return absl::OkStatus();
  }

  absl::Status AddManifest(const ManifestPart& part) override;
  absl::Status Put(const std::optional<Digest>& digest,
                   absl::Span<const absl::string_view> fragments) override;
  absl::StatusOr<v1::CheckpointRecord> Commit(
      std::optional<int64_t> expected_latest_version, bool allow_empty) override;

 private:
  // Returns the piece of the next chunk, in manifest order, that has no digest yet; null
  // if every chunk has one. Sets the chunk's size and its tensor's name.
  v1::PieceRecord* NextUnnamed(int64_t& expected_bytes, std::string& tensor_name);

  StoreCore& core_;
  const SaveRequest request_;
  SaveTarget target_;
  const DigestAlgorithm algorithm_;
  ManifestTotals totals_;
  PendingSave save_;
  ChunkIntake::Feeder feeder_;
  // Set by the first Put(): the manifest is complete then.
  bool chunks_begun_ = false;
  // Where NextUnnamed() continues.
  int tensor_ = 0;
  int piece_ = 0;
};

absl::Status StoredOneShotSave::AddManifest(const ManifestPart& part) {
  if (chunks_begun_ || save_.ended()) {
    return absl::FailedPreconditionError(
        "every part of the manifest must come before the first chunk");
  }
  ManifestPart checked = part;
  RETURN_IF_ERROR(
      CheckManifestPart(algorithm_, DigestsWanted::kAllOrNone, checked, totals_));
  return save_.builder().Add(std::move(checked));
}

v1::PieceRecord* StoredOneShotSave::NextUnnamed(int64_t& expected_bytes,
                                                std::string& tensor_name) {
  v1::ManifestPage& manifest = save_.builder().manifest();
  const size_t length = DigestLength(algorithm_);
  for (; tensor_ < manifest.tensors_size(); ++tensor_, piece_ = 0) {
    v1::TensorRecord& tensor = *manifest.mutable_tensors(tensor_);
    for (; piece_ < tensor.pieces_size(); ++piece_) {
      v1::PieceRecord& piece = *tensor.mutable_pieces(piece_);
      const int64_t bytes = PieceBytes(tensor, piece);
      const int64_t named = static_cast<int64_t>(piece.digests().size() / length);
      if (named >= ChunkCount(bytes, piece.chunk_size_bytes())) continue;
      expected_bytes = ChunkBytes(bytes, piece.chunk_size_bytes(), named);
      tensor_name = TensorNameOf(tensor.section(), tensor.key());
      return &piece;
    }
  }
  return nullptr;
}

absl::Status StoredOneShotSave::Put(const std::optional<Digest>& digest,
                                    absl::Span<const absl::string_view> fragments) {
  if (save_.ended()) return absl::FailedPreconditionError("the save has ended");
  chunks_begun_ = true;
  ASSIGN_OR_RETURN(const ReceivedChunk chunk, CheckChunk(algorithm_, digest, fragments));
  v1::PieceRecord* piece = nullptr;
  if (!digest.has_value()) {
    int64_t expected = 0;
    std::string tensor;
    piece = NextUnnamed(expected, tensor);
    if (piece == nullptr) {
      return InvalidField("chunks", "are more than the manifest has places for");
    }
    if (chunk.bytes != expected) {
      return InvalidField("chunks.size_bytes",
                          absl::StrCat("is ", chunk.bytes, " where tensor ", tensor,
                                       " has room for ", expected));
    }
  }
  ASSIGN_OR_RETURN([[maybe_unused]] const bool taken, save_.intake().Put(feeder_, chunk));
  // Only after the chunk was taken: a failed Put() must not leave a digest without a
  // chunk.
  if (piece != nullptr) {
    const absl::string_view bytes = chunk.digest.bytes();
    piece->mutable_digests()->append(bytes.data(), bytes.size());
  }
  return absl::OkStatus();
}

absl::StatusOr<v1::CheckpointRecord> StoredOneShotSave::Commit(
    std::optional<int64_t> expected_latest_version, bool allow_empty) {
  if (save_.ended()) return absl::FailedPreconditionError("the save has ended");
  CommitPlan plan;
  plan.model_id = request_.model_id;
  if (target_.model_is_new) {
    plan.create = target_.model;
  } else {
    plan.model_uid = target_.model.uid();
  }
  plan.metadata = request_.metadata;
  if (target_.base.has_value()) {
    plan.base_model_uid = target_.base->model.uid();
    plan.base_model_id = target_.base->model.model_id();
    plan.base_version = target_.base->checkpoint.version();
  }
  plan.request_id = request_.request_id;
  plan.request_digest = request_.request_digest;
  plan.expected_latest_version = expected_latest_version;
  plan.allow_empty = allow_empty;
  absl::StatusOr<v1::CheckpointRecord> committed = save_.Commit(std::move(plan));
  if (committed.ok() && target_.base.has_value()) target_.base->hold = Hold();
  return committed;
}

}  // namespace

absl::StatusOr<std::unique_ptr<OneShotSave>> StartOneShotSave(
    StoreCore* core, const SaveRequest& request) {
  RETURN_IF_ERROR(
      core->space.CheckSpace(static_cast<int64_t>(request.metadata.ByteSizeLong())));
  ASSIGN_OR_RETURN(SaveTarget target, ResolveSave(*core, request));
  auto save = std::make_unique<StoredOneShotSave>(core, request, std::move(target));
  RETURN_IF_ERROR(save->LoadBase());
  return save;
}

}  // namespace modelstore::storage
