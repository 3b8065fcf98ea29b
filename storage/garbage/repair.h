// Repairs versions that use a damaged chunk of which a later save stored a copy: rewrites
// their manifests to name the copy's place. Content, digests and etags do not change.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <string>

#include "absl/container/flat_hash_map.h"
#include "absl/container/flat_hash_set.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "storage/core.h"
#include "storage/model_change.h"

namespace modelstore::storage {

// One round; used by the one thread that collects.
class Repair {
 public:
  explicit Repair(StoreCore* core) : core_(*core) {}

  // Repairs each version that uses one of the packs for which DamagedChunks has copies. A
  // held version keeps its use of the pack until a later round. The records of packs that
  // lose their last use are deleted. `keep_going` is called before each version; if it
  // returns false: CANCELLED, and versions already repaired stay so.
  absl::Status Run(const std::function<bool()>& keep_going);

  // True if a manifest was changed or a pack was released.
  bool changed() const { return changed_; }

 private:
  using Copies = std::map<uint32_t, DamagedChunks::Copy>;

  // Fills in `models_`, once a round.
  absl::Status ReadModels();
  // Returns true if no version needs another round.
  absl::StatusOr<bool> RepairPack(const std::function<bool()>& keep_going);
  // Repairs one version in one conditional batch on its model. Clears `whole` if the
  // version needs another round.
  absl::Status RepairVersion(const std::string& uid, int64_t version, bool& whole);
  // What the batch for one version does.
  struct Planned {
    uint64_t manifest_id = 0;
    bool moved = false;     // the manifest names other places
    bool released = false;  // packs
    // Needs another round: a pack that it no longer names is kept for its holders, or it
    // cannot be read now.
    bool waits = false;
  };
  // Adds the changes of the version to `change`. May be called several times, as the
  // model's other writers come first. DATA_LOSS if the manifest is damaged.
  absl::StatusOr<Planned> Plan(int64_t version, ModelChange& change);
  // Checks the bytes of the copies that the manifest is about to name, each once a round:
  // a copy may have been deleted with the version that stored it. A copy that the disk
  // cannot read is left to a later round.
  absl::Status CheckCopies(const v1::ManifestPage& manifest);
  // Whether the copy still exists and has the right digest.
  absl::StatusOr<bool> IsIntact(const DamagedChunks::Copy& copy);

  StoreCore& core_;
  absl::flat_hash_map<std::string, std::string> models_;  // ids by uid
  // The current damaged pack, its copies by sequence, and those of them that no longer
  // exist. `checked_` has the sequences whose copies are intact.
  uint64_t pack_ = 0;
  Copies copies_, gone_;
  absl::flat_hash_set<uint32_t> checked_;
  int64_t repaired_ = 0;
  bool changed_ = false;
};

}  // namespace modelstore::storage
