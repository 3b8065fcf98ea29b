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

// Input of a commit. The save's chunks are already stored, or are in `sealed` for the
// commit's batch. What it points to must outlive the call.
struct CommitPlan {
  std::string model_id;
  // Uid that the model must have, else NOT_FOUND. Empty: any, and the commit may create
  // the model.
  std::string model_uid;
  // The record to write if there is no model of this id.
  std::optional<v1::ModelRecord> create;

  v1::CheckpointMetadata metadata;
  // The checkpoint that the version continues; empty and 0 if none.
  std::string base_model_uid;
  std::string base_model_id;
  int64_t base_version = 0;
  // Identify the request, for repeated calls; may be empty.
  std::string request_id;
  std::string request_digest;
  // Equal request digests identify equal requests, without comparing manifests: a
  // repeated modification may draw other random values.
  bool request_decides = false;
  std::string upload_id;  // empty unless it was an upload
  // Commits a version without tensors, sections, attachments and architecture;
  // otherwise INVALID_ARGUMENT.
  bool allow_empty = false;
  // ABORTED unless the model's latest version is this; 0: unless it has none.
  std::optional<int64_t> expected_latest_version;

  // Not owned. Required.
  const BuiltManifest* manifest = nullptr;
  // See ChunkIntake::Renewals().
  std::vector<Renewal> renewals;
  // The save's own packs, whether the manifest names chunks of them or not.
  std::vector<ChunkIntake::Sealed> sealed;
  // Adds further changes to the commit's batch. Called once for each attempt, so it must
  // be repeatable.
  std::function<void(const v1::CheckpointRecord&, CatalogBatch&)> further_changes;
};

// Result of a commit.
struct Committed {
  v1::CheckpointRecord checkpoint;
  std::string model_uid;
  // False if an earlier run of the request had committed it: nothing was changed.
  bool fresh = true;
};

// Commits a version. Retries if another writer of the model was faster, unless that
// contradicts expected_latest_version (ABORTED). Reopens storage after a fault and finds
// out whether the version was written. UNAVAILABLE with IsUndecided() if that is not
// possible now. Blocks for one disk sync or more.
absl::StatusOr<Committed> CommitCheckpoint(StoreCore& core, const CommitPlan& plan);

// A new record for a model; `given` holds the fields that the caller may choose.
v1::ModelRecord NewModelRecord(const StoreCore& core, const v1::ModelRecord& given);

}  // namespace modelstore::storage
