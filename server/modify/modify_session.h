// ModifyCheckpoint:
//
//   aside: apply the edits, plan;
//   while (chunks are left) compute some, on as many threads as are free;
//   aside: commit; report;
//
// What was computed before a cancel or an error is dropped with the session.
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
  // Checks the request and opens the version to start from.
  static absl::StatusOr<std::unique_ptr<OutboundSession>> Open(ServiceContext& context,
                                                               absl::string_view request);

  absl::StatusOr<Then> Step() override;
  std::string Progress() const override;
  std::string Result() override;

 private:
  enum class State : uint8_t { kEdit, kCompute, kMadeBefore };

  ModifySession(ServiceContext& context, v1::ModifyCheckpointRequest request,
                std::string request_digest);

  absl::Status Start(std::shared_ptr<storage::Read> read);
  absl::Status ApplyEdits();
  absl::Status BeginCompute();
  // Computes until then; true once nothing is left.
  absl::StatusOr<bool> Compute(absl::Time until);
  absl::Status ReserveParts();
  // Settles how many threads compute, and returns what they take.
  int64_t ThreadBytes();
  absl::Status Commit();
  void SendReport();
  storage::SaveRequest MakeSave() const;
  v1::ModifyCheckpointResponse::Result MakeResult() const;

  const v1::ModifyCheckpointRequest request_;
  const std::string request_digest_;
  std::optional<int64_t> expected_latest_;
  State state_ = State::kEdit;

  // Unset where the request had made its version before.
  std::unique_ptr<WorkingCheckpoint> checkpoint_;
  std::unique_ptr<Sources> sources_;
  std::unique_ptr<EditResources> resources_;
  std::string architecture_before_;
  Report report_;
  // As they are kept: with versions and seeds.
  std::vector<v1::Edit> edits_;
  std::atomic<int> next_edit_ = 0;
  // Threads other than the one that plans read it once it is planned.
  std::unique_ptr<WriteOut> out_;
  std::atomic<bool> planned_ = false;
  std::unique_ptr<storage::DerivedSave> save_;
  // That compute at once, if so many are free.
  int max_threads_ = 0;
  // Of the new version, or of what it would be.
  storage::records::ModelRecord model_;
  storage::records::CheckpointRecord record_;
};

}  // namespace modelstore::server::modify
