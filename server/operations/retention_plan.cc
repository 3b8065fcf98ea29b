#include "server/operations/retention_plan.h"

#include <algorithm>
#include <utility>

#include "absl/container/flat_hash_set.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "proto/contract/errors.h"
#include "server/core/convert.h"

namespace modelstore::server {
namespace {

using Decision = RetentionPlan::Decision;

// Metrics listed in the error of Finish().
constexpr size_t kNamedMetrics = 10;

constexpr uint32_t Bit(Decision::Rule rule) { return 1u << rule; }

// Returns the figure by which keep_best ranks; absent without keep_best. A metric named
// `loss` is the checkpoint's own field.
std::optional<CheckpointFigure> FigureOf(const v1::RetentionPolicy& policy) {
  if (policy.keep_best() == 0) return std::nullopt;
  return CheckpointFigure::Parse(
      policy.metric() == "loss" ? "loss" : absl::StrCat("metrics.", policy.metric()));
}

bool HasMetric(const storage::records::CheckpointRecord& record,
               const std::string& metric) {
  return metric == "loss" ? record.metadata().has_loss()
                          : record.metadata().metrics().contains(metric);
}

}  // namespace

RetentionPlan::RetentionPlan(const v1::RetentionPolicy& policy, absl::Time now)
    : policy_(policy),
      now_(now),
      has_rules_(policy.keep_latest() > 0 || policy.keep_best() > 0 ||
                 policy.keep_every_steps() > 0 ||
                 ToDuration(policy.keep_younger_than()) > absl::ZeroDuration()),
      figure_(FigureOf(policy)) {}

uint32_t RetentionPlan::KeptBy(const storage::records::CheckpointRecord& record) const {
  uint32_t rules = has_rules_ ? 0 : Bit(Decision::RULE_NO_RULES);
  // Versions are added newest first, so looked_at() is the number of newer versions.
  if (looked_at() < policy_.keep_latest()) rules |= Bit(Decision::RULE_LATEST);
  if (policy_.keep_every_steps() > 0) {
    const auto& metadata = record.metadata();
    if (!metadata.has_step()) {
      if (!policy_.prune_unranked()) rules |= Bit(Decision::RULE_UNRANKED);
    } else if (metadata.step() % policy_.keep_every_steps() == 0) {
      rules |= Bit(Decision::RULE_EVERY_STEPS);
    }
  }
  const absl::Duration keep_younger_than = ToDuration(policy_.keep_younger_than());
  if (keep_younger_than > absl::ZeroDuration() &&
      now_ - absl::FromUnixMicros(record.create_time_us()) < keep_younger_than) {
    rules |= Bit(Decision::RULE_YOUNGER);
  }
  return rules;
}

void RetentionPlan::Rank(const storage::records::CheckpointRecord& record,
                         Verdict& verdict) {
  if (!HasMetric(record, policy_.metric())) {
    if (!policy_.prune_unranked()) verdict.rules |= Bit(Decision::RULE_UNRANKED);
    if (record.metadata().has_loss()) seen_metrics_.insert("loss");
    for (const auto& [name, value] : record.metadata().metrics()) {
      if (seen_metrics_.size() < kNamedMetrics) seen_metrics_.insert(name);
    }
    return;
  }
  ++ranked_;
  // An expired version is deleted in any case and must not displace another. One whose
  // figure is NaN counts as ranked but is never among the best.
  if (verdict.leaves) return;
  if (const auto value = figure_->Of(record); value.has_value()) {
    // The loss and metrics are doubles.
    const double figure = static_cast<double>(*value);
    best_.emplace(policy_.maximize() ? figure : -figure, record.version());
  }
  if (best_.size() > static_cast<size_t>(policy_.keep_best())) {
    best_.erase(best_.begin());
  }
}

// An expired version is to be deleted whatever rules would keep it, unless it is newest.
void RetentionPlan::AddVersion(const storage::records::CheckpointRecord& record) {
  Verdict verdict;
  verdict.seen = {record.version(), record.generation()};
  if (verdicts_.empty()) {
    verdict.rules = Bit(Decision::RULE_NEWEST);
  } else if (record.expire_time_us() != 0 &&
             absl::FromUnixMicros(record.expire_time_us()) <= now_) {
    verdict.leaves = true;
  }
  verdict.rules |= KeptBy(record);
  if (figure_.has_value()) Rank(record, verdict);
  if (verdict.leaves) verdict.rules = Bit(Decision::RULE_EXPIRED);
  verdicts_.push_back(verdict);
}

absl::StatusOr<std::vector<RetentionPlan::Verdict>> RetentionPlan::Finish(
    absl::string_view model) {
  absl::flat_hash_set<int64_t> best;
  for (const auto& [figure, version] : best_) best.insert(version);
  best_.clear();
  std::vector<Verdict> verdicts = std::exchange(verdicts_, {});
  std::reverse(verdicts.begin(), verdicts.end());
  bool loses = false;
  for (Verdict& verdict : verdicts) {
    if (best.contains(verdict.seen.version)) verdict.rules |= Bit(Decision::RULE_BEST);
    if (verdict.rules == 0) verdict.leaves = loses = true;
  }
  if (!loses || !figure_.has_value() || ranked_ > 0) return verdicts;
  return MakeError(
      ERROR_REASON_METRIC_MISSING,
      absl::StrCat(model, " not pruned: none of its ", verdicts.size(),
                   " versions has metric \"", policy_.metric(), "\"",
                   seen_metrics_.empty()
                       ? " or any other"
                       : absl::StrCat("; they have ", absl::StrJoin(seen_metrics_, ", ")),
                   "; correct the policy"),
      {{"metric", policy_.metric()}});
}

}  // namespace modelstore::server
