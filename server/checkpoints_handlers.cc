#include <algorithm>

#include "absl/strings/str_cat.h"
#include "proto/contract/errors.h"
#include "proto/contract/names.h"
#include "server/convert.h"
#include "server/handlers.h"
#include "server/listing.h"
#include "server/page_token.h"

namespace modelstore::server {
namespace {

// Fills in the values of the summaries. They lie in the last pages of the
// manifest, after the tensors, so that the walk begins at the end.
absl::Status AddSectionValues(ServiceContext& context,
                              const records::CheckpointRecord& record,
                              v1::Checkpoint* checkpoint) {
  int missing = checkpoint->sections_size();
  size_t bytes = 0;
  for (uint32_t page = record.manifest_pages(); page-- > 0 && missing > 0;) {
    auto manifest = context.store->checkpoints().ReadManifestPage(record, page);
    if (!manifest.ok()) return manifest.status();
    for (const auto& stored : manifest->sections()) {
      bytes += stored.value().size();
      if (bytes > static_cast<size_t>(kMaxUnaryAnswerBytes)) {
        return absl::OutOfRangeError(
            absl::StrCat(checkpoint->name(),
                         ": its values exceed the 4 MiB of an answer: use GetSection for "
                         "one section, ListTensors, or LoadCheckpoint"));
      }
      auto section = SectionFromRecord(stored);
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

absl::StatusOr<CheckpointRef> ResolveCheckpoint(absl::string_view field,
                                                absl::string_view name) {
  auto parsed = ParseCheckpointName(field, name);
  if (!parsed.ok()) return parsed.status();
  if (parsed->version || parsed->IsLatest()) {
    return CheckpointRef{parsed->model_id, parsed->version};
  }
  return NoSuch("alias",
                absl::StrCat(ModelName(parsed->model_id), "/aliases/", parsed->alias));
}

absl::StatusOr<v1::Checkpoint> CommittedCheckpoint(
    ServiceContext& context, absl::string_view model_id,
    const storage::records::CheckpointRecord& record) {
  auto model = context.store->models().Get(model_id);
  return CheckpointFromRecord(model_id, model.ok() ? model->uid() : "", record);
}

absl::StatusOr<v1::Checkpoint> GetCheckpoint(ServiceContext& context,
                                             const v1::GetCheckpointRequest& request) {
  auto ref = ResolveCheckpoint("name", request.name());
  if (!ref.ok()) return ref.status();
  if (!v1::CheckpointView_IsValid(request.view())) {
    return InvalidField("view", "unknown");
  }
  auto model = context.store->models().Get(ref->model_id);
  if (!model.ok()) return model.status();
  auto record = context.store->checkpoints().Get(ref->model_id, ref->version);
  if (!record.ok()) return record.status();
  v1::Checkpoint checkpoint = CheckpointFromRecord(ref->model_id, model->uid(), *record);
  if (request.view() != v1::FULL) return checkpoint;
  if (auto s = AddFullMetadata(record->metadata(), &checkpoint); !s.ok()) {
    return Annotate(s, checkpoint.name());
  }
  if (auto s = AddSectionValues(context, *record, &checkpoint); !s.ok()) return s;
  if (checkpoint.ByteSizeLong() > static_cast<size_t>(kMaxUnaryAnswerBytes)) {
    return absl::OutOfRangeError(absl::StrCat(
        checkpoint.name(), ": view FULL exceeds the 4 MiB of an answer: use GetSection"));
  }
  return checkpoint;
}

absl::StatusOr<v1::ListCheckpointsResponse> ListCheckpoints(
    ServiceContext& context, const v1::ListCheckpointsRequest& request) {
  auto id = ParseModelName("parent", request.parent());
  if (!id.ok()) return id.status();
  auto limit = PageSize(request.page_size(), 50, 1000);
  if (!limit.ok()) return limit.status();
  if (!request.filter().empty()) {
    return absl::UnimplementedError("filter: not built; leave it empty");
  }
  if (!request.order_by().empty() && request.order_by() != "version" &&
      request.order_by() != "version desc") {
    return absl::UnimplementedError(
        "order_by: only `version` and `version desc` are built");
  }
  auto model = context.store->models().Get(*id);
  if (!model.ok()) return model.status();
  const bool newest_first = request.order_by() == "version desc";
  const std::string scope =
      absl::StrCat("ListCheckpoints/", model->uid(), newest_first ? "/desc" : "");
  auto after = ReadPageToken(scope, request.page_token());
  if (!after.ok()) return after.status();
  v1::ListCheckpointsResponse response;
  auto next = FillPage<records::CheckpointRecord, v1::Checkpoint>(
      *limit,
      [&](int n) {
        return context.store->checkpoints().List(*id, newest_first, *after, n);
      },
      [&](const records::CheckpointRecord& record) {
        return CheckpointFromRecord(*id, model->uid(), record);
      },
      response.mutable_checkpoints());
  if (!next.ok()) return next.status();
  response.set_next_page_token(MakePageToken(scope, *next));
  return response;
}

absl::StatusOr<v1::DeleteCheckpointResponse> DeleteCheckpoint(
    ServiceContext& context, const v1::DeleteCheckpointRequest& request) {
  auto name = ParseCheckpointName("name", request.name());
  if (!name.ok()) return name.status();
  if (!name->version) {
    return InvalidField("name",
                        absl::StrCat("what is deleted is named by its number, not "
                                     "by `",
                                     name->alias, "`"));
  }
  std::optional<uint64_t> generation;
  if (!request.etag().empty() || request.validate_only()) {
    auto model = context.store->models().Get(name->model_id);
    if (!model.ok()) return model.status();
    auto record = context.store->checkpoints().Get(name->model_id, name->version);
    if (!record.ok()) return record.status();
    if (!request.etag().empty()) {
      if (request.etag() != CheckpointEtag(model->uid(), *record)) {
        return absl::AbortedError(absl::StrCat(
            request.name(), " has changed since that etag: get it again, then retry"));
      }
      generation = record->generation();
    }
  }
  v1::DeleteCheckpointResponse response;
  if (request.validate_only()) return response;
  auto freed =
      context.store->checkpoints().Delete(name->model_id, *name->version, generation);
  if (!freed.ok()) return freed.status();
  response.set_freed_bytes(freed->freed_bytes);
  response.set_waiting_bytes(freed->waiting_bytes);
  return response;
}

}  // namespace modelstore::server
