// A save that is kept in one object until its commit: the common part of OneShotSave
// and DerivedSave. If it is destroyed before its commit, nothing remains.
#pragma once

#include <memory>
#include <optional>

#include "absl/status/statusor.h"
#include "storage/core.h"
#include "storage/save/chunk_intake.h"
#include "storage/save/commit.h"
#include "storage/save/manifest_builder.h"

namespace modelstore::storage {

// Thread-safe as its intake is; the builder is used by one thread at a time.
class PendingSave {
 public:
  PendingSave(StoreCore* core, DigestAlgorithm algorithm)
      : core_(*core), builder_(algorithm), intake_(core, algorithm, nullptr) {}
  // Abandons it unless it has ended.
  ~PendingSave();

  ManifestBuilder& builder() { return builder_; }
  ChunkIntake& intake() { return intake_; }
  bool ended() const { return ended_; }

  // Fills in the plan's manifest and packs and commits. To be called once: a refused
  // save has ended too, and its packs are dropped.
  absl::StatusOr<v1::CheckpointRecord> Commit(CommitPlan plan);

 private:
  void DropUnused(const BuiltManifest* used);

  StoreCore& core_;
  ManifestBuilder builder_;
  ChunkIntake intake_;
  bool built_ = false;
  bool ended_ = false;
};

}  // namespace modelstore::storage
