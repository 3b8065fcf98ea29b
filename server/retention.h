// Which versions of a model a retention policy lets go.
#pragma once

#include <cstdint>
#include <optional>
#include <set>
#include <utility>
#include <vector>

#include "absl/container/flat_hash_set.h"
#include "absl/time/time.h"
#include "modelstore/v1/resources.pb.h"
#include "server/checkpoint_filter.h"
#include "storage/checkpoint_store.h"

namespace modelstore::server {

// Shown every version of the model once, newest first; keeps a few bytes of each.
class RetentionPlan {
 public:
  // `policy` has been validated.
  RetentionPlan(const v1::RetentionPolicy& policy, absl::Time now);

  void Look(const storage::records::CheckpointRecord& record);

  // After the last. Ascending: those that no rule keeps, and those that have
  // expired; never the newest.
  std::vector<int64_t> Leaving() const;
  int64_t looked_at() const { return looked_at_; }

 private:
  const v1::RetentionPolicy policy_;
  const absl::Time now_;
  const bool has_rules_;
  const std::optional<CheckpointFigure> figure_;
  int64_t looked_at_ = 0;
  // That no rule but the one of the best keeps.
  absl::flat_hash_set<int64_t> unkept_;
  std::vector<int64_t> expired_;
  // The best so far: (figure, turned so that the largest is best; version).
  std::set<std::pair<double, int64_t>> best_;
};

}  // namespace modelstore::server
