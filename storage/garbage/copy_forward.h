// Frees the dead space inside packs: copies the living chunks of mostly dead packs
// into a new one, and merges small packs.
//
// A crash between any two steps loses nothing: the new pack is garbage until one
// durable batch moves every PackRecord there, and the old ones are garbage after it. A
// chunk that is damaged or cannot be read is never copied: its pack stays as it is.
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

// One round; used by the one thread that collects. All arguments outlive it.
class CopyForward {
 public:
  // Adds packs that cannot be copied, because they are damaged, to `stuck`.
  CopyForward(StoreCore* core, const PackSizes* sizes, const Liveness& liveness,
              absl::flat_hash_set<uint64_t>* stuck);

  bool empty() const { return groups_.empty() && inline_.empty(); }
  // Estimate of the bytes that Run() frees.
  int64_t planned_bytes() const { return planned_bytes_; }

  // Returns the bytes freed on the disk. Stops early if there is no room to copy.
  // `keep_going` is called at each chunk; if it returns false: CANCELLED.
  absl::StatusOr<int64_t> Run(const std::function<bool()>& keep_going);

 private:
  // One pack as versions name it, and what they need of it.
  struct LogicalPack {
    uint64_t pack = 0;
    uint64_t host = 0;
    std::string record_bytes;
    v1::PackRecord record;
    std::vector<uint32_t> sizes;  // by sequence; 0: nobody needs it
    std::string digests;          // by sequence
    v1::PackPlace place;          // the new one

    int64_t needed_bytes() const;
  };
  // The packs that go into one new pack.
  struct Group {
    std::vector<uint64_t> hosts;
    std::vector<uint64_t> logical_packs;
  };

  void Plan(const Liveness& liveness);
  absl::StatusOr<std::vector<LogicalPack>> FindNeeded(const Group& group);
  absl::Status MarkNeeded(const std::string& uid, int64_t version,
                          std::vector<LogicalPack>& logical_packs);
  absl::StatusOr<int64_t> ShrinkInline(uint64_t pack);
  absl::StatusOr<int64_t> MoveGroup(const Group& group);
  absl::Status Copy(LogicalPack& logical, PackWriter& writer, SpaceGrant& grant,
                    uint32_t& next);
  absl::Status Switch(const std::vector<LogicalPack>& logical_packs);
  // Leaves a pack out after a failed read and reports why: until it is repaired if it is
  // damaged, in this round if the disk cannot read it. False if `status` is another
  // error.
  bool LeaveOut(uint64_t host, const absl::Status& status);
  bool IsLeftOut(uint64_t host) const;

  StoreCore& core_;
  const PackSizes& sizes_;
  absl::flat_hash_set<uint64_t>& stuck_;
  absl::flat_hash_set<uint64_t> unread_;
  std::function<bool()> keep_going_;
  std::vector<Group> groups_;
  std::vector<uint64_t> inline_;
  int64_t planned_bytes_ = 0;
};

}  // namespace modelstore::storage
