#include "modelstore/retention.h"

#include <utility>

#include "client/internal/rpc.h"
#include "modelstore/v1/model_store.pb.h"
#include "proto/contract/message_codec.h"

namespace modelstore {
namespace {

using internal::CallRpc;
using internal::Idempotency;
using internal::kModelStore;

void ToProto(const RetentionPolicy& policy, v1::RetentionPolicy* out) {
  out->set_keep_latest(policy.keep_latest);
  out->set_keep_best(policy.keep_best);
  out->set_metric(policy.metric);
  out->set_maximize(policy.maximize);
  out->set_keep_every_steps(policy.keep_every_steps);
  out->set_keep_younger_than_seconds(policy.keep_younger_than_seconds);
  out->set_prune_unranked(policy.prune_unranked);
}

PruneDecision ToDecision(const v1::PruneCheckpointsResponse::Decision& decision) {
  using Proto = v1::PruneCheckpointsResponse::Decision;
  PruneDecision out;
  out.version = decision.version();
  out.outcome = decision.outcome() == Proto::PRUNED ? PruneDecision::Outcome::kPruned
                : decision.outcome() == Proto::HELD ? PruneDecision::Outcome::kHeld
                                                    : PruneDecision::Outcome::kKept;
  for (const int rule : decision.rules()) out.rules.push_back(Proto::Rule_Name(rule));
  return out;
}

// The uid of the model that a call is meant for, asked before its first attempt: a
// repetition reaches no other model that has the name meanwhile.
absl::StatusOr<std::string> UidOf(Connection& connection, std::string_view model,
                                  Deadline deadline) {
  v1::GetModelRequest request;
  request.set_name(std::string(model));
  const absl::StatusOr<v1::Model> target = CallRpc<v1::Model>(
      connection, kModelStore, "GetModel", request, Idempotency::kIdempotent, deadline);
  if (!target.ok()) return target.status();
  return target->uid();
}

// One attempt, which may take as long as it goes on.
absl::StatusOr<PruneResult> Prune(Connection& connection, const std::string& request,
                                  internal::RetryState& retry) {
  const std::string method = std::string(kModelStore) + "PruneCheckpoints";
  const auto step = [&] { return retry.AttemptDeadline(); };
  absl::StatusOr<std::unique_ptr<Stream>> stream = connection.Open(method, 0, step());
  if (!stream.ok()) return stream.status();
  if (absl::Status s = internal::SendRequest(**stream, request, step()); !s.ok()) {
    return s;
  }
  std::optional<PruneResult> pruned;
  std::vector<PruneDecision> decisions;
  int64_t messages = 0;
  while (true) {
    absl::StatusOr<ReceivedMessage> message = (*stream)->Read(step());
    if (absl::IsOutOfRange(message.status())) break;
    if (!message.ok()) {
      return internal::WhyBroken(**stream, message.status(), step());
    }
    retry.OnMessage(++messages);
    std::string bytes;
    for (std::string_view fragment : message->fragments) bytes += fragment;
    v1::PruneCheckpointsResponse response;
    if (!ParseMessage(bytes, &response)) {
      (*stream)->Cancel();
      return absl::InternalError(method + ": the answer is malformed");
    }
    for (const auto& decision : response.decisions().decisions()) {
      decisions.push_back(ToDecision(decision));
    }
    if (!response.has_result()) continue;
    const v1::PruneCheckpointsResponse::Result& result = response.result();
    pruned =
        PruneResult{{result.pruned_versions().begin(), result.pruned_versions().end()},
                    {result.held_versions().begin(), result.held_versions().end()},
                    result.kept_count(),
                    result.freed_bytes(),
                    result.waiting_bytes(),
                    {}};
  }
  if (absl::Status s = (*stream)->Finish(step()); !s.ok()) return s;
  if (!pruned.has_value()) {
    return absl::InternalError(method + ": the stream ended without a result");
  }
  pruned->decisions = std::move(decisions);
  return *std::move(pruned);
}

}  // namespace

absl::Status SetRetentionPolicy(const Client& client, std::string_view model,
                                const RetentionPolicy& policy, Deadline deadline) {
  v1::UpdateModelRequest request;
  request.mutable_model()->set_name(std::string(model));
  ToProto(policy, request.mutable_model()->mutable_retention_policy());
  request.mutable_update_mask()->add_paths("retention_policy");
  auto connection = client.connection();
  if (!connection.ok()) return connection.status();
  const absl::StatusOr<std::string> uid = UidOf(**connection, model, deadline);
  if (!uid.ok()) return uid.status();
  request.mutable_model()->set_uid(*uid);
  return CallRpc<v1::Model>(**connection, kModelStore, "UpdateModel", request,
                            Idempotency::kIdempotent, deadline)
      .status();
}

absl::StatusOr<RetentionPolicy> GetRetentionPolicy(const Client& client,
                                                   std::string_view model,
                                                   Deadline deadline) {
  v1::GetModelRequest request;
  request.set_name(std::string(model));
  auto connection = client.connection();
  if (!connection.ok()) return connection.status();
  const absl::StatusOr<v1::Model> answer = CallRpc<v1::Model>(
      **connection, kModelStore, "GetModel", request, Idempotency::kIdempotent, deadline);
  if (!answer.ok()) return answer.status();
  const v1::RetentionPolicy& policy = answer->retention_policy();
  return RetentionPolicy{policy.keep_latest(),      policy.keep_best(),
                         policy.metric(),           policy.maximize(),
                         policy.keep_every_steps(), policy.keep_younger_than_seconds(),
                         policy.prune_unranked()};
}

absl::StatusOr<PruneResult> PruneCheckpoints(const Client& client, std::string_view model,
                                             const PruneOptions& options,
                                             Deadline deadline) {
  v1::PruneCheckpointsRequest request;
  request.set_parent(std::string(model));
  if (options.policy.has_value()) ToProto(*options.policy, request.mutable_policy());
  request.set_validate_only(options.validate_only);
  if (absl::Status s = internal::CheckStrings(request); !s.ok()) return s;
  auto connection = client.connection();
  if (!connection.ok()) return connection.status();
  const absl::StatusOr<std::string> uid = UidOf(**connection, model, deadline);
  if (!uid.ok()) return uid.status();
  request.set_model_uid(*uid);
  const std::string bytes = SerializeDeterministic(request);
  internal::RetryState retry(internal::RetryPolicy::Of((*connection)->options()),
                             deadline, internal::RealSleeper());
  while (true) {
    absl::StatusOr<PruneResult> pruned = Prune(**connection, bytes, retry);
    if (pruned.ok()) return pruned;
    if (absl::Status s = retry.OnFailure(pruned.status()); !s.ok()) return s;
  }
}

}  // namespace modelstore
