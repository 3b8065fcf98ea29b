// The session of PruneCheckpoints: reads the record of every version in steps, applies
// the retention policy, then deletes aside.
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

  // Reads the next page of versions.
  absl::StatusOr<Then> Step() override;
  std::string Progress() const override;
  std::string Result() override;

 private:
  PruneSession(ServiceContext& context, storage::records::ModelRecord model,
               const v1::RetentionPolicy& policy, bool validate_only);

  // Deletes the versions that no rule keeps, and sends the decision on each version. Runs
  // aside.
  absl::Status Delete();
  // Combines a verdict with the result of the deletion. Absent for a version that another
  // call has deleted meanwhile.
  std::optional<RetentionPlan::Decision> DecisionOf(
      const RetentionPlan::Verdict& verdict) const;
  void SendDecisions();
  // Returns the versions of this model that are the base of an upload in use.
  absl::StatusOr<absl::flat_hash_set<int64_t>> BasesOfUploads() const;

  // As of the start of the call. Its uid identifies the model throughout the call.
  const storage::records::ModelRecord model_;
  const bool validate_only_;
  Reservation memory_;  // kBytesPerVersion for each version
  RetentionPlan plan_;
  std::string after_;  // position of the next page
  // Versions read so far, and of all. Only steps write them.
  int64_t checked_ = 0;
  int64_t total_;
  // Versions deleted (or found held) so far, and of all. Written aside while Progress()
  // reads them.
  std::atomic<int64_t> handled_ = 0;
  std::atomic<int64_t> to_delete_ = 0;
  // Set aside, before the result.
  std::vector<RetentionPlan::Verdict> verdicts_;
  // Each of its lists is ascending.
  storage::Checkpoints::Deletions deletions_;
};

}  // namespace modelstore::server
