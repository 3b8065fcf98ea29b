#include "server/core/save_request.h"

#include "absl/strings/str_cat.h"
#include "proto/contract/digest.h"
#include "proto/contract/message_codec.h"
#include "proto/contract/names.h"
#include "server/core/convert.h"
#include "server/core/resource_names.h"
#include "server/core/validation.h"

namespace modelstore::server {
namespace {

absl::Status SetBase(ServiceContext& context, absl::string_view field,
                     const std::string& base, storage::SaveRequest* save) {
  if (base.empty()) return absl::OkStatus();
  if (save->no_base) return InvalidField(field, "not with no_base");
  auto ref = ParseCheckpointRef(field, base);
  if (!ref.ok()) return ref.status();
  if (!ref->version.number) {
    // The number is stored, because `latest` and aliases move.
    auto named = context.store->checkpoints().Get(ref->model_id, ref->version);
    if (!named.ok()) return named.status();
    ref->version = named->version();
  }
  save->base_model_id = ref->model_id;
  save->base_version = ref->version;
  return absl::OkStatus();
}

// Digest of the content that a repeated request with the same request_id must have. It
// covers only what the client chose: no output fields, and not whether the save uses one
// stream or an upload, so that a client may retry by the other path.
std::string RequestDigest(const std::string& model_id, const SaveHeader& header) {
  const v1::Checkpoint& checkpoint = header.checkpoint;
  v1::Checkpoint given;
  if (checkpoint.has_epoch()) given.set_epoch(checkpoint.epoch());
  if (checkpoint.has_step()) given.set_step(checkpoint.step());
  if (checkpoint.has_loss()) given.set_loss(checkpoint.loss());
  *given.mutable_metrics() = checkpoint.metrics();
  *given.mutable_labels() = checkpoint.labels();
  given.set_description(checkpoint.description());
  if (checkpoint.has_architecture()) {
    *given.mutable_architecture() = checkpoint.architecture();
  }
  given.set_base_checkpoint(checkpoint.base_checkpoint());
  const std::string content =
      absl::StrCat(model_id, "\n", header.contribution_count, "\n",
                   header.no_base ? "no_base\n" : "", SerializeDeterministic(given));
  return std::string(ComputeDigest(DigestAlgorithm::kXxh3_128, content).bytes());
}

}  // namespace

absl::StatusOr<storage::SaveRequest> MakeSaveRequest(ServiceContext& context,
                                                     absl::string_view checkpoint_field,
                                                     const SaveHeader& header) {
  auto model_id = ParseModelName("parent", header.parent);
  if (!model_id.ok()) return model_id.status();
  if (auto s = ValidateRequestId("request_id", header.request_id); !s.ok()) return s;
  if (auto s = ValidateCheckpoint(checkpoint_field, header.checkpoint); !s.ok()) return s;
  storage::SaveRequest save;
  save.model_id = *model_id;
  save.create_model = header.create_model;
  save.metadata = MetadataToRecord(header.checkpoint);
  save.request_id = header.request_id;
  save.request_digest = RequestDigest(*model_id, header);
  save.no_base = header.no_base;
  if (auto s = SetBase(context, absl::StrCat(checkpoint_field, ".base_checkpoint"),
                       header.checkpoint.base_checkpoint(), &save);
      !s.ok()) {
    return s;
  }
  return save;
}

absl::StatusOr<v1::Checkpoint> CommittedCheckpoint(
    ServiceContext& context, absl::string_view model_id,
    const storage::records::CheckpointRecord& record) {
  auto model = context.store->models().Get(model_id);
  // The model may have been deleted since the commit.
  if (!model.ok()) {
    model = storage::records::ModelRecord();
    model->set_model_id(std::string(model_id));
  }
  return CheckpointFromRecord(*model, record);
}

}  // namespace modelstore::server
