// Gives the versions that use a damaged chunk the copy of it that a later save has
// stored: their manifests name the copy's place from then on. What they hold, their
// digests and etags stay as they are.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "storage/core.h"
#include "storage/model_change.h"

namespace modelstore::storage {

// One round; used by the one thread that collects.
class Repair {
 public:
  explicit Repair(StoreCore* core) : core_(*core) {}

  // Repairs each version of a pack that DamagedChunks has copies for. Packs that lose
  // their last use by it are named by nothing afterwards. `go_on` is asked before each
  // version: CANCELLED, and what is repaired is repaired.
  absl::Status Run(const std::function<bool()>& go_on);

  // Versions that were given copies.
  int64_t repaired() const { return repaired_; }

 private:
  using Copies = std::map<uint32_t, DamagedChunks::Copy>;

  absl::Status ReadModels();
  absl::Status DropGone(uint64_t pack, Copies& copies);
  // True if each version that uses the pack was repaired, or needs it no more.
  absl::StatusOr<bool> RepairPack(uint64_t pack, const Copies& copies,
                                  const std::function<bool()>& go_on);
  absl::Status RepairVersion(const std::string& uid, int64_t version, uint64_t pack,
                             const Copies& copies);
  // The manifest that the change gives other places; absent: there is nothing to do.
  absl::StatusOr<std::optional<uint64_t>> Plan(int64_t version, uint64_t pack,
                                               const Copies& copies, ModelChange& change);

  StoreCore& core_;
  absl::flat_hash_map<std::string, std::string> models_;  // ids by uid
  int64_t repaired_ = 0;
};

}  // namespace modelstore::storage
