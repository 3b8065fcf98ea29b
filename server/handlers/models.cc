#include "absl/strings/str_cat.h"
#include "proto/contract/errors.h"
#include "proto/contract/names.h"
#include "server/core/convert.h"
#include "server/core/page_filler.h"
#include "server/core/page_token.h"
#include "server/core/resource_names.h"
#include "server/core/validation.h"
#include "server/handlers/handlers.h"

namespace modelstore::server {

absl::StatusOr<v1::Model> CreateModel(ServiceContext& context,
                                      const v1::CreateModelRequest& request) {
  if (auto s = ValidateModelId("model_id", request.model_id()); !s.ok()) return s;
  if (auto s = ValidateModel("model", request.model()); !s.ok()) return s;
  const records::ModelRecord wanted = ModelToRecord(request.model_id(), request.model());
  if (request.validate_only()) {
    // Returns what the call would create, without the fields that only a creation sets.
    auto present = context.store->models().Get(request.model_id());
    if (present.ok()) return AlreadyExists("model", ModelName(request.model_id()));
    if (!absl::IsNotFound(present.status())) return present.status();
    v1::Model model = ModelFromRecord(wanted);
    model.clear_etag();
    model.clear_create_time();
    model.clear_update_time();
    return model;
  }
  auto record = context.store->models().Create(wanted);
  if (!record.ok()) return record.status();
  return ModelFromRecord(*record);
}

absl::StatusOr<v1::Model> GetModel(ServiceContext& context,
                                   const v1::GetModelRequest& request) {
  auto id = ParseModelName("name", request.name());
  if (!id.ok()) return id.status();
  auto record = context.store->models().Get(*id);
  if (!record.ok()) return record.status();
  return ModelFromRecord(*record);
}

absl::StatusOr<v1::ListModelsResponse> ListModels(ServiceContext& context,
                                                  const v1::ListModelsRequest& request) {
  auto limit = PageSize(request.page_size(), 100, 1000);
  if (!limit.ok()) return limit.status();
  const std::string scope = absl::StrCat("ListModels/", request.prefix());
  auto after = ReadPageToken(scope, request.page_token());
  if (!after.ok()) return after.status();
  v1::ListModelsResponse response;
  auto next = FillPage<records::ModelRecord, v1::Model>(
      *limit,
      [&](int n) { return context.store->models().List(request.prefix(), *after, n); },
      ModelFromRecord, response.mutable_models());
  if (!next.ok()) return next.status();
  response.set_next_page_token(MakePageToken(scope, *next));
  return response;
}

absl::StatusOr<v1::Model> UpdateModel(ServiceContext& context,
                                      const v1::UpdateModelRequest& request) {
  const v1::Model& wanted = request.model();
  auto id = ParseModelName("model.name", wanted.name());
  if (!id.ok()) return id.status();
  if (auto s = ValidateModel("model", wanted); !s.ok()) return s;
  storage::Models::Update update;
  for (const std::string& path : request.update_mask().paths()) {
    if (path == "description") {
      update.description = wanted.description();
    } else if (path == "labels") {
      update.labels = wanted.labels();
    } else if (path == "retention_policy") {
      update.extra = EncodeModelExtra(wanted);
    } else {
      return UnknownMaskPath(path, "description, labels, retention_policy");
    }
  }
  if (request.update_mask().paths().empty()) return EmptyMask();
  // Storage repeats the checks of uid and generation in the batch of the change; here
  // they translate the etag into a generation.
  auto record = ModelOfUid(context, *id, wanted.uid());
  if (!record.ok()) return record.status();
  auto generation =
      CheckEtag(wanted.name(), wanted.etag(), ModelEtag(*record), record->generation());
  if (!generation.ok()) return generation.status();
  auto changed = context.store->models().Change(
      *id, update, {record->uid(), *generation, request.validate_only()});
  if (!changed.ok()) return changed.status();
  return ModelFromRecord(*changed);
}

absl::StatusOr<v1::DeleteModelResponse> DeleteModel(
    ServiceContext& context, const v1::DeleteModelRequest& request) {
  auto id = ParseModelName("name", request.name());
  if (!id.ok()) return id.status();
  auto record = ModelOfUid(context, *id, request.model_uid());
  if (!record.ok()) return record.status();
  auto generation =
      CheckEtag(request.name(), request.etag(), ModelEtag(*record), record->generation());
  if (!generation.ok()) return generation.status();
  auto freed = context.store->models().Delete(
      *id, request.force(), {record->uid(), *generation, request.validate_only()});
  if (!freed.ok()) return freed.status();
  v1::DeleteModelResponse response;
  // As of the read above; versions saved since are deleted too but not counted.
  response.set_deleted_checkpoints(record->checkpoint_count());
  response.set_freed_bytes(freed->freed_bytes);
  response.set_waiting_bytes(freed->waiting_bytes);
  return response;
}

}  // namespace modelstore::server
