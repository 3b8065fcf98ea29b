// The session of CollectGarbage: waits until no other call collects, then runs the
// collection aside.
#pragma once

#include <atomic>
#include <memory>
#include <string>

#include "server/core/operation_session.h"
#include "storage/api/maintenance.h"

namespace modelstore::server {

class CollectSession final : public OperationSession {
 public:
  static absl::StatusOr<std::unique_ptr<OutboundSession>> Open(ServiceContext& context,
                                                               absl::string_view request);

  absl::StatusOr<Then> Step() override;
  std::string Progress() const override;
  std::string Result() override;

 private:
  CollectSession(ServiceContext& context, bool validate_only)
      : OperationSession(context), validate_only_(validate_only) {}

  // Runs aside.
  absl::Status Collect();

  const bool validate_only_;
  // Packs checked so far, and of all. Written aside while Progress() reads them.
  std::atomic<int64_t> checked_ = 0;
  std::atomic<int64_t> total_ = 0;
  storage::GarbageResult collected_;
};

}  // namespace modelstore::server
