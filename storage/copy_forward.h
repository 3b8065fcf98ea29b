// Gives back the space inside packs: copies what somebody needs out of packs that
// are mostly dead into a new one, and merges small packs, so that there are few.
//
// A crash between any two steps loses nothing: the new pack is garbage until one
// durable batch moves every PackRecord there, the old ones are from then on. A chunk
// that is damaged is never copied: its pack stays as it is.
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
#include "storage/liveness.h"

namespace modelstore::storage {

// One round; used by the one thread that collects. All arguments outlive it.
class CopyForward {
 public:
  // `stuck` are packs that cannot be copied for their damage; it grows.
  CopyForward(StoreCore* core, const PackSizes* sizes, const Liveness& liveness,
              absl::flat_hash_set<uint64_t>* stuck);

  bool empty() const { return groups_.empty() && inline_.empty(); }
  // What Run() frees, about.
  int64_t planned_bytes() const { return planned_bytes_; }

  // Returns the bytes that went from the disk. Where there is no room to copy the
  // rest stays for another time. `go_on` is asked at each chunk; CANCELLED.
  absl::StatusOr<int64_t> Run(const std::function<bool()>& go_on);

 private:
  // One pack as versions name it, and what they need of it.
  struct Tenant {
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
    std::vector<uint64_t> tenants;
  };

  void Plan(const Liveness& liveness);
  absl::StatusOr<std::vector<Tenant>> FindNeeded(const Group& group);
  absl::Status MarkNeeded(const std::string& uid, int64_t version,
                          std::vector<Tenant>& tenants);
  absl::StatusOr<int64_t> ShrinkInline(uint64_t pack);
  absl::StatusOr<int64_t> MoveGroup(const Group& group);
  absl::Status Copy(Tenant& tenant, PackWriter& writer, SpaceGrant& grant,
                    uint32_t& next);
  absl::Status Switch(const std::vector<Tenant>& tenants);
  // What is wrong with it is told once.
  void GiveUpOn(uint64_t host, absl::string_view why);

  StoreCore& core_;
  const PackSizes& sizes_;
  absl::flat_hash_set<uint64_t>& stuck_;
  std::function<bool()> go_on_;
  std::vector<Group> groups_;
  std::vector<uint64_t> inline_;
  int64_t planned_bytes_ = 0;
};

}  // namespace modelstore::storage
