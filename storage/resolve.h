// Looks up the models and versions that a request names.
#pragma once

#include <optional>
#include <string>

#include "absl/status/statusor.h"
#include "storage/api/saves.h"
#include "storage/api/types.h"
#include "storage/core.h"
#include "storage/holds.h"

namespace modelstore::storage {

// Returns the model. NOT_FOUND naming it.
absl::StatusOr<v1::ModelRecord> GetModel(StoreCore& core, absl::string_view model_id);
// Returns the version number that a name stands for now; 0 for the latest version of a
// model without versions. Does not check that the version exists. NOT_FOUND naming the
// alias.
absl::StatusOr<int64_t> VersionNumber(const v1::ModelRecord& model,
                                      const VersionName& version);
// Returns the version's record. NOT_FOUND naming the checkpoint.
absl::StatusOr<v1::CheckpointRecord> GetVersion(StoreCore& core,
                                                const v1::ModelRecord& model,
                                                const VersionName& version);

// A checkpoint with a hold, which keeps its bytes.
struct HeldVersion {
  Hold hold;
  v1::ModelRecord model;
  v1::CheckpointRecord checkpoint;
};
// Resolves a name and holds the version. NOT_FOUND.
absl::StatusOr<HeldVersion> HoldVersion(StoreCore& core, absl::string_view model_id,
                                        const VersionName& version);

// The model of a save and the checkpoint it continues.
struct SaveTarget {
  v1::ModelRecord model;
  bool model_is_new = false;
  std::optional<HeldVersion> base;
};
// Validates the names of a save and resolves its model and base. NOT_FOUND for the model,
// unless create_model, or for a base that is named and does not exist, unless a save of
// the same request_id has been committed. INVALID_ARGUMENT if the base's model has
// another digest algorithm. Writes nothing.
absl::StatusOr<SaveTarget> ResolveSave(StoreCore& core, const SaveRequest& request);

// The algorithm of a model's digests. Creation refuses unknown ones.
inline DigestAlgorithm AlgorithmOf(const v1::ModelRecord& model) {
  return static_cast<DigestAlgorithm>(model.digest_algorithm());
}

}  // namespace modelstore::storage
