// CollectGarbage: progress while it runs, then one result.
#pragma once

#include <memory>
#include <thread>

#include "absl/time/time.h"
#include "proto/contract/mutex.h"
#include "server/core/service_context.h"
#include "server/core/session.h"
#include "storage/api/maintenance.h"

namespace modelstore::server {

class CollectSession final : public OutboundSession {
 public:
  static absl::StatusOr<std::unique_ptr<OutboundSession>> Open(ServiceContext& context,
                                                               absl::string_view request);
  ~CollectSession() override;

  absl::StatusOr<std::optional<OutboundMessage>> Next() override;
  void Cancel() override;

 private:
  CollectSession(ServiceContext& context, bool validate_only)
      : context_(context), validate_only_(validate_only) {}

  // Runs on a thread of its own: Next() tells progress meanwhile and never waits.
  void Collect();

  ServiceContext& context_;
  const bool validate_only_;
  std::thread worker_;
  // On the steady clock; not before then is progress told.
  absl::Time tell_at_;

  Mutex mutex_;
  bool cancelled_ GUARDED_BY(mutex_) = false;
  int64_t checked_ GUARDED_BY(mutex_) = 0;
  int64_t total_ GUARDED_BY(mutex_) = 0;
  int64_t told_ GUARDED_BY(mutex_) = -1;
  bool done_ GUARDED_BY(mutex_) = false;
  bool result_told_ GUARDED_BY(mutex_) = false;
  absl::StatusOr<storage::GarbageResult> result_ GUARDED_BY(mutex_);
};

}  // namespace modelstore::server
