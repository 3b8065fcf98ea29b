#include "storage/resolve.h"

#include <utility>

#include "absl/strings/str_cat.h"
#include "proto/contract/errors.h"
#include "proto/contract/names.h"
#include "storage/keys.h"
#include "storage/record_codec.h"
#include "storage/save/commit.h"
#include "storage/status_macros.h"

namespace modelstore::storage {
namespace {

// Attempts to hold the latest version, or an alias's, that is deleted meanwhile.
constexpr int kHoldAttempts = 10;

// Whether a save of this request_id has been committed.
absl::StatusOr<bool> IsRequestCommitted(StoreCore& core, const v1::ModelRecord& model,
                                        const SaveRequest& request) {
  if (request.request_id.empty()) return false;
  ASSIGN_OR_RETURN(const std::optional<v1::RequestRecord> row,
                   GetRecord<v1::RequestRecord>(
                       core.catalog(), keys::Request(model.uid(), request.request_id)));
  return row.has_value() && row->version() != 0;
}

}  // namespace

absl::StatusOr<v1::ModelRecord> GetModel(StoreCore& core, absl::string_view model_id) {
  ASSIGN_OR_RETURN(std::optional<v1::ModelRecord> model,
                   GetRecord<v1::ModelRecord>(core.catalog(), keys::Model(model_id)));
  if (!model.has_value()) return DoesNotExist("model", ModelName(model_id));
  return *std::move(model);
}

absl::StatusOr<int64_t> VersionNumber(const v1::ModelRecord& model,
                                      const VersionName& version) {
  if (version.alias.empty()) return version.number.value_or(model.latest_version());
  const auto alias = model.aliases().find(version.alias);
  if (alias != model.aliases().end()) return alias->second;
  return DoesNotExist("alias", AliasNameOf(model.model_id(), version.alias));
}

absl::StatusOr<v1::CheckpointRecord> GetVersion(StoreCore& core,
                                                const v1::ModelRecord& model,
                                                const VersionName& version) {
  ASSIGN_OR_RETURN(const int64_t number, VersionNumber(model, version));
  if (number > 0) {
    ASSIGN_OR_RETURN(std::optional<v1::CheckpointRecord> record,
                     GetRecord<v1::CheckpointRecord>(core.catalog(),
                                                     keys::Version(model.uid(), number)));
    if (record.has_value()) return *std::move(record);
  }
  return DoesNotExist("checkpoint", version.number.has_value() || number > 0
                                        ? CheckpointNameOf(model.model_id(), number)
                                        : absl::StrCat(ModelName(model.model_id()),
                                                       "/checkpoints/latest"));
}

absl::StatusOr<HeldVersion> HoldVersion(StoreCore& core, absl::string_view model_id,
                                        const VersionName& version) {
  for (int attempt = 1;; ++attempt) {
    ASSIGN_OR_RETURN(v1::ModelRecord model, GetModel(core, model_id));
    ASSIGN_OR_RETURN(const int64_t number, VersionNumber(model, version));
    std::optional<Hold> hold = core.holds.Acquire(model.uid(), number);
    // Looked up only after it is held; see storage/holds.h.
    absl::StatusOr<v1::CheckpointRecord> record = GetVersion(core, model, version);
    if (record.ok() && hold.has_value()) {
      return HeldVersion{*std::move(hold), std::move(model), *std::move(record)};
    }
    if (hold.has_value()) core.holds.Retract(*std::move(hold));
    // The latest, or what the alias named, may have been deleted since the model
    // was read.
    // A number is not resolved again: it names one version for ever.
    const bool again = (record.ok() || absl::IsNotFound(record.status())) &&
                       !version.number.has_value() && number != 0;
    if (again && attempt < kHoldAttempts) continue;
    if (!record.ok()) return record.status();
    return DoesNotExist("checkpoint", CheckpointNameOf(model_id, number));
  }
}

absl::StatusOr<SaveTarget> ResolveSave(StoreCore& core, const SaveRequest& request) {
  SaveTarget target;
  RETURN_IF_ERROR(ValidateModelId("parent", request.model_id));
  RETURN_IF_ERROR(ValidateRequestId("request_id", request.request_id));
  absl::StatusOr<v1::ModelRecord> model = GetModel(core, request.model_id);
  if (model.ok()) {
    target.model = *std::move(model);
  } else if (absl::IsNotFound(model.status()) && request.create_model) {
    v1::ModelRecord wanted;
    wanted.set_model_id(request.model_id);
    target.model = NewModelRecord(core, wanted);
    target.model_is_new = true;
  } else {
    return model.status();
  }
  if (request.no_base) return target;
  const bool named =
      request.base_model_id.has_value() || request.base_version.has_value();
  if (!named && (target.model_is_new || target.model.latest_version() == 0))
    return target;
  absl::StatusOr<HeldVersion> base =
      HoldVersion(core, request.base_model_id.value_or(request.model_id),
                  request.base_version.value_or(VersionName()));
  if (!base.ok()) {
    if (!absl::IsNotFound(base.status())) return base.status();
    // If no base is named, a model without versions is no error.
    if (!named) return target;
    // Nor is it an error if the base was deleted after this request was committed: the
    // repeated request gets its version.
    ASSIGN_OR_RETURN(const bool repeated,
                     IsRequestCommitted(core, target.model, request));
    if (repeated) return target;
    return base.status();
  }
  if (base->model.digest_algorithm() != target.model.digest_algorithm()) {
    return InvalidField("base_checkpoint",
                        "its model has another digest algorithm: chunks are not shared");
  }
  target.base = *std::move(base);
  return target;
}

}  // namespace modelstore::storage
