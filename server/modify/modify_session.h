// The session of a ModifyCheckpoint call:
//
//   aside: apply the edits, plan;
//   while (chunks are left) compute some, on as many threads as are free;
//   aside: commit; report;
//
// Destroying the session before the commit discards what was computed: a call that is
// cancelled or fails leaves nothing.
#pragma once

#include <atomic>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "server/core/operation_session.h"
#include "server/modify/edit_context.h"
#include "server/modify/report.h"
#include "server/modify/working_checkpoint.h"
#include "server/modify/write_out.h"
#include "storage/api/reads.h"
#include "storage/api/saves.h"

namespace modelstore::server::modify {

class ModifySession final : public OperationSession {
 public:
  // Checks the request and opens the base version. If an earlier call with the same
  // request_id has committed a version, the session returns that one.
  static absl::StatusOr<std::unique_ptr<OutboundSession>> Open(ServiceContext& context,
                                                               absl::string_view request);

  absl::StatusOr<Then> Step() override;
  std::string Progress() const override;
  std::string Result() override;

 private:
  enum class State : uint8_t { kEdit, kCompute, kMadeBefore };

  ModifySession(ServiceContext& context, v1::ModifyCheckpointRequest request,
                std::string request_digest);

  // Makes the working checkpoint from the base.
  absl::Status Start(std::shared_ptr<storage::Read> read);
  absl::Status ApplyEdits();
  // Updates the optimizers, makes and checks the plan, and starts the save.
  absl::Status BeginCompute();
  // Computes chunks until the time `until`. Returns true once none is left.
  absl::StatusOr<bool> Compute(absl::Time until);
  absl::Status ReserveParts();
  // Sets `max_threads_` and returns the memory in bytes that these threads need.
  int64_t ThreadBytes();
  absl::Status Commit();
  void SendReport();
  storage::SaveRequest MakeSave() const;
  v1::ModifyCheckpointResponse::Result MakeResult() const;

  const v1::ModifyCheckpointRequest request_;
  const std::string request_digest_;
  std::optional<int64_t> expected_latest_;
  State state_ = State::kEdit;

  // These are null if an earlier call has committed the version.
  std::unique_ptr<WorkingCheckpoint> checkpoint_;
  std::unique_ptr<Sources> sources_;
  std::unique_ptr<EditResources> resources_;
  std::string architecture_before_;
  Report report_;
  // The edits as they are stored, with resolved versions and seeds.
  std::vector<v1::Edit> edits_;
  // Index of the edit that is applied; Progress() reads it while work runs aside.
  std::atomic<int> next_edit_ = 0;
  // Made by the thread that works aside. Progress() may read it once `planned_` is true.
  std::unique_ptr<WriteOut> out_;
  std::atomic<bool> planned_ = false;
  // Null if the call only validates.
  std::unique_ptr<storage::DerivedSave> save_;
  // Maximum number of threads that compute at once; fewer if fewer are free.
  int max_threads_ = 0;
  // The new version, or what it would be for a validation.
  storage::records::ModelRecord model_;
  storage::records::CheckpointRecord record_;
};

}  // namespace modelstore::server::modify
