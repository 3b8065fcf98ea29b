// PruneCheckpoints: looks at every version, then deletes aside.
#pragma once

#include <atomic>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "modelstore/v1/operations.pb.h"
#include "server/core/operation_session.h"
#include "server/core/reservation.h"
#include "server/operations/retention_plan.h"
#include "storage/api/checkpoints.h"

namespace modelstore::server {

class PruneSession final : public OperationSession {
 public:
  static absl::StatusOr<std::unique_ptr<OutboundSession>> Open(ServiceContext& context,
                                                               absl::string_view request);

  // Looks at the next versions.
  absl::StatusOr<Then> Step() override;
  std::string Progress() const override;
  std::string Result() override;

 private:
  PruneSession(ServiceContext& context, storage::records::ModelRecord model,
               const v1::RetentionPolicy& policy, bool validate_only);

  // Deletes what leaves and sends what became of each version.
  absl::Status Delete();
  // Absent for a version that another call has deleted meanwhile.
  std::optional<RetentionPlan::Decision> DecisionOf(
      const RetentionPlan::Verdict& verdict) const;
  void SendDecisions();
  // Versions of this model that uploads in use build on.
  absl::StatusOr<absl::flat_hash_set<int64_t>> BasesOfUploads() const;

  const storage::records::ModelRecord model_;
  const bool validate_only_;
  Reservation memory_;
  RetentionPlan plan_;
  std::string after_;
  int64_t checked_ = 0;
  int64_t total_;
  std::atomic<int64_t> handled_ = 0;
  std::atomic<int64_t> to_delete_ = 0;
  std::vector<RetentionPlan::Verdict> verdicts_;
  // Each list ascending.
  storage::Checkpoints::Deletions deletions_;
};

}  // namespace modelstore::server
