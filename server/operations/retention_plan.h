// Which versions of a model a retention policy lets go, and by which rule.
#pragma once

#include <cstdint>
#include <optional>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/time/time.h"
#include "modelstore/v1/operations.pb.h"
#include "modelstore/v1/resources.pb.h"
#include "server/core/checkpoint_filter.h"
#include "storage/api/checkpoints.h"

namespace modelstore::server {

// Shown every version of the model once, newest first.
class RetentionPlan {
 public:
  using Decision = v1::PruneCheckpointsResponse::Decision;

  // Bytes that the plan keeps of each version: its verdict and a place among the best,
  // twice over because containers grow by doubling.
  static constexpr int64_t kBytesPerVersion = 128;

  // `policy` has been validated.
  RetentionPlan(const v1::RetentionPolicy& policy, absl::Time now);

  void AddVersion(const storage::records::CheckpointRecord& record);

  // One version: as it was seen, and the rules that keep it, as bits of
  // Decision::Rule; or, where it leaves, RULE_EXPIRED or nothing.
  struct Verdict {
    storage::Checkpoints::SeenVersion seen;
    uint32_t rules = 0;
    bool leaves = false;
  };
  // Returns the verdicts, ascending, and clears the plan; call it after the last
  // AddVersion(). The newest version never leaves. FAILED_PRECONDITION if no version has
  // the policy's metric and one would leave that has not expired: the metric is
  // misspelled, or nobody has measured it.
  absl::StatusOr<std::vector<Verdict>> Finish(absl::string_view model);
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
  // Versions that have the policy's metric.
  int64_t ranked_ = 0;
  // Metrics that the others have; a few names.
  std::set<std::string> seen_metrics_;
  // The best so far: (figure, turned so that the largest is best; version).
  std::set<std::pair<double, int64_t>> best_;
};

}  // namespace modelstore::server
