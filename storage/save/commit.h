// The commit: one small, durable compare-and-set that makes a version visible.
#pragma once

#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "storage/core.h"
#include "storage/save/chunk_intake.h"
#include "storage/save/manifest_builder.h"

namespace modelstore::storage {

// Input of a commit; the save's bytes are in place.
struct CommitPlan {
  std::string model_id;
  // Uid that the model must have; empty: this commit may create the model.
  std::string model_uid;
  // Written if there is no model of this id.
  std::optional<v1::ModelRecord> create;

  v1::CheckpointMetadata metadata;
  std::string base_model_uid;
  std::string base_model_id;
  int64_t base_version = 0;
  std::string request_id;
  std::string request_digest;
  // Equal requests return the same version even if their manifests differ, as random
  // values do.
  bool request_decides = false;
  std::string upload_id;  // empty unless it was an upload
  // Commits a version without tensors, sections, attachments and architecture;
  // otherwise INVALID_ARGUMENT.
  bool allow_empty = false;
  std::optional<int64_t> expected_latest_version;

  const BuiltManifest* manifest = nullptr;
  std::vector<Renewal> renewals;
  // The save's own packs, used or not.
  std::vector<ChunkIntake::Sealed> sealed;
  // Adds further changes to the commit's batch; called once an attempt.
  std::function<void(const v1::CheckpointRecord&, CatalogBatch&)> further_changes;
};

struct Committed {
  v1::CheckpointRecord checkpoint;
  std::string model_uid;
  // False: the request was committed before; nothing was changed.
  bool fresh = true;
};

// Retries when another writer of the model was faster, unless that contradicts
// expected_latest_version (ABORTED). UNAVAILABLE with IsUndecided() if the outcome is
// unknown.
absl::StatusOr<Committed> CommitCheckpoint(StoreCore& core, const CommitPlan& plan);

// A new record for a model; `given` holds the fields that the caller may choose.
v1::ModelRecord NewModelRecord(const StoreCore& core, const v1::ModelRecord& given);

}  // namespace modelstore::storage
