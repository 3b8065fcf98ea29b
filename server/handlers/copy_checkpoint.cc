#include "absl/strings/str_cat.h"
#include "proto/contract/errors.h"
#include "proto/contract/message_codec.h"
#include "proto/contract/names.h"
#include "server/core/convert.h"
#include "server/core/reservation.h"
#include "server/core/resource_names.h"
#include "server/core/save_request.h"
#include "server/core/validation.h"
#include "server/handlers/handlers.h"

namespace modelstore::server {
namespace {

// Returns the fields of the request's metadata that a copy uses. The others are ignored.
v1::Checkpoint TakenMetadata(const v1::Checkpoint& given) {
  v1::Checkpoint taken;
  if (given.has_epoch()) taken.set_epoch(given.epoch());
  if (given.has_step()) taken.set_step(given.step());
  if (given.has_loss()) taken.set_loss(given.loss());
  *taken.mutable_metrics() = given.metrics();
  *taken.mutable_labels() = given.labels();
  taken.set_description(given.description());
  return taken;
}

// Digest of the content that a repeated request with the same request_id must have.
// Preconditions and validate_only are not part of it.
std::string RequestDigest(const v1::CopyCheckpointRequest& request) {
  v1::CopyCheckpointRequest given = request;
  given.clear_request_id();
  given.clear_expected_latest_version();
  given.clear_expect_no_version();
  given.clear_validate_only();
  *given.mutable_checkpoint() = TakenMetadata(request.checkpoint());
  const std::string content =
      absl::StrCat("CopyCheckpoint\n", SerializeDeterministic(given));
  return std::string(ComputeDigest(DigestAlgorithm::kXxh3_128, content).bytes());
}

// Returns the metadata of the copy: the source's, except for the fields that the request
// sets. Labels and description are always the request's. The edits belong to the source,
// which the copy names as its base.
records::CheckpointMetadata MetadataOf(const v1::Checkpoint& given,
                                       const storage::Read& source) {
  records::CheckpointMetadata metadata = source.checkpoint().metadata();
  *metadata.mutable_labels() = given.labels();
  metadata.set_description(given.description());
  if (given.has_epoch()) metadata.set_epoch(given.epoch());
  if (given.has_step()) metadata.set_step(given.step());
  if (given.has_loss()) metadata.set_loss(given.loss());
  if (!given.metrics().empty()) *metadata.mutable_metrics() = given.metrics();
  metadata.set_origin(v1::ORIGIN_COPIED);
  metadata.clear_edits();
  return metadata;
}

// Returns the request to storage without the metadata, which needs the source.
absl::StatusOr<storage::SaveRequest> MakeRequest(
    const v1::CopyCheckpointRequest& request) {
  auto model_id = ParseModelName("parent", request.parent());
  if (!model_id.ok()) return model_id.status();
  if (auto s = ValidateRequestId("request_id", request.request_id()); !s.ok()) return s;
  if (auto s = ValidateCheckpoint("checkpoint", TakenMetadata(request.checkpoint()));
      !s.ok()) {
    return s;
  }
  storage::SaveRequest save;
  save.model_id = *std::move(model_id);
  save.create_model = request.create_model();
  save.request_id = request.request_id();
  save.request_digest = RequestDigest(request);
  return save;
}

// Returns the model to copy to. If the copy creates it, returns the record that it would
// have. Chunks are shared by digest, so both models must use the same algorithm.
absl::StatusOr<records::ModelRecord> CheckDestination(
    ServiceContext& context, const v1::CopyCheckpointRequest& request,
    const std::string& model_id, const storage::Read& source) {
  auto model = context.store->models().Get(model_id);
  if (absl::IsNotFound(model.status()) && request.create_model()) {
    records::ModelRecord planned;
    planned.set_model_id(model_id);
    planned.set_next_version(1);
    return planned;
  }
  if (!model.ok()) return model.status();
  if (model->digest_algorithm() != source.model().digest_algorithm()) {
    return MakeError(ERROR_REASON_DIGEST_ALGORITHMS_DIFFER,
                     absl::StrCat(request.parent(), " has another digest algorithm than ",
                                  ModelName(source.model().model_id()),
                                  ": load the checkpoint and save it there"));
  }
  return model;
}

// Returns the response of a copy with validate_only: the checkpoint that the copy would
// make.
absl::StatusOr<v1::Checkpoint> Plan(const v1::CopyCheckpointRequest& request,
                                    std::optional<int64_t> expected_latest,
                                    const records::ModelRecord& destination,
                                    const storage::SaveRequest& save,
                                    const storage::Read& source) {
  if (expected_latest.has_value() && *expected_latest != destination.latest_version()) {
    return LatestVersionDiffers(request.parent(), *expected_latest,
                                destination.latest_version());
  }
  records::CheckpointRecord record = source.checkpoint();
  *record.mutable_metadata() = save.metadata;
  record.set_version(destination.next_version());
  record.set_base_model_id(source.model().model_id());
  record.set_base_model_uid(source.model().uid());
  record.set_base_version(source.checkpoint().version());
  record.set_request_id(request.request_id());
  record.set_stored_bytes(0);
  record.clear_pinned();
  record.clear_expire_time_us();
  record.clear_create_time_us();
  v1::Checkpoint planned = CheckpointFromRecord(destination, record);
  planned.clear_etag();
  planned.clear_create_time();
  return planned;
}

}  // namespace

absl::StatusOr<v1::Checkpoint> CopyCheckpoint(ServiceContext& context,
                                              const v1::CopyCheckpointRequest& request) {
  auto ref = ParseCheckpointRef("name", request.name());
  if (!ref.ok()) return ref.status();
  auto save = MakeRequest(request);
  if (!save.ok()) return save.status();
  auto expected_latest = ExpectedLatest(request);
  if (!expected_latest.ok()) return expected_latest.status();
  // Before the source is opened: since the first request it may have been deleted, or its
  // alias may have moved.
  auto earlier = context.store->saves().FindRequested(save->model_id, save->request_id,
                                                      save->request_digest);
  if (!earlier.ok()) return earlier.status();
  if (earlier->has_value()) {
    return CommittedCheckpoint(context, save->model_id, **earlier);
  }
  auto source = context.store->reads().Open(ref->model_id, ref->version);
  if (!source.ok()) return source.status();
  auto destination = CheckDestination(context, request, save->model_id, **source);
  if (!destination.ok()) return destination.status();

  save->metadata = MetadataOf(request.checkpoint(), **source);
  if (request.validate_only()) {
    return Plan(request, *expected_latest, *destination, *save, **source);
  }

  Reservation memory(context.memory);
  // Memory for the copy of the manifest passed to Commit(), and for what the save makes
  // of it.
  const auto bytes = static_cast<int64_t>((*source)->manifest().SpaceUsedLong());
  if (auto s = memory.Grow(2 * bytes); !s.ok()) return s;
  auto copy = context.store->saves().StartDerived(*save, {*source});
  if (!copy.ok()) return copy.status();
  auto record = (*copy)->Commit((*source)->manifest(), *expected_latest);
  if (!record.ok()) return record.status();
  return CommittedCheckpoint(context, save->model_id, *record);
}

}  // namespace modelstore::server
