#include <utility>

#include "absl/strings/str_cat.h"
#include "proto/contract/errors.h"
#include "proto/contract/names.h"
#include "storage/keys.h"
#include "storage/parts.h"
#include "storage/resolve.h"
#include "storage/status_macros.h"

namespace modelstore::storage {
namespace {

// Its hold keeps the bytes. Records and manifest are those of the time of opening; Repair
// may have moved chunks since, but keeps their old places while this holds the version.
class StoredRead final : public Read {
 public:
  StoredRead(StoreCore* core, HeldVersion held,
             std::shared_ptr<const v1::ManifestPage> manifest)
      : core_(*core), held_(std::move(held)), manifest_(std::move(manifest)) {}

  const v1::CheckpointRecord& checkpoint() const override { return held_.checkpoint; }
  const v1::ModelRecord& model() const override { return held_.model; }
  const v1::ManifestPage& manifest() const override { return *manifest_; }
  const HeldVersion& held() const { return held_; }

  absl::StatusOr<PinnedBytes> ReadChunk(int tensor, int piece, int64_t index) override {
    if (tensor < 0 || tensor >= manifest_->tensors_size() || piece < 0 ||
        piece >= manifest_->tensors(tensor).pieces_size() || index < 0 ||
        index >= manifest_->tensors(tensor).pieces(piece).packs_size()) {
      return absl::OutOfRangeError("the manifest has no such chunk");
    }
    const v1::TensorRecord& record = manifest_->tensors(tensor);
    const v1::PieceRecord& place = record.pieces(piece);
    const int i = static_cast<int>(index);
    const ChunkId id{place.packs(i), place.sequences(i)};
    absl::StatusOr<PinnedBytes> bytes = core_.places.Read(id);
    if (!bytes.ok()) {
      const absl::Status& status = bytes.status();
      // Other errors say nothing about the bytes.
      const bool gone = absl::IsNotFound(status);
      if (!gone && !absl::IsDataLoss(status)) return status;
      core_.damage.Mark(id);
      return Loss(record, index, gone ? "is gone" : status.message());
    }
    const DigestAlgorithm algorithm = AlgorithmOf(held_.model);
    const size_t length = DigestLength(algorithm);
    const int64_t expected =
        ChunkBytes(PieceBytes(record, place), place.chunk_size_bytes(), index);
    if (static_cast<int64_t>(bytes->view().size()) != expected ||
        ComputeDigest(algorithm, bytes->view()).bytes() !=
            absl::string_view(place.digests()).substr(i * length, length)) {
      core_.damage.Mark(id);
      return Loss(record, index, "does not match its digest");
    }
    // A chunk that was marked by mistake, or is readable again, no longer counts as
    // damaged.
    core_.damage.Clear(id);
    return bytes;
  }

 private:
  // DATA_LOSS naming checkpoint, tensor and chunk.
  absl::Status Loss(const v1::TensorRecord& tensor, int64_t index,
                    absl::string_view what) const {
    return TensorDataLoss(
        CheckpointNameOf(held_.model.model_id(), held_.checkpoint.version()),
        TensorNameOf(tensor.section(), tensor.key()),
        absl::StrCat("chunk ", index, " ", what));
  }

  StoreCore& core_;
  const HeldVersion held_;
  const std::shared_ptr<const v1::ManifestPage> manifest_;
};

// See Reads. Expects that each Read comes from it.
class StoredReads final : public Reads {
 public:
  explicit StoredReads(StoreCore* core) : core_(*core) {}

  absl::StatusOr<std::shared_ptr<Read>> Open(absl::string_view model_id,
                                             VersionName version) override {
    ASSIGN_OR_RETURN(HeldVersion held, HoldVersion(core_, model_id, version));
    return Start(std::move(held));
  }

  std::string Token(const Read& read) override {
    const HeldVersion& held = static_cast<const StoredRead&>(read).held();
    return core_.holds.Token(held.hold, {held.model, held.checkpoint});
  }

  absl::StatusOr<std::shared_ptr<Read>> Reopen(absl::string_view token) override {
    std::optional<Holds::Reopened> reopened = core_.holds.Reopen(token);
    if (!reopened.has_value()) {
      return MakeError(ERROR_REASON_UNKNOWN_RESUME_TOKEN,
                       "the resume_token has expired: plan the load again");
    }
    return Start({std::move(reopened->hold), reopened->content->model,
                  reopened->content->checkpoint});
  }

 private:
  // Loads the manifest of a held version. Its errors name the checkpoint.
  absl::StatusOr<std::shared_ptr<Read>> Start(HeldVersion held) {
    absl::StatusOr<std::shared_ptr<const v1::ManifestPage>> manifest =
        core_.manifests.Load(held.checkpoint);
    if (!manifest.ok()) {
      const std::string name =
          CheckpointNameOf(held.model.model_id(), held.checkpoint.version());
      if (!absl::IsDataLoss(manifest.status())) return Annotate(manifest.status(), name);
      return DataDamaged("checkpoint", name, manifest.status().message());
    }
    return std::make_shared<StoredRead>(&core_, std::move(held), *std::move(manifest));
  }

  StoreCore& core_;
};

}  // namespace

std::unique_ptr<Reads> MakeReads(StoreCore* core) {
  return std::make_unique<StoredReads>(core);
}

}  // namespace modelstore::storage
