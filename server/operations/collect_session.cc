#include "server/operations/collect_session.h"

#include "modelstore/v1/operations.pb.h"
#include "proto/contract/steady_time.h"
#include "server/core/request_codec.h"

namespace modelstore::server {
namespace {

constexpr absl::Duration kProgressInterval = absl::Milliseconds(500);
// How often Next() looks at its running collection, and for the end of another.
constexpr absl::Duration kPollInterval = absl::Milliseconds(10);
constexpr absl::Duration kTurnInterval = absl::Milliseconds(200);

OutboundMessage ProgressMessage(int64_t checked, int64_t total) {
  v1::CollectGarbageResponse response;
  response.mutable_progress()->set_checked_packs(checked);
  response.mutable_progress()->set_total_packs(total);
  return {response.SerializeAsString(), {}};
}

OutboundMessage ResultMessage(const storage::GarbageResult& collected) {
  v1::CollectGarbageResponse response;
  auto* result = response.mutable_result();
  result->set_dropped_packs(collected.dropped_packs);
  result->set_expired_uploads(collected.expired_uploads);
  result->set_freed_bytes(collected.freed_bytes);
  result->set_waiting_bytes(collected.waiting_bytes);
  result->set_reclaimable_bytes(collected.reclaimable_bytes);
  return {response.SerializeAsString(), {}};
}

}  // namespace

absl::StatusOr<std::unique_ptr<OutboundSession>> CollectSession::Open(
    ServiceContext& context, absl::string_view bytes) {
  v1::CollectGarbageRequest request;
  if (auto s = ParseRequest(bytes, &request); !s.ok()) return s;
  return std::unique_ptr<OutboundSession>(
      new CollectSession(context, request.validate_only()));
}

CollectSession::~CollectSession() {
  Cancel();
  if (worker_.joinable()) worker_.join();
}

void CollectSession::Cancel() {
  MutexLock lock(mutex_);
  cancelled_ = true;
}

void CollectSession::Collect() {
  auto result = context_.store->maintenance().CollectGarbage(
      validate_only_, [this](int64_t checked, int64_t total) {
        MutexLock lock(mutex_);
        checked_ = checked;
        total_ = total;
        return !cancelled_;
      });
  *context_.collecting = false;
  MutexLock lock(mutex_);
  result_ = std::move(result);
  done_ = true;
}

absl::StatusOr<std::optional<OutboundMessage>> CollectSession::Next() {
  MutexLock lock(mutex_);
  if (cancelled_ && !done_) return absl::CancelledError("the collection was cancelled");
  if (!worker_.joinable()) {
    // Storage runs one collection at a time: a thread that waited there would do nothing.
    if (context_.collecting->exchange(true)) {
      return OutboundMessage::AgainAfter(kTurnInterval);
    }
    tell_at_ = SteadyNow() + kProgressInterval;
    worker_ = std::thread([this] { Collect(); });
  }
  if (!done_) {
    const absl::Time now = SteadyNow();
    if (now < tell_at_ || checked_ == told_ || total_ == 0) {
      return OutboundMessage::AgainAfter(kPollInterval);
    }
    tell_at_ = now + kProgressInterval;
    told_ = checked_;
    return ProgressMessage(checked_, total_);
  }
  if (!result_.ok()) return result_.status();
  if (result_told_) return std::nullopt;
  // The last progress is told once, whole, so that every stream has one.
  if (told_ != total_) {
    told_ = total_;
    return ProgressMessage(checked_, total_);
  }
  result_told_ = true;
  return ResultMessage(*result_);
}

}  // namespace modelstore::server
