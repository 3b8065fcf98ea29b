#include "server/operations/collect_session.h"

#include "modelstore/v1/operations.pb.h"
#include "server/core/request_codec.h"

namespace modelstore::server {
namespace {

// Interval at which a waiting call checks whether it may collect.
constexpr absl::Duration kTurnInterval = absl::Milliseconds(200);

}  // namespace

absl::StatusOr<std::unique_ptr<OutboundSession>> CollectSession::Open(
    ServiceContext& context, absl::string_view bytes) {
  v1::CollectGarbageRequest request;
  if (auto s = ParseRequest(bytes, &request); !s.ok()) return s;
  return std::make_unique<OperationStream>(std::unique_ptr<OperationSession>(
      new CollectSession(context, request.validate_only())));
}

absl::StatusOr<OperationSession::Then> CollectSession::Step() {
  // Storage runs one collection at a time. Waiting here instead of there holds no thread.
  if (context_.collecting->exchange(true)) return Again(kTurnInterval);
  // The deleter of `turn` lets the next call collect. The work owns it, so it runs when
  // the work has ended, and also if the thread for the work cannot be started.
  std::shared_ptr<std::atomic<bool>> turn(
      context_.collecting.get(),
      [collecting = context_.collecting](std::atomic<bool>*) { *collecting = false; });
  return Done([this, turn] { return Collect(); });
}

absl::Status CollectSession::Collect() {
  auto collected = context_.store->maintenance().CollectGarbage(
      validate_only_, [this](int64_t checked, int64_t total) {
        checked_ = checked;
        total_ = total;
        return CheckCancelled().ok();
      });
  if (!collected.ok()) return collected.status();
  collected_ = *collected;
  return absl::OkStatus();
}

std::string CollectSession::Progress() const {
  v1::CollectGarbageResponse response;
  response.mutable_progress()->set_checked_packs(checked_);
  response.mutable_progress()->set_total_packs(total_);
  return response.SerializeAsString();
}

std::string CollectSession::Result() {
  v1::CollectGarbageResponse response;
  auto* result = response.mutable_result();
  result->set_dropped_packs(collected_.dropped_packs);
  result->set_expired_uploads(collected_.expired_uploads);
  result->set_freed_bytes(collected_.freed_bytes);
  result->set_waiting_bytes(collected_.waiting_bytes);
  result->set_reclaimable_bytes(collected_.reclaimable_bytes);
  return response.SerializeAsString();
}

}  // namespace modelstore::server
