#include "server/operations/prune_session.h"

#include <algorithm>
#include <utility>

#include "absl/container/flat_hash_set.h"
#include "absl/time/clock.h"
#include "proto/contract/names.h"
#include "server/core/convert.h"
#include "server/core/request_codec.h"
#include "server/core/resource_names.h"
#include "server/core/validation.h"

namespace modelstore::server {
namespace {

// Records read by one step. Storage decodes each record with its architecture, which may
// have megabytes, so this bounds the time of a step.
constexpr int kPageSize = 50;
// Maximum number of versions in each list of the result.
constexpr size_t kListed = 100'000;
// About 250 KiB.
constexpr int kDecisionsPerMessage = 20'000;
// Memory of a version in bytes: its part of the plan; its SeenVersion for storage (16)
// and its entry in a list of Deletions, which grows by doubling (16); its decision in a
// message (24).
constexpr int64_t kBytesPerVersion = RetentionPlan::kBytesPerVersion + 32 + 24;

bool Lists(const std::vector<int64_t>& versions, int64_t version) {
  return std::binary_search(versions.begin(), versions.end(), version);
}

}  // namespace

PruneSession::PruneSession(ServiceContext& context, storage::records::ModelRecord model,
                           const v1::RetentionPolicy& policy, bool validate_only)
    : OperationSession(context),
      model_(std::move(model)),
      validate_only_(validate_only),
      memory_(context.memory),
      plan_(policy, absl::Now()),
      total_(model_.checkpoint_count()) {}

absl::StatusOr<std::unique_ptr<OutboundSession>> PruneSession::Open(
    ServiceContext& context, absl::string_view bytes) {
  v1::PruneCheckpointsRequest request;
  if (auto s = ParseRequest(bytes, &request); !s.ok()) return s;
  auto id = ParseModelName("parent", request.parent());
  if (!id.ok()) return id.status();
  if (auto s = ValidateRetention("policy", request.policy()); !s.ok()) return s;
  auto model = ModelOfUid(context, *id, request.model_uid());
  if (!model.ok()) return model.status();
  const v1::RetentionPolicy policy = request.has_policy()
                                         ? request.policy()
                                         : ModelFromRecord(*model).retention_policy();
  return std::make_unique<OperationStream>(std::unique_ptr<OperationSession>(
      new PruneSession(context, *std::move(model), policy, request.validate_only())));
}

absl::StatusOr<OperationSession::Then> PruneSession::Step() {
  auto page =
      context_.store->checkpoints().List(model_.model_id(), true, after_, kPageSize);
  if (!page.ok()) return page.status();
  // The page was read by name. Uids are never reused, so if the model has this uid now,
  // it had it when the page was read.
  auto now = ModelOfUid(context_, model_.model_id(), model_.uid());
  if (!now.ok()) return now.status();
  auto reserved =
      memory_.Grow(static_cast<int64_t>(page->items.size()) * kBytesPerVersion);
  if (!reserved.ok()) return reserved;
  for (const auto& record : page->items) plan_.AddVersion(record);
  after_ = page->next;
  checked_ = plan_.looked_at();
  total_ = std::max(checked_, total_);
  if (!after_.empty()) return Again();
  total_ = checked_;
  return Done([this] { return Delete(); });
}

absl::StatusOr<absl::flat_hash_set<int64_t>> PruneSession::BasesOfUploads() const {
  absl::flat_hash_set<int64_t> bases;
  std::string after;
  do {
    auto page = context_.store->uploads().List("", after, kPageSize);
    if (!page.ok()) return page.status();
    for (const storage::UploadState& upload : page->items) {
      if (upload.record.base_model_uid() == model_.uid() && !upload.idle) {
        bases.insert(upload.record.base_version());
      }
    }
    after = page->next;
  } while (!after.empty());
  return bases;
}

absl::Status PruneSession::Delete() {
  auto verdicts = plan_.Finish(ModelName(model_.model_id()));
  if (!verdicts.ok()) return verdicts.status();
  verdicts_ = *std::move(verdicts);
  auto bases = BasesOfUploads();
  if (!bases.ok()) return bases.status();
  // The base of an upload in use counts as held, because the upload shares its chunks.
  std::vector<storage::Checkpoints::SeenVersion> leaving;
  std::vector<int64_t> held;
  for (const RetentionPlan::Verdict& verdict : verdicts_) {
    if (!verdict.leaves) continue;
    if (bases->contains(verdict.seen.version)) {
      held.push_back(verdict.seen.version);
    } else {
      leaving.push_back(verdict.seen);
    }
  }
  to_delete_ = static_cast<int64_t>(leaving.size());
  // Storage calls it before each deletion, so each call but the first follows one.
  const auto keep_going = [this, begun = false]() mutable {
    if (std::exchange(begun, true)) ++handled_;
    return CheckCancelled().ok();
  };
  auto deletions = context_.store->checkpoints().DeleteEach(model_, leaving,
                                                            validate_only_, keep_going);
  if (!deletions.ok()) return deletions.status();
  handled_ = to_delete_.load();
  deletions_ = *std::move(deletions);
  deletions_.held.insert(deletions_.held.end(), held.begin(), held.end());
  std::sort(deletions_.held.begin(), deletions_.held.end());
  SendDecisions();
  return absl::OkStatus();
}

std::optional<RetentionPlan::Decision> PruneSession::DecisionOf(
    const RetentionPlan::Verdict& verdict) const {
  using Decision = RetentionPlan::Decision;
  const int64_t version = verdict.seen.version;
  Decision decision;
  decision.set_version(version);
  decision.set_outcome(Decision::OUTCOME_KEPT);
  if (verdict.leaves) {
    // Changed since the plan read it, by another client: kept, without a rule of the
    // policy.
    if (Lists(deletions_.changed, version)) {
      decision.add_rules(Decision::RULE_CHANGED);
      return decision;
    }
    const bool held = Lists(deletions_.held, version);
    if (!held && !Lists(deletions_.deleted, version)) return std::nullopt;
    decision.set_outcome(held ? Decision::OUTCOME_HELD : Decision::OUTCOME_PRUNED);
  }
  // The rules that the policy decides are consecutive numbers.
  for (int rule = Decision::RULE_NEWEST; rule <= Decision::RULE_EXPIRED; ++rule) {
    if ((verdict.rules >> rule & 1) != 0) {
      decision.add_rules(static_cast<Decision::Rule>(rule));
    }
  }
  return decision;
}

void PruneSession::SendDecisions() {
  v1::PruneCheckpointsResponse response;
  auto* part = response.mutable_decisions()->mutable_decisions();
  for (const RetentionPlan::Verdict& verdict : verdicts_) {
    auto decision = DecisionOf(verdict);
    if (!decision.has_value()) continue;
    *part->Add() = *std::move(decision);
    if (part->size() < kDecisionsPerMessage) continue;
    Send(response);
    part->Clear();
  }
  if (!part->empty()) Send(response);
}

std::string PruneSession::Progress() const {
  v1::PruneCheckpointsResponse response;
  auto* progress = response.mutable_progress();
  progress->set_checked_checkpoints(checked_);
  progress->set_total_checkpoints(total_);
  progress->set_deleted_checkpoints(handled_);
  progress->set_checkpoints_to_delete(to_delete_);
  return response.SerializeAsString();
}

std::string PruneSession::Result() {
  v1::PruneCheckpointsResponse response;
  auto& result = *response.mutable_result();
  const auto list = [](const std::vector<int64_t>& versions, auto* out) {
    const size_t listed = std::min(versions.size(), kListed);
    out->Add(versions.begin(), versions.begin() + static_cast<std::ptrdiff_t>(listed));
  };
  list(deletions_.deleted, result.mutable_pruned_versions());
  list(deletions_.held, result.mutable_held_versions());
  const auto stays = [](const RetentionPlan::Verdict& verdict) {
    return !verdict.leaves;
  };
  result.set_kept_count(std::count_if(verdicts_.begin(), verdicts_.end(), stays) +
                        static_cast<int64_t>(deletions_.changed.size()));
  result.set_pruned_count(static_cast<int64_t>(deletions_.deleted.size()));
  result.set_held_count(static_cast<int64_t>(deletions_.held.size()));
  result.set_freed_bytes(deletions_.freed.freed_bytes);
  result.set_waiting_bytes(deletions_.freed.waiting_bytes);
  return response.SerializeAsString();
}

}  // namespace modelstore::server
