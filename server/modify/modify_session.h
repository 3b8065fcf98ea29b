// ModifyCheckpoint, in small steps on the storage pool:
//
//   while (edits are left) apply one;
//   while (chunks are left) compute some, on as many threads as are free;
//   commit; report; result;
//
// A step ends after a short time with a message of progress, so that no thread of
// the pool is held for long, and a client that stops reading stops the work. What
// was computed before a cancel or an error is dropped with the session.
#pragma once

#include <atomic>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "server/core/service_context.h"
#include "server/core/session.h"
#include "server/modify/edits.h"
#include "server/modify/report.h"
#include "server/modify/working_checkpoint.h"
#include "server/modify/write_out.h"
#include "storage/api/reads.h"
#include "storage/api/saves.h"

namespace modelstore::server::modify {

class ModifySession final : public OutboundSession {
 public:
  // Checks the request and opens the version to start from.
  static absl::StatusOr<std::unique_ptr<OutboundSession>> Open(ServiceContext& context,
                                                               absl::string_view request);

  absl::StatusOr<std::optional<OutboundMessage>> Next() override;
  void Cancel() override { cancelled_ = true; }

 private:
  enum class State : uint8_t { kEdit, kCompute, kCommit, kReport, kResult, kEnd };

  ModifySession(ServiceContext& context, v1::ModifyCheckpointRequest request,
                std::string request_digest);

  absl::Status Start(std::shared_ptr<storage::Read> read);
  // What is not committed ends with its caller, and with the server.
  absl::Status CheckGoOn() const;
  absl::Status ApplyNext();
  absl::Status BeginCompute();
  absl::Status Compute(absl::Time until);
  absl::Status TakeRoomForParts();
  // Settles how many threads compute, and returns what they take.
  int64_t ThreadBytes();
  absl::Status Commit();
  void FillReport();
  storage::SaveRequest MakeSave() const;
  v1::ModifyCheckpointResponse::Result MakeResult() const;
  OutboundMessage Progress() const;

  ServiceContext& context_;
  const v1::ModifyCheckpointRequest request_;
  const std::string request_digest_;
  std::atomic<bool> cancelled_ = false;
  State state_ = State::kEdit;

  // Unset where the request had made its version before.
  std::unique_ptr<WorkingCheckpoint> checkpoint_;
  std::unique_ptr<Sources> sources_;
  std::unique_ptr<Workshop> workshop_;
  std::string architecture_before_;
  Report report_;
  // As they are kept: with versions and seeds.
  std::vector<v1::Edit> edits_;
  int next_edit_ = 0;
  std::unique_ptr<WriteOut> out_;
  std::unique_ptr<storage::DerivedSave> save_;
  // That compute at once, if so many are free.
  int max_threads_ = 0;
  std::vector<std::string> report_parts_;
  size_t next_part_ = 0;
  // Of the new version, or of what it would be.
  storage::records::ModelRecord model_;
  storage::records::CheckpointRecord record_;
};

}  // namespace modelstore::server::modify
