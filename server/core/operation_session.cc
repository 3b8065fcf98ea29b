#include "server/core/operation_session.h"

#include <algorithm>
#include <system_error>

#include "absl/strings/str_cat.h"
#include "proto/contract/errors.h"

namespace modelstore::server {
namespace {

// Half of the interval that the API promises, so that a late message still meets it.
constexpr absl::Duration kProgressInterval = absl::Milliseconds(500);
// Bounds of the interval at which a stream polls work aside. The interval is half the
// time that the work has run so far, so short work ends with little delay and long work
// is polled rarely.
constexpr absl::Duration kShortestPoll = absl::Milliseconds(1);
constexpr absl::Duration kLongestPoll = absl::Milliseconds(100);

}  // namespace

absl::Status OperationSession::CheckCancelled() const {
  if (cancelled_) return absl::CancelledError("the call was cancelled");
  const auto& draining = context_.options.draining;
  if (draining && draining()) return ShuttingDown();
  return absl::OkStatus();
}

OperationStream::~OperationStream() {
  Cancel();
  if (aside_.joinable()) aside_.join();
}

absl::Status OperationStream::StartAside(std::function<absl::Status()> work) {
  aside_since_ = SteadyNow();
  try {
    aside_ = std::thread([this, work = std::move(work)]() mutable {
      absl::Status status = work();
      // Destroyed here, so that whatever it captured is released before the stream
      // notices its end and takes the next step.
      work = nullptr;
      MutexLock lock(mutex_);
      aside_status_ = std::move(status);
    });
  } catch (const std::system_error& error) {
    return Overloaded(absl::StrCat("the server cannot start a thread: ", error.what(),
                                   ": retry later"));
  }
  return absl::OkStatus();
}

bool OperationStream::EndAside(absl::Status* status) {
  {
    MutexLock lock(mutex_);
    if (!aside_status_.has_value()) return false;
    *status = *std::exchange(aside_status_, std::nullopt);
  }
  aside_.join();
  return true;
}

absl::StatusOr<std::optional<OutboundMessage>> OperationStream::Next() {
  // Each call returns at most one message, in this order of precedence: an error, a
  // queued part, the result, progress. If there is none it takes one step.
  if (ended_) return std::nullopt;
  const absl::Time now = SteadyNow();
  const absl::Status keep_going = session_->CheckCancelled();
  bool aside = aside_.joinable();
  if (absl::Status status; aside && EndAside(&status)) {
    // Work that stopped because the call was cancelled returns an error of its own, which
    // says less than the reason of the cancellation.
    if (!status.ok()) return keep_going.ok() ? status : keep_going;
    aside = false;
    // Reports at once: work aside is often the planning that determines the totals.
    reported_at_ = absl::InfinitePast();
  }
  // Work that was started with `done` may have committed already, so its result is
  // awaited and reported even if the call is cancelled.
  if (!done_ && !keep_going.ok()) return keep_going;
  const bool over = done_ && !aside;
  if (!aside && !session_->parts_.empty()) {
    OutboundMessage part{std::move(session_->parts_.front()), {}};
    session_->parts_.pop_front();
    return part;
  }
  if (over && final_sent_) {
    ended_ = true;
    return OutboundMessage{session_->Result(), {}};
  }
  if (over || now - reported_at_ >= kProgressInterval) {
    final_sent_ = over;
    reported_at_ = now;
    return OutboundMessage{session_->Progress(), {}};
  }
  if (aside) {
    return OutboundMessage::AgainAfter(
        std::clamp((now - aside_since_) / 2, kShortestPoll, kLongestPoll));
  }
  auto then = session_->Step();
  if (!then.ok()) return then.status();
  done_ = then->done;
  if (then->aside) {
    if (auto s = StartAside(std::move(then->aside)); !s.ok()) return s;
  }
  return OutboundMessage::AgainAfter(then->wait);
}

}  // namespace modelstore::server
