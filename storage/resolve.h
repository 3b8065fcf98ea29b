// Looks up what a request names.
#pragma once

#include <optional>
#include <string>

#include "absl/status/statusor.h"
#include "storage/api/saves.h"
#include "storage/api/types.h"
#include "storage/core.h"
#include "storage/holds.h"

namespace modelstore::storage {

// NOT_FOUND naming the model.
absl::StatusOr<v1::ModelRecord> GetModel(StoreCore& core, absl::string_view model_id);
// The number that it stands for now; 0 for the latest of none. NOT_FOUND naming
// the alias.
absl::StatusOr<int64_t> VersionNumber(const v1::ModelRecord& model,
                                      const VersionName& version);
// NOT_FOUND naming the checkpoint.
absl::StatusOr<v1::CheckpointRecord> GetVersion(StoreCore& core,
                                                const v1::ModelRecord& model,
                                                const VersionName& version);

// A checkpoint that stays while it is used.
struct HeldVersion {
  Hold hold;
  v1::ModelRecord model;
  v1::CheckpointRecord checkpoint;
};
absl::StatusOr<HeldVersion> HoldVersion(StoreCore& core, absl::string_view model_id,
                                        const VersionName& version);

// The model of a save and the checkpoint it continues.
struct SaveTarget {
  v1::ModelRecord model;
  bool model_is_new = false;
  std::optional<HeldVersion> base;
};
absl::StatusOr<SaveTarget> ResolveSave(StoreCore& core, const SaveRequest& request);

// The algorithm of a model's digests; every stored model has one we know.
inline DigestAlgorithm AlgorithmOf(const v1::ModelRecord& model) {
  return static_cast<DigestAlgorithm>(model.digest_algorithm());
}

}  // namespace modelstore::storage
