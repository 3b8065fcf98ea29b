#include "server/core/resource_names.h"

#include "absl/strings/str_cat.h"
#include "proto/contract/errors.h"

namespace modelstore::server {

absl::StatusOr<CheckpointRef> ParseCheckpointRef(absl::string_view field,
                                                 absl::string_view name) {
  auto parsed = ParseCheckpointName(field, name);
  if (!parsed.ok()) return parsed.status();
  if (parsed->version || parsed->IsLatest()) {
    return CheckpointRef{parsed->model_id, parsed->version};
  }
  return CheckpointRef{parsed->model_id, storage::VersionName::Alias(parsed->alias)};
}

absl::StatusOr<CheckpointName> ParseNumberedCheckpoint(absl::string_view field,
                                                       absl::string_view name) {
  auto parsed = ParseCheckpointName(field, name);
  if (!parsed.ok() || parsed->version) return parsed;
  return InvalidField(field, absl::StrCat("needs the version's number, not `",
                                          parsed->alias, "`, which may move meanwhile"));
}

absl::StatusOr<std::optional<int64_t>> ExpectedLatest(std::optional<int64_t> version,
                                                      bool expect_no_version) {
  constexpr absl::string_view kField = "expected_latest_version";
  if (version.has_value() && *version <= 0) {
    return InvalidField(kField,
                        "the number of a version, above 0; set expect_no_version "
                        "for a model without versions");
  }
  if (!expect_no_version) return version;
  if (version.has_value()) return InvalidField(kField, "not with expect_no_version");
  return 0;
}

absl::StatusOr<std::optional<uint64_t>> CheckEtag(absl::string_view name,
                                                  absl::string_view etag,
                                                  absl::string_view present,
                                                  uint64_t generation) {
  if (etag.empty()) return std::nullopt;
  if (etag == present) return generation;
  return StaleEtag(name);
}

std::string FullTensorName(const storage::records::TensorRecord& tensor) {
  return TensorNameOf(tensor.section(), tensor.key());
}

std::string FullCheckpointName(const storage::Read& read) {
  return CheckpointNameOf(read.model().model_id(), read.checkpoint().version());
}

absl::StatusOr<storage::records::ModelRecord> ModelOfUid(ServiceContext& context,
                                                         absl::string_view model_id,
                                                         absl::string_view uid) {
  auto record = context.store->models().Get(model_id);
  if (!record.ok() || uid.empty() || record->uid() == uid) return record;
  return DoesNotExist("model", absl::StrCat(ModelName(model_id), " of uid ", uid));
}

}  // namespace modelstore::server
