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

// The intake is thread-safe; the builder is used by one thread at a time. Commit() must
// not run together with a use of either.
class PendingSave {
 public:
  PendingSave(StoreCore* core, DigestAlgorithm algorithm)
      : core_(*core), builder_(algorithm), intake_(core, algorithm, nullptr) {}
  // Abandons the save unless it has ended: its packs are dropped.
  ~PendingSave();

  ManifestBuilder& builder() { return builder_; }
  ChunkIntake& intake() { return intake_; }
  bool ended() const { return ended_; }

  // Fills in the plan's manifest and packs, and commits. To be called once: after a
  // refusal the save cannot be used any more, and the destructor drops its packs.
  absl::StatusOr<v1::CheckpointRecord> Commit(CommitPlan plan);

 private:
  // Drops the save's packs that `used` does not name; all of them if it is null.
  void DropUnused(const BuiltManifest* used);

  StoreCore& core_;
  ManifestBuilder builder_;
  ChunkIntake intake_;
  // `ended_`: committed, or undecided. The packs then belong to the version, or to the
  // collector.
  bool built_ = false;
  bool ended_ = false;
};

}  // namespace modelstore::storage
