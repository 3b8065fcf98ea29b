#include "server/prune_session.h"

#include <algorithm>
#include <utility>

#include "absl/time/clock.h"
#include "proto/contract/names.h"
#include "server/convert.h"
#include "server/validation.h"
#include "server/wire.h"

namespace modelstore::server {
namespace {

constexpr int kAtOnce = 500;

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
  auto model = context.store->models().Get(*id);
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
      if (upload.record.base_model_uid() == model_.uid()) {
        bases.insert(upload.record.base_version());
      }
    }
    after = page->next;
  } while (!after.empty());
  return bases;
}

absl::StatusOr<OutboundMessage> PruneSession::Delete() {
  auto bases = BasesOfUploads();
  if (!bases.ok()) return bases.status();
  std::vector<int64_t> leaving = plan_.Leaving();
  v1::PruneCheckpointsResponse response;
  auto* result = response.mutable_result();
  result->set_kept_count(plan_.looked_at() - static_cast<int64_t>(leaving.size()));
  std::vector<int64_t> held;
  std::erase_if(leaving, [&](int64_t version) {
    const bool is_base = bases->contains(version);
    if (is_base) held.push_back(version);
    return is_base;
  });
  auto deletions = context_.store->checkpoints().DeleteEach(
      model_.model_id(), leaving, validate_only_, [this] { return !cancelled_; });
  if (!deletions.ok()) return deletions.status();
  held.insert(held.end(), deletions->held.begin(), deletions->held.end());
  std::sort(held.begin(), held.end());
  result->mutable_pruned_versions()->Add(deletions->deleted.begin(),
                                         deletions->deleted.end());
  result->mutable_held_versions()->Add(held.begin(), held.end());
  result->set_freed_bytes(deletions->freed.freed_bytes);
  result->set_waiting_bytes(deletions->freed.waiting_bytes);
  return OutboundMessage{response.SerializeAsString(), {}};
}

absl::StatusOr<std::optional<OutboundMessage>> PruneSession::Next() {
  if (cancelled_) return absl::CancelledError("the call was cancelled");
  if (done_) return std::nullopt;
  if (!looked_) return Look();
  done_ = true;
  return Delete();
}

}  // namespace modelstore::server
