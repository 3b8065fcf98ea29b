// PruneCheckpoints: looks at every version, telling how far it is, then deletes.
#pragma once

#include <atomic>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "modelstore/v1/operations.pb.h"
#include "server/core/reservation.h"
#include "server/core/service_context.h"
#include "server/core/session.h"
#include "server/operations/retention_plan.h"
#include "storage/api/checkpoints.h"

namespace modelstore::server {

class PruneSession final : public OutboundSession {
 public:
  static absl::StatusOr<std::unique_ptr<OutboundSession>> Open(ServiceContext& context,
                                                               absl::string_view request);

  absl::StatusOr<std::optional<OutboundMessage>> Next() override;
  void Cancel() override { cancelled_ = true; }

 private:
  PruneSession(ServiceContext& context, storage::records::ModelRecord model,
               const v1::RetentionPolicy& policy, bool validate_only);

  // Looks at the next versions.
  absl::StatusOr<OutboundMessage> Look();
  // Deletes what leaves.
  absl::Status Delete();
  // Absent for a version that another call has deleted meanwhile.
  std::optional<RetentionPlan::Decision> DecisionOf(
      const RetentionPlan::Verdict& verdict) const;
  // The next part of the decisions; at the end the result.
  OutboundMessage Answer();
  v1::PruneCheckpointsResponse::Result Result() const;
  // Versions of this model that uploads in use build on.
  absl::StatusOr<absl::flat_hash_set<int64_t>> BasesOfUploads() const;

  ServiceContext& context_;
  const storage::records::ModelRecord model_;
  const bool validate_only_;
  std::atomic<bool> cancelled_ = false;
  Reservation memory_;
  RetentionPlan plan_;
  std::string after_;
  bool looked_ = false;
  bool deleted_ = false;
  bool done_ = false;
  std::vector<RetentionPlan::Verdict> verdicts_;
  // Each list ascending.
  storage::Checkpoints::Deletions deletions_;
  // Verdicts that were told.
  size_t told_ = 0;
};

}  // namespace modelstore::server
