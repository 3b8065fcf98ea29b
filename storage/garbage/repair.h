// Repairs versions that use a damaged chunk of which a later save has stored a copy:
// their manifests name the copy's place afterwards. Content, digests and etags do not
// change.
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

  // Repairs each version of the packs that DamagedChunks has copies for. A held version
  // keeps its use of the pack until a later round. The records of packs that lose their
  // last use are deleted. `keep_going` is called before each version; if it returns
  // false: CANCELLED, and versions already repaired stay so.
  absl::Status Run(const std::function<bool()>& keep_going);

  // True if a version was given copies or released a pack.
  bool changed() const { return changed_; }

 private:
  using Copies = std::map<uint32_t, DamagedChunks::Copy>;

  absl::Status ReadModels();
  // Returns true if no version needs another round.
  absl::StatusOr<bool> RepairPack(const std::function<bool()>& keep_going);
  absl::Status RepairVersion(const std::string& uid, int64_t version, bool& whole);
  struct Planned {
    uint64_t manifest_id = 0;
    bool moved = false;     // the manifest names other places
    bool released = false;  // packs
    // A pack that it no longer names is kept for its holders, or it cannot be read now.
    bool waits = false;
  };
  absl::StatusOr<Planned> Plan(int64_t version, ModelChange& change);
  // Checks the bytes of the copies that the manifest is about to name, each once a
  // round: a copy may be gone, with the version that stored it. One whose place the disk
  // cannot read is left to a later round.
  absl::Status CheckCopies(const v1::ManifestPage& manifest);
  absl::StatusOr<bool> IsIntact(const DamagedChunks::Copy& copy);

  StoreCore& core_;
  absl::flat_hash_map<std::string, std::string> models_;  // ids by uid
  // The current pack and its copies; `checked_` by sequence.
  uint64_t pack_ = 0;
  Copies copies_, gone_;
  absl::flat_hash_set<uint32_t> checked_;
  int64_t repaired_ = 0;
  bool changed_ = false;
};

}  // namespace modelstore::storage
