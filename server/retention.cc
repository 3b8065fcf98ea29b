#include "server/retention.h"

#include <algorithm>

#include "absl/container/flat_hash_set.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"

namespace modelstore::server {
namespace {

using Decision = RetentionPlan::Decision;

constexpr size_t kNamedMetrics = 10;

constexpr uint32_t Bit(Decision::Rule rule) { return 1u << rule; }

std::optional<CheckpointFigure> FigureOf(const v1::RetentionPolicy& policy) {
  if (policy.keep_best() == 0) return std::nullopt;
  return CheckpointFigure::Parse(policy.metric() == "loss"
                                     ? "loss"
                                     : absl::StrCat("metrics.", policy.metric()));
}

bool Bears(const storage::records::CheckpointRecord& record, const std::string& metric) {
  return metric == "loss" ? record.metadata().has_loss()
                          : record.metadata().metrics().contains(metric);
}

}  // namespace

RetentionPlan::RetentionPlan(const v1::RetentionPolicy& policy, absl::Time now)
    : policy_(policy),
      now_(now),
      has_rules_(policy.keep_latest() > 0 || policy.keep_best() > 0 ||
                 policy.keep_every_steps() > 0 ||
                 policy.keep_younger_than_seconds() > 0),
      figure_(FigureOf(policy)) {}

uint32_t RetentionPlan::KeptBy(const storage::records::CheckpointRecord& record) const {
  uint32_t rules = has_rules_ ? 0 : Bit(Decision::NO_RULES);
  if (looked_at() < policy_.keep_latest()) rules |= Bit(Decision::LATEST);
  if (policy_.keep_every_steps() > 0 && record.metadata().has_step() &&
      record.metadata().step() % policy_.keep_every_steps() == 0) {
    rules |= Bit(Decision::EVERY_STEPS);
  }
  if (policy_.keep_younger_than_seconds() > 0 &&
      now_ - absl::FromUnixMicros(record.create_time_us()) <
          absl::Seconds(policy_.keep_younger_than_seconds())) {
    rules |= Bit(Decision::YOUNGER);
  }
  return rules;
}

void RetentionPlan::Rank(const storage::records::CheckpointRecord& record,
                         Verdict& verdict) {
  if (!Bears(record, policy_.metric())) {
    if (!policy_.prune_unranked()) verdict.rules |= Bit(Decision::UNRANKED);
    if (record.metadata().has_loss()) seen_metrics_.insert("loss");
    for (const auto& [name, value] : record.metadata().metrics()) {
      if (seen_metrics_.size() < kNamedMetrics) seen_metrics_.insert(name);
    }
    return;
  }
  ++bearers_;
  if (verdict.leaves) return;
  if (const std::optional<double> value = figure_->Of(record); value.has_value()) {
    best_.emplace(policy_.maximize() ? *value : -*value, record.version());
  }
  if (best_.size() > static_cast<size_t>(policy_.keep_best())) {
    best_.erase(best_.begin());
  }
}

void RetentionPlan::Look(const storage::records::CheckpointRecord& record) {
  Verdict verdict;
  verdict.seen = {record.version(), record.generation()};
  if (verdicts_.empty()) {
    verdict.rules = Bit(Decision::NEWEST);
  } else if (record.expire_time_us() != 0 &&
             absl::FromUnixMicros(record.expire_time_us()) <= now_) {
    verdict.leaves = true;
  }
  verdict.rules |= KeptBy(record);
  if (figure_.has_value()) Rank(record, verdict);
  if (verdict.leaves) verdict.rules = Bit(Decision::EXPIRED);
  verdicts_.push_back(verdict);
}

absl::Status RetentionPlan::Check(absl::string_view model) const {
  if (!figure_.has_value() || bearers_ > 0 || verdicts_.empty()) return absl::OkStatus();
  return absl::FailedPreconditionError(absl::StrCat(
      model, " is not pruned: none of its ", verdicts_.size(),
      " versions bears the metric \"", policy_.metric(), "\" of keep_best",
      seen_metrics_.empty()
          ? ", nor any other"
          : absl::StrCat("; they bear ", absl::StrJoin(seen_metrics_, ", ")),
      ": correct the policy's metric"));
}

std::vector<RetentionPlan::Verdict> RetentionPlan::Verdicts() const {
  absl::flat_hash_set<int64_t> best;
  for (const auto& [figure, version] : best_) best.insert(version);
  std::vector<Verdict> verdicts(verdicts_.rbegin(), verdicts_.rend());
  for (Verdict& verdict : verdicts) {
    if (best.contains(verdict.seen.version)) verdict.rules |= Bit(Decision::BEST);
    if (verdict.rules == 0) verdict.leaves = true;
  }
  return verdicts;
}

}  // namespace modelstore::server
