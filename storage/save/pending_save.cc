#include "storage/save/pending_save.h"

#include <utility>
#include <vector>

#include "storage/keys.h"
#include "storage/status_macros.h"

namespace modelstore::storage {

PendingSave::~PendingSave() {
  if (ended_) return;
  intake_.Refuse(absl::CancelledError("the save was abandoned"));
  // On an error a pack may still be written; the collector drops it.
  if (intake_.AbandonOpen().ok()) DropUnused(nullptr);
}

// Errors are ignored: the collector drops packs that no record names.
void PendingSave::DropUnused(const BuiltManifest* used) {
  std::vector<uint64_t> packs;
  for (const ChunkIntake::Sealed& own : intake_.sealed()) {
    if (keys::IsInlinePack(own.pack)) continue;
    if (used == nullptr || !used->packs.contains(own.pack)) packs.push_back(own.pack);
  }
  if (packs.empty()) return;
  core_.garbage_possible = true;
  core_.chunks().DropPacks(packs).IgnoreError();
}

absl::StatusOr<v1::CheckpointRecord> PendingSave::Commit(CommitPlan plan) {
  intake_.Refuse(absl::FailedPreconditionError("the save has ended"));
  RETURN_IF_ERROR(intake_.SealAll());
  // Build() moves the manifest out of the builder, so it cannot be repeated.
  if (std::exchange(built_, true)) {
    return absl::FailedPreconditionError("the save was refused; start a new one");
  }
  ASSIGN_OR_RETURN(
      const BuiltManifest manifest,
      builder_.Build([this](const Digest& digest) { return intake_.Find(digest); },
                     [this](ChunkId chunk, const Digest& digest) {
                       return core_.ReadChecked(chunk, digest);
                     }));
  RETURN_IF_ERROR(core_.space.CheckSpace(manifest.page_bytes));
  plan.manifest = &manifest;
  plan.sealed = intake_.sealed();
  plan.renewals = intake_.Renewals();
  absl::StatusOr<Committed> committed = CommitCheckpoint(core_, plan);
  if (!committed.ok()) {
    // If the outcome is undecided, the version may exist and use the packs: leaves them
    // to the collector.
    ended_ = IsUndecided(committed.status());
    return committed.status();
  }
  ended_ = true;
  // An earlier run of the request made the version: it uses none of these packs.
  DropUnused(committed->fresh ? &manifest : nullptr);
  return std::move(committed->checkpoint);
}

}  // namespace modelstore::storage
