#include <algorithm>

#include "absl/strings/str_cat.h"
#include "proto/contract/errors.h"
#include "proto/contract/limits.h"
#include "server/core/convert.h"
#include "server/core/resource_names.h"
#include "server/core/validation.h"
#include "server/handlers/handlers.h"

namespace modelstore::server {
namespace {

// Adds the values of the sections, of which `checkpoint` has the summaries. Sections are
// in the manifest after the tensors, so it is read from its end, up to the first page
// with tensors alone. OUT_OF_RANGE if the values exceed a response.
absl::Status AddSectionValues(ServiceContext& context,
                              const records::CheckpointRecord& record,
                              v1::Checkpoint* checkpoint) {
  int missing = checkpoint->sections_size();
  size_t bytes = 0;
  for (uint32_t page = record.manifest_pages(); page-- > 0 && missing > 0;) {
    auto manifest = context.store->checkpoints().ReadManifestPage(record, page);
    if (!manifest.ok()) return manifest.status();
    for (const auto& stored : manifest->sections()) {
      // Checked before decoding, which takes several times the encoded size.
      bytes += stored.value().size();
      if (bytes > static_cast<size_t>(kMaxAnswerBytes)) {
        return AnswerTooLarge(
            absl::StrCat("the full view of ", checkpoint->name()),
            "use GetSection for one section, ListTensors, or LoadCheckpoint");
      }
      auto section = SectionFromRecord(stored, checkpoint->name());
      if (!section.ok()) return section.status();
      for (auto& summary : *checkpoint->mutable_sections()) {
        if (summary.name() != section->name()) continue;
        if (section->has_value()) *summary.mutable_value() = section->value();
        if (section->has_metadata()) *summary.mutable_metadata() = section->metadata();
        --missing;
      }
    }
    if (manifest->sections_size() == 0 && manifest->tensors_size() > 0) break;
  }
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<v1::Checkpoint> GetCheckpoint(ServiceContext& context,
                                             const v1::GetCheckpointRequest& request) {
  auto ref = ParseCheckpointRef("name", request.name());
  if (!ref.ok()) return ref.status();
  if (!v1::CheckpointView_IsValid(request.view())) {
    return InvalidField("view", "unknown");
  }
  auto model = context.store->models().Get(ref->model_id);
  if (!model.ok()) return model.status();
  auto record = context.store->checkpoints().Get(ref->model_id, ref->version);
  if (!record.ok()) return record.status();
  v1::Checkpoint checkpoint = CheckpointFromRecord(*model, *record);
  if (request.view() != v1::CHECKPOINT_VIEW_FULL) return checkpoint;
  auto s = AddFullMetadata(record->metadata(), checkpoint.name(), &checkpoint);
  if (!s.ok()) return s;
  if (s = AddSectionValues(context, *record, &checkpoint); !s.ok()) return s;
  if (checkpoint.ByteSizeLong() > static_cast<size_t>(kMaxAnswerBytes)) {
    return AnswerTooLarge(absl::StrCat("the full view of ", checkpoint.name()),
                          "use GetSection");
  }
  return checkpoint;
}

absl::StatusOr<v1::Checkpoint> UpdateCheckpoint(
    ServiceContext& context, const v1::UpdateCheckpointRequest& request) {
  const v1::Checkpoint& wanted = request.checkpoint();
  auto ref = ParseCheckpointRef("checkpoint.name", wanted.name());
  if (!ref.ok()) return ref.status();
  if (auto s = ValidateCheckpoint("checkpoint", wanted); !s.ok()) return s;
  storage::Checkpoints::Update update;
  for (const std::string& path : request.update_mask().paths()) {
    if (path == "labels") {
      update.labels = wanted.labels();
    } else if (path == "description") {
      update.description = wanted.description();
    } else if (path == "pinned") {
      update.pinned = wanted.pinned();
    } else if (path == "expire_time") {
      auto micros = ExpiryMicros("checkpoint.expire_time", wanted);
      if (!micros.ok()) return micros.status();
      update.expire_time_us = *micros;
    } else {
      return UnknownMaskPath(path, "labels, description, pinned, expire_time");
    }
  }
  if (request.update_mask().paths().empty()) return EmptyMask();
  // Storage repeats the checks of uid and generation in the batch of the change; here
  // they translate the etag into a generation.
  auto model = ModelOfUid(context, ref->model_id, wanted.model_uid());
  if (!model.ok()) return model.status();
  auto record = context.store->checkpoints().Get(ref->model_id, ref->version);
  if (!record.ok()) return record.status();
  auto generation =
      CheckEtag(wanted.name(), wanted.etag(), CheckpointEtag(model->uid(), *record),
                record->generation());
  if (!generation.ok()) return generation.status();
  // By number, because an alias may have moved since the record was read.
  auto changed = context.store->checkpoints().Change(
      ref->model_id, record->version(), update,
      {model->uid(), *generation, request.validate_only()});
  if (!changed.ok()) return changed.status();
  return CheckpointFromRecord(*model, *changed);
}

absl::StatusOr<v1::DeleteCheckpointResponse> DeleteCheckpoint(
    ServiceContext& context, const v1::DeleteCheckpointRequest& request) {
  auto name = ParseNumberedCheckpoint("name", request.name());
  if (!name.ok()) return name.status();
  storage::ChangeOptions options;
  options.validate_only = request.validate_only();
  options.model_uid = request.model_uid();
  // Only an etag needs the record. Storage then expects the uid and generation that it
  // stands for.
  if (!request.etag().empty()) {
    auto model = ModelOfUid(context, name->model_id, request.model_uid());
    if (!model.ok()) return model.status();
    options.model_uid = model->uid();
    auto record = context.store->checkpoints().Get(name->model_id, name->version);
    if (!record.ok()) return record.status();
    auto generation =
        CheckEtag(request.name(), request.etag(), CheckpointEtag(model->uid(), *record),
                  record->generation());
    if (!generation.ok()) return generation.status();
    options.generation = *generation;
  }
  auto freed =
      context.store->checkpoints().Delete(name->model_id, *name->version, options);
  if (!freed.ok()) return freed.status();
  v1::DeleteCheckpointResponse response;
  response.set_freed_bytes(freed->freed_bytes);
  response.set_waiting_bytes(freed->waiting_bytes);
  return response;
}

}  // namespace modelstore::server
