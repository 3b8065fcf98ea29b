// Which versions of a model a retention policy lets go, and by which rule.
#pragma once

#include <cstdint>
#include <optional>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/time/time.h"
#include "modelstore/v1/operations.pb.h"
#include "modelstore/v1/resources.pb.h"
#include "server/checkpoint_filter.h"
#include "storage/checkpoint_store.h"

namespace modelstore::server {

// Shown every version of the model once, newest first; keeps a few bytes of each.
class RetentionPlan {
 public:
  using Decision = v1::PruneCheckpointsResponse::Decision;

  // `policy` has been validated.
  RetentionPlan(const v1::RetentionPolicy& policy, absl::Time now);

  void Look(const storage::records::CheckpointRecord& record);

  // After the last. FAILED_PRECONDITION where the metric of the policy is borne by no
  // version: it is misspelled, or nobody has measured it.
  absl::Status Check(absl::string_view model) const;

  // One version: as it was seen, and the rules that keep it, as bits of
  // Decision::Rule; or, where it leaves, EXPIRED or nothing.
  struct Verdict {
    storage::Checkpoints::SeenVersion seen;
    uint32_t rules = 0;
    bool leaves = false;
  };
  // Ascending. The newest never leaves.
  std::vector<Verdict> Verdicts() const;
  int64_t looked_at() const { return static_cast<int64_t>(verdicts_.size()); }

 private:
  // The rules that keep it but for the best.
  uint32_t KeptBy(const storage::records::CheckpointRecord& record) const;
  void Rank(const storage::records::CheckpointRecord& record, Verdict& verdict);

  const v1::RetentionPolicy policy_;
  const absl::Time now_;
  const bool has_rules_;
  const std::optional<CheckpointFigure> figure_;
  std::vector<Verdict> verdicts_;
  int64_t bearers_ = 0;
  // What versions bear instead; a few names.
  std::set<std::string> seen_metrics_;
  // The best so far: (figure, turned so that the largest is best; version).
  std::set<std::pair<double, int64_t>> best_;
};

}  // namespace modelstore::server
