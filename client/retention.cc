#include "modelstore/retention.h"

#include "client/internal/convert.h"
#include "client/internal/operation.h"
#include "modelstore/v1/model_store.pb.h"

namespace modelstore {
namespace {

using internal::CallStore;

void ToProto(const RetentionPolicy& policy, v1::RetentionPolicy* out) {
  out->set_keep_latest(policy.keep_latest);
  out->set_keep_best(policy.keep_best);
  out->set_metric(policy.metric);
  out->set_maximize(policy.maximize);
  out->set_keep_every_steps(policy.keep_every_steps);
  *out->mutable_keep_younger_than() = internal::ToDuration(policy.keep_younger_than);
  out->set_prune_unranked(policy.prune_unranked);
}

using Decision = v1::PruneCheckpointsResponse::Decision;

// Fails to compile if the protocol gains a value that the enum lacks.
static_assert(static_cast<int>(PruneDecision::Outcome::kHeld) == Decision::Outcome_MAX);
static_assert(static_cast<int>(PruneDecision::Rule::kChanged) == Decision::Rule_MAX);

PruneDecision ToDecision(const Decision& decision) {
  PruneDecision out;
  out.version = decision.version();
  out.outcome = internal::ToKnown(decision.outcome(), PruneDecision::Outcome::kHeld);
  for (const int rule : decision.rules()) {
    out.rules.push_back(internal::ToKnown(rule, PruneDecision::Rule::kChanged));
  }
  return out;
}

// Returns the uid of a model. Calls are identified by it, so that a retry does not affect
// another model that was created with the same name in the meantime.
absl::StatusOr<std::string> UidOf(const Client& client, std::string_view model,
                                  Deadline deadline) {
  v1::GetModelRequest request;
  request.set_name(std::string(model));
  const auto target = CallStore<v1::Model>(client, "GetModel", request, deadline);
  if (!target.ok()) return target.status();
  return target->uid();
}

void Add(const v1::PruneCheckpointsResponse::Result& from, PruneResult& result) {
  result.pruned_versions.assign(from.pruned_versions().begin(),
                                from.pruned_versions().end());
  result.held_versions.assign(from.held_versions().begin(), from.held_versions().end());
  result.kept_count = from.kept_count();
  result.freed_bytes = from.freed_bytes();
  result.waiting_bytes = from.waiting_bytes();
}

}  // namespace

std::string_view ToString(PruneDecision::Outcome outcome) {
  return internal::WithoutPrefix(Decision::Outcome_Name(static_cast<int>(outcome)),
                                 "OUTCOME_");
}
std::string_view ToString(PruneDecision::Rule rule) {
  return internal::WithoutPrefix(Decision::Rule_Name(static_cast<int>(rule)), "RULE_");
}

absl::Status SetRetentionPolicy(const Client& client, std::string_view model,
                                const RetentionPolicy& policy,
                                const CallOptions& options) {
  v1::UpdateModelRequest request;
  request.mutable_model()->set_name(std::string(model));
  ToProto(policy, request.mutable_model()->mutable_retention_policy());
  request.mutable_update_mask()->add_paths("retention_policy");
  const Deadline deadline = internal::CallDeadline(client, options.deadline);
  const absl::StatusOr<std::string> uid = UidOf(client, model, deadline);
  if (!uid.ok()) return uid.status();
  request.mutable_model()->set_uid(*uid);
  return CallStore<v1::Model>(client, "UpdateModel", request, deadline).status();
}

absl::StatusOr<RetentionPolicy> GetRetentionPolicy(const Client& client,
                                                   std::string_view model,
                                                   const CallOptions& options) {
  v1::GetModelRequest request;
  request.set_name(std::string(model));
  const auto answer = CallStore<v1::Model>(
      client, "GetModel", request, internal::CallDeadline(client, options.deadline));
  if (!answer.ok()) return answer.status();
  const v1::RetentionPolicy& policy = answer->retention_policy();
  return RetentionPolicy{
      policy.keep_latest(),      policy.keep_best(),
      policy.metric(),           policy.maximize(),
      policy.keep_every_steps(), internal::ToTimeout(policy.keep_younger_than()),
      policy.prune_unranked()};
}

absl::StatusOr<PruneResult> PruneCheckpoints(const Client& client, std::string_view model,
                                             const PruneOptions& options) {
  v1::PruneCheckpointsRequest request;
  request.set_parent(std::string(model));
  if (options.policy.has_value()) ToProto(*options.policy, request.mutable_policy());
  request.set_validate_only(options.validate_only);
  if (absl::Status s = internal::CheckStrings(request); !s.ok()) return s;
  auto connection = client.connection();
  if (!connection.ok()) return connection.status();
  const Deadline deadline = internal::TransferDeadline(options.deadline);
  const absl::StatusOr<std::string> uid = UidOf(client, model, deadline);
  if (!uid.ok()) return uid.status();
  request.set_model_uid(*uid);
  return internal::RunOperation<v1::PruneCheckpointsResponse, PruneResult>(
      **connection, "PruneCheckpoints", request, deadline,
      [](const v1::PruneCheckpointsResponse& response, PruneResult& result) {
        for (const auto& decision : response.decisions().decisions()) {
          result.decisions.push_back(ToDecision(decision));
        }
        if (response.has_result()) Add(response.result(), result);
      });
}

}  // namespace modelstore
