#include "server/prune_session.h"

#include <algorithm>
#include <utility>

#include "absl/container/flat_hash_set.h"
#include "absl/time/clock.h"
#include "proto/contract/names.h"
#include "server/convert.h"
#include "server/validation.h"
#include "server/wire.h"

namespace modelstore::server {
namespace {

constexpr int kAtOnce = 500;
// Versions that the result lists, and decisions in a message: some 400 KiB.
constexpr size_t kListed = 100'000;
constexpr int kDecisions = 20'000;

}  // namespace

PruneSession::PruneSession(ServiceContext& context, storage::records::ModelRecord model,
                           const v1::RetentionPolicy& policy, bool validate_only)
    : context_(context),
      model_(std::move(model)),
      validate_only_(validate_only),
      plan_(policy, absl::Now()) {}

absl::StatusOr<std::unique_ptr<OutboundSession>> PruneSession::Open(
    ServiceContext& context, absl::string_view bytes) {
  v1::PruneCheckpointsRequest request;
  if (auto s = ParseMessage(bytes, &request); !s.ok()) return s;
  auto id = ParseModelName("parent", request.parent());
  if (!id.ok()) return id.status();
  if (auto s = ValidateRetention("policy", request.policy()); !s.ok()) return s;
  auto model = ModelOfUid(context, *id, request.model_uid());
  if (!model.ok()) return model.status();
  const v1::RetentionPolicy policy = request.has_policy()
                                         ? request.policy()
                                         : ModelFromRecord(*model).retention_policy();
  return std::unique_ptr<OutboundSession>(
      new PruneSession(context, *std::move(model), policy, request.validate_only()));
}

absl::StatusOr<OutboundMessage> PruneSession::Look() {
  auto page =
      context_.store->checkpoints().List(model_.model_id(), true, after_, kAtOnce);
  if (!page.ok()) return page.status();
  // A uid never comes back: if it is the model's now, it was when the page was read.
  auto now = ModelOfUid(context_, model_.model_id(), model_.uid());
  if (!now.ok()) return now.status();
  for (const auto& record : page->items) plan_.Look(record);
  after_ = page->next;
  looked_ = after_.empty();
  v1::PruneCheckpointsResponse response;
  auto* progress = response.mutable_progress();
  progress->set_checked_checkpoints(plan_.looked_at());
  progress->set_total_checkpoints(
      looked_ ? plan_.looked_at()
              : std::max(plan_.looked_at(), model_.checkpoint_count()));
  return OutboundMessage{response.SerializeAsString(), {}};
}

absl::StatusOr<absl::flat_hash_set<int64_t>> PruneSession::BasesOfUploads() const {
  absl::flat_hash_set<int64_t> bases;
  std::string after;
  do {
    auto page = context_.store->uploads().List("", after, kAtOnce);
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
  const std::vector<RetentionPlan::Verdict> verdicts = plan_.Verdicts();
  auto bases = BasesOfUploads();
  if (!bases.ok()) return bases.status();
  std::vector<storage::Checkpoints::SeenVersion> leaving;
  std::vector<int64_t> held;
  for (const RetentionPlan::Verdict& verdict : verdicts) {
    if (!verdict.leaves) continue;
    if (bases->contains(verdict.seen.version)) {
      held.push_back(verdict.seen.version);
    } else {
      leaving.push_back(verdict.seen);
    }
  }
  auto deletions = context_.store->checkpoints().DeleteEach(
      model_, leaving, validate_only_, [this] { return !cancelled_; });
  if (!deletions.ok()) return deletions.status();
  deletions->held.insert(deletions->held.end(), held.begin(), held.end());
  std::sort(deletions->held.begin(), deletions->held.end());
  // Else an upload that nobody will end would keep their bytes for its whole life.
  if (!validate_only_) {
    context_.store->uploads().DeleteIdle(model_.uid(), deletions->deleted);
  }
  Answer(verdicts, *deletions);
  return absl::OkStatus();
}

void PruneSession::Answer(const std::vector<RetentionPlan::Verdict>& verdicts,
                          const storage::Checkpoints::Deletions& deletions) {
  using Decision = RetentionPlan::Decision;
  const absl::flat_hash_set<int64_t> held(deletions.held.begin(), deletions.held.end());
  const absl::flat_hash_set<int64_t> changed(deletions.changed.begin(),
                                             deletions.changed.end());
  for (const RetentionPlan::Verdict& verdict : verdicts) {
    const int64_t version = verdict.seen.version;
    Decision& decision = *decisions_.add_decisions();
    decision.set_version(version);
    decision.set_outcome(Decision::KEPT);
    if (changed.contains(version)) {
      decision.add_rules(Decision::CHANGED);
      result_.set_kept_count(result_.kept_count() + 1);
      continue;
    }
    for (int rule = Decision::NEWEST; rule <= Decision::EXPIRED; ++rule) {
      if ((verdict.rules >> rule & 1) != 0) {
        decision.add_rules(static_cast<Decision::Rule>(rule));
      }
    }
    if (!verdict.leaves) {
      result_.set_kept_count(result_.kept_count() + 1);
    } else {
      decision.set_outcome(held.contains(version) ? Decision::HELD : Decision::PRUNED);
    }
  }
  const auto list = [](const std::vector<int64_t>& versions, auto* out) {
    const size_t listed = std::min(versions.size(), kListed);
    out->Add(versions.begin(), versions.begin() + static_cast<std::ptrdiff_t>(listed));
  };
  list(deletions.deleted, result_.mutable_pruned_versions());
  list(deletions.held, result_.mutable_held_versions());
  result_.set_pruned_count(static_cast<int64_t>(deletions.deleted.size()));
  result_.set_held_count(static_cast<int64_t>(deletions.held.size()));
  result_.set_freed_bytes(deletions.freed.freed_bytes);
  result_.set_waiting_bytes(deletions.freed.waiting_bytes);
}

OutboundMessage PruneSession::NextDecisions() {
  v1::PruneCheckpointsResponse response;
  auto* part = response.mutable_decisions();
  while (told_ < decisions_.decisions_size() && part->decisions_size() < kDecisions) {
    *part->add_decisions() = std::move(*decisions_.mutable_decisions(told_++));
  }
  return OutboundMessage{response.SerializeAsString(), {}};
}

absl::StatusOr<std::optional<OutboundMessage>> PruneSession::Next() {
  if (cancelled_) return absl::CancelledError("the call was cancelled");
  if (done_) return std::nullopt;
  if (!looked_) return Look();
  if (!deleted_) {
    if (auto s = plan_.Check(ModelName(model_.model_id())); !s.ok()) return s;
    if (auto s = Delete(); !s.ok()) return s;
    deleted_ = true;
  }
  if (told_ < decisions_.decisions_size()) return NextDecisions();
  done_ = true;
  v1::PruneCheckpointsResponse response;
  *response.mutable_result() = std::move(result_);
  return OutboundMessage{response.SerializeAsString(), {}};
}

}  // namespace modelstore::server
