#include "server/retention.h"

#include <algorithm>

#include "absl/strings/str_cat.h"

namespace modelstore::server {
namespace {

std::optional<CheckpointFigure> FigureOf(const v1::RetentionPolicy& policy) {
  if (policy.keep_best() == 0) return std::nullopt;
  return CheckpointFigure::Parse(policy.metric() == "loss"
                                     ? "loss"
                                     : absl::StrCat("metrics.", policy.metric()));
}

}  // namespace

RetentionPlan::RetentionPlan(const v1::RetentionPolicy& policy, absl::Time now)
    : policy_(policy),
      now_(now),
      has_rules_(policy.keep_latest() > 0 || policy.keep_best() > 0 ||
                 policy.keep_every_steps() > 0 ||
                 policy.keep_younger_than_seconds() > 0),
      figure_(FigureOf(policy)) {}

void RetentionPlan::Look(const storage::records::CheckpointRecord& record) {
  ++looked_at_;
  const bool is_newest = looked_at_ == 1;  // it always stays
  const int64_t version = record.version();
  if (!is_newest && record.expire_time_us() != 0 &&
      absl::FromUnixMicros(record.expire_time_us()) <= now_) {
    expired_.push_back(version);
    return;
  }
  if (figure_.has_value()) {
    if (const std::optional<double> value = figure_->Of(record); value.has_value()) {
      best_.emplace(policy_.maximize() ? *value : -*value, version);
    }
    if (best_.size() > static_cast<size_t>(policy_.keep_best())) {
      best_.erase(best_.begin());
    }
  }
  const bool kept =
      is_newest || !has_rules_ || looked_at_ <= policy_.keep_latest() ||
      (policy_.keep_every_steps() > 0 && record.metadata().has_step() &&
       record.metadata().step() % policy_.keep_every_steps() == 0) ||
      (policy_.keep_younger_than_seconds() > 0 &&
       now_ - absl::FromUnixMicros(record.create_time_us()) <
           absl::Seconds(policy_.keep_younger_than_seconds()));
  if (!kept) unkept_.insert(version);
}

std::vector<int64_t> RetentionPlan::Leaving() const {
  absl::flat_hash_set<int64_t> leaving = unkept_;
  for (const auto& [figure, version] : best_) leaving.erase(version);
  leaving.insert(expired_.begin(), expired_.end());
  std::vector<int64_t> versions(leaving.begin(), leaving.end());
  std::sort(versions.begin(), versions.end());
  return versions;
}

}  // namespace modelstore::server
