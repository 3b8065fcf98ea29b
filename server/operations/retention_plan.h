// Decides which versions of a model a retention policy keeps, and by which rules.
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

// Used by one thread at a time.
//
//   RetentionPlan plan(policy, now);
//   for each version of the model, newest first: plan.AddVersion(record);
//   auto verdicts = plan.Finish(name);
class RetentionPlan {
 public:
  using Decision = v1::PruneCheckpointsResponse::Decision;

  // Upper bound of the plan's memory for a version: its verdict and its entry in best_,
  // doubled because containers grow by doubling.
  static constexpr int64_t kBytesPerVersion = 128;

  // `policy` has been validated.
  RetentionPlan(const v1::RetentionPolicy& policy, absl::Time now);

  // Called once for each version, newest first.
  void AddVersion(const storage::records::CheckpointRecord& record);

  // The decision on one version.
  struct Verdict {
    // Version and generation that were read.
    storage::Checkpoints::SeenVersion seen;
    // Bits 1 << Decision::Rule. If `leaves` is false: the rules that keep the version.
    // Otherwise RULE_EXPIRED, or 0 if no rule keeps it.
    uint32_t rules = 0;
    // The version is to be deleted.
    bool leaves = false;
  };
  // Returns the verdicts by ascending version and clears the plan. Called after the last
  // AddVersion(). The newest version is always kept. FAILED_PRECONDITION if the policy
  // has a metric that no version has, and a version that has not expired would be
  // deleted: the metric is misspelled or was never recorded. `model` is its name, for
  // the error.
  absl::StatusOr<std::vector<Verdict>> Finish(absl::string_view model);
  // Number of versions added.
  int64_t looked_at() const { return static_cast<int64_t>(verdicts_.size()); }

 private:
  // Returns the rules that keep a version, except keep_best.
  uint32_t KeptBy(const storage::records::CheckpointRecord& record) const;
  // Ranks a version for keep_best.
  void Rank(const storage::records::CheckpointRecord& record, Verdict& verdict);

  const v1::RetentionPolicy policy_;
  const absl::Time now_;
  const bool has_rules_;  // the policy keeps something; otherwise it keeps everything
  const std::optional<CheckpointFigure> figure_;  // of keep_best
  std::vector<Verdict> verdicts_;
  // Versions that have the policy's metric.
  int64_t ranked_ = 0;
  // Names of metrics of versions without the policy's metric: a few, for the error.
  std::set<std::string> seen_metrics_;
  // The best keep_best versions so far: (figure, negated unless larger is better;
  // version). The first is the worst of them; of equal figures the older version is.
  std::set<std::pair<double, int64_t>> best_;
};

}  // namespace modelstore::server
