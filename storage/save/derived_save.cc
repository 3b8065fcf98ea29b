#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
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

// Damaged tensors that an error names.
constexpr size_t kNamedTensors = 10;

// See DerivedSave. Put() is thread-safe because the intake is, and each call has a feeder
// of its own.
class StoredDerivedSave final : public DerivedSave {
 public:
  StoredDerivedSave(StoreCore* core, const SaveRequest& request, SaveTarget target,
                    std::vector<std::shared_ptr<Read>> sources)
      : core_(*core),
        request_(request),
        target_(std::move(target)),
        sources_(std::move(sources)),
        algorithm_(AlgorithmOf(target_.model)),
        save_(core, algorithm_) {}

  // Makes the chunks of all sources available to the manifest.
  absl::Status LoadSources() {
    for (const std::shared_ptr<Read>& source : sources_) {
      ASSIGN_OR_RETURN(std::shared_ptr<const ChunkIndex> index,
                       core_.manifests.LoadIndex(source->checkpoint(), algorithm_));
      save_.intake().AddBase(std::move(index));
    }
    return absl::OkStatus();
  }

  absl::StatusOr<Digest> Put(absl::string_view bytes) override {
    ASSIGN_OR_RETURN(const ReceivedChunk chunk,
                     CheckChunk(algorithm_, std::nullopt, {&bytes, 1}));
    ChunkIntake::Feeder feeder(&save_.intake());
    ASSIGN_OR_RETURN([[maybe_unused]] const bool taken,
                     save_.intake().Put(feeder, chunk));
    return chunk.digest;
  }

  absl::StatusOr<v1::CheckpointRecord> Commit(
      ManifestPart manifest, std::optional<int64_t> expected_latest_version) override;

 private:
  // DATA_LOSS, naming the tensors, if `manifest` needs chunks that are damaged in every
  // source that has them.
  absl::Status CheckNotDamaged(const v1::ManifestPage& manifest);

  StoreCore& core_;
  const SaveRequest request_;
  const SaveTarget target_;
  // Keep the shared chunks from being deleted until the commit records that the new
  // version uses their packs.
  const std::vector<std::shared_ptr<Read>> sources_;
  const DigestAlgorithm algorithm_;
  PendingSave save_;
};

absl::Status StoredDerivedSave::CheckNotDamaged(const v1::ManifestPage& manifest) {
  if (!core_.damage.any()) return absl::OkStatus();
  const size_t length = DigestLength(algorithm_);
  std::vector<std::string> damaged;
  std::string first;
  for (const v1::TensorRecord& tensor : manifest.tensors()) {
    int64_t chunks = 0;
    for (const v1::PieceRecord& piece : tensor.pieces()) {
      const absl::string_view digests = piece.digests();
      for (size_t at = 0; at + length <= digests.size(); at += length) {
        ASSIGN_OR_RETURN(const Digest digest,
                         Digest::FromBytes(algorithm_, digests.substr(at, length)));
        if (!save_.intake().Find(digest).has_value() &&
            save_.intake().IsDamaged(digest)) {
          ++chunks;
        }
      }
    }
    if (chunks == 0) continue;
    const std::string name = TensorNameOf(tensor.section(), tensor.key());
    if (damaged.empty()) first = name;
    damaged.push_back(
        absl::StrCat(name, " (", chunks, chunks == 1 ? " chunk)" : " chunks)"));
  }
  if (damaged.empty()) return absl::OkStatus();
  const size_t named = std::min(damaged.size(), kNamedTensors);
  return MakeError(
      ERROR_REASON_DATA_DAMAGED,
      absl::StrCat("the sources hold only damaged chunks of ",
                   absl::StrJoin(damaged.begin(), damaged.begin() + named, ", "),
                   damaged.size() > named
                       ? absl::StrCat(" and ", damaged.size() - named, " more")
                       : "",
                   "; save these tensors again first, or leave them out"),
      {{"resource_type", "tensor"}, {"resource_name", first}});
}

absl::StatusOr<v1::CheckpointRecord> StoredDerivedSave::Commit(
    ManifestPart manifest, std::optional<int64_t> expected_latest_version) {
  if (save_.ended()) return absl::FailedPreconditionError("the save has ended");
  ManifestTotals totals;
  RETURN_IF_ERROR(CheckManifestPart(algorithm_, DigestsWanted::kAll, manifest, totals));
  RETURN_IF_ERROR(CheckManifestTotals(totals));
  RETURN_IF_ERROR(CheckNotDamaged(manifest));
  RETURN_IF_ERROR(save_.builder().Add(std::move(manifest)));
  CommitPlan plan;
  plan.model_id = request_.model_id;
  if (target_.model_is_new) {
    plan.create = target_.model;
  } else {
    plan.model_uid = target_.model.uid();
  }
  plan.metadata = request_.metadata;
  plan.base_model_uid = sources_.front()->model().uid();
  plan.base_model_id = sources_.front()->model().model_id();
  plan.base_version = sources_.front()->checkpoint().version();
  plan.request_id = request_.request_id;
  plan.request_digest = request_.request_digest;
  plan.request_decides = true;
  plan.allow_empty = true;  // as its source may be
  plan.expected_latest_version = expected_latest_version;
  return save_.Commit(std::move(plan));
}

// INVALID_ARGUMENT if chunks cannot be shared. NOT_FOUND if the target model was deleted
// and created again since a source of it was read.
absl::Status CheckSources(const SaveTarget& target,
                          const std::vector<std::shared_ptr<Read>>& sources) {
  if (sources.empty()) {
    return absl::InvalidArgumentError("a derived version needs a source");
  }
  for (const std::shared_ptr<Read>& source : sources) {
    const v1::ModelRecord& model = source->model();
    if (model.model_id() == target.model.model_id() &&
        model.uid() != target.model.uid()) {
      return DoesNotExist("model", ModelName(model.model_id()));
    }
    if (model.digest_algorithm() != target.model.digest_algorithm()) {
      return absl::InvalidArgumentError(
          absl::StrCat(ModelName(model.model_id()), " has another digest algorithm than ",
                       ModelName(target.model.model_id()), ": chunks are not shared"));
    }
  }
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<std::unique_ptr<DerivedSave>> StartDerivedSave(
    StoreCore* core, SaveRequest request, std::vector<std::shared_ptr<Read>> sources) {
  RETURN_IF_ERROR(
      core->space.CheckSpace(static_cast<int64_t>(request.metadata.ByteSizeLong())));
  // The first source is the base.
  request.no_base = true;
  ASSIGN_OR_RETURN(SaveTarget target, ResolveSave(*core, request));
  if (target.model_is_new && !sources.empty()) {
    // Chunks are shared only between models with the same algorithm.
    target.model.set_digest_algorithm(sources.front()->model().digest_algorithm());
  }
  RETURN_IF_ERROR(CheckSources(target, sources));
  auto save = std::make_unique<StoredDerivedSave>(core, request, std::move(target),
                                                  std::move(sources));
  RETURN_IF_ERROR(save->LoadSources());
  return save;
}

}  // namespace modelstore::storage
