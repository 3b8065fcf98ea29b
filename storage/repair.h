// Gives the versions that use a damaged chunk the copy of it that a later save has
// stored: their manifests name the copy's place from then on. What they hold, their
// digests and etags stay as they are.
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

  // Repairs each version of a pack that DamagedChunks has copies for. A version that is
  // held keeps its use of the pack: a later round releases it. Packs that lose their
  // last use by it are named by nothing afterwards. `go_on` is asked before each
  // version: CANCELLED, and what is repaired is repaired.
  absl::Status Run(const std::function<bool()>& go_on);

  // Versions were given copies, or released a pack.
  bool changed() const { return changed_; }

 private:
  using Copies = std::map<uint32_t, DamagedChunks::Copy>;

  absl::Status ReadModels();
  // Returns true if no version needs another round.
  absl::StatusOr<bool> RepairPack(const std::function<bool()>& go_on);
  absl::Status RepairVersion(const std::string& uid, int64_t version, bool& whole);
  struct Planned {
    uint64_t manifest_id = 0;
    bool moved = false;     // the manifest names other places
    bool released = false;  // packs
    bool waits = false;     // a pack that it does not name any more stays for a reader
  };
  absl::StatusOr<Planned> Plan(int64_t version, ModelChange& change);
  // Checks the bytes of the copies that the manifest is about to name, each once a
  // round: the version that stored one may be deleted since, and the copy with it.
  absl::Status CheckCopies(const v1::ManifestPage& manifest);
  absl::StatusOr<bool> IsWhole(const DamagedChunks::Copy& copy);

  StoreCore& core_;
  absl::flat_hash_map<std::string, std::string> models_;  // ids by uid
  // The pack that is repaired, and its copies; by sequence those that were checked.
  uint64_t pack_ = 0;
  Copies copies_, gone_;
  absl::flat_hash_set<uint32_t> checked_;
  int64_t repaired_ = 0;
  bool changed_ = false;
};

}  // namespace modelstore::storage
