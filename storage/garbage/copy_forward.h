// Frees the dead space inside packs: copies the living chunks of mostly dead packs to a
// new pack, and merges small packs. Inline packs are shrunk in place.
//
// Manifests name a chunk by the pack that it was saved in (its logical pack) and its
// sequence. The pack that holds its bytes now is the host. A move is recorded only in the
// logical pack's PackRecord: the new host, and a shift that is added to each sequence. So
// no manifest changes, and a second move replaces the first.
//
// A crash between any two steps loses nothing: the new pack is garbage until one durable
// batch changes every PackRecord, and the old ones are garbage after it. A chunk that is
// damaged or cannot be read is never copied: its pack stays as it is.
#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "absl/container/flat_hash_set.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "storage/core.h"
#include "storage/garbage/liveness.h"

namespace modelstore::storage {

// One round; used by the one thread that collects. `core`, `sizes` and `stuck` must
// outlive it.
class CopyForward {
 public:
  // Plans the round. Leaves out the packs of `stuck`; Run() adds those that it finds
  // damaged.
  CopyForward(StoreCore* core, const PackSizes* sizes, const Liveness& liveness,
              absl::flat_hash_set<uint64_t>* stuck);

  // True if there is nothing to copy or shrink.
  bool empty() const { return groups_.empty() && inline_.empty(); }
  // Estimate of the bytes that Run() would free.
  int64_t planned_bytes() const { return planned_bytes_; }

  // Returns the bytes freed on the disk. Stops early if there is no room to copy.
  // `keep_going` is called at each chunk; if it returns false: CANCELLED.
  absl::StatusOr<int64_t> Run(const std::function<bool()>& keep_going);

 private:
  // One pack as versions name it, and the chunks of it that they need.
  struct LogicalPack {
    uint64_t pack = 0;
    uint64_t host = 0;
    // As stored: expected unchanged by the batch that moves it.
    std::string record_bytes;
    v1::PackRecord record;
    std::vector<uint32_t> sizes;  // by sequence; 0: nobody needs it
    std::string digests;          // by sequence
    v1::PackPlace place;          // the new one

    int64_t needed_bytes() const;
  };
  // The packs that are copied to one new pack.
  struct Group {
    std::vector<uint64_t> hosts;
    std::vector<uint64_t> logical_packs;
  };

  // Chooses the packs to copy and groups them so that each new pack is at most
  // StoreOptions::pack_bytes.
  void Plan(const Liveness& liveness);
  // Finds the chunks that versions need, from the manifests of all versions that use the
  // group's packs. Leaves out hosts if a manifest of one of their users cannot be read.
  absl::StatusOr<std::vector<LogicalPack>> FindNeeded(const Group& group);
  // Marks the chunks that the manifest of one version names, deleted versions included
  // that still wait.
  absl::Status MarkNeeded(const std::string& uid, int64_t version,
                          std::vector<LogicalPack>& logical_packs);
  // Each returns the bytes freed.
  absl::StatusOr<int64_t> ShrinkInline(uint64_t pack);
  absl::StatusOr<int64_t> MoveGroup(const Group& group);
  // Copies the needed chunks of one logical pack. `next` is the sequence of the next
  // chunk in the new pack.
  absl::Status Copy(LogicalPack& logical, PackWriter& writer, SpaceGrant& grant,
                    uint32_t& next);
  // Records the new places in one durable batch.
  absl::Status Switch(const std::vector<LogicalPack>& logical_packs);
  // Leaves a pack out after a failed read, and logs why: for this round if the disk
  // cannot read it, until it is repaired if it is damaged. Returns false if `status` is
  // another error.
  bool LeaveOut(uint64_t host, const absl::Status& status);
  bool IsLeftOut(uint64_t host) const;

  StoreCore& core_;
  const PackSizes& sizes_;
  absl::flat_hash_set<uint64_t>& stuck_;
  // Hosts that could not be read in this round.
  absl::flat_hash_set<uint64_t> unread_;
  std::function<bool()> keep_going_;
  std::vector<Group> groups_;
  // Inline packs to shrink.
  std::vector<uint64_t> inline_;
  int64_t planned_bytes_ = 0;
};

}  // namespace modelstore::storage
