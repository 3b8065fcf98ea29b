#include "server/core/operation_session.h"

#include <algorithm>
#include <system_error>

#include "absl/strings/str_cat.h"
#include "proto/contract/errors.h"

namespace modelstore::server {
namespace {

// Half of what the contract promises.
constexpr absl::Duration kProgressInterval = absl::Milliseconds(500);
// How often a stream asks whether the work aside is over: after half the time that it
// has taken so far, so that short work ends at once.
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
      // What it holds is given back before the next step.
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
  if (ended_) return std::nullopt;
  const absl::Time now = SteadyNow();
  const absl::Status keep_going = session_->CheckCancelled();
  bool aside = aside_.joinable();
  if (absl::Status status; aside && EndAside(&status)) {
    // Stopped work fails in its own words.
    if (!status.ok()) return keep_going.ok() ? status : keep_going;
    aside = false;
    // Now it is known how much there is to do.
    reported_at_ = absl::InfinitePast();
  }
  // The last work ends by itself: it may have committed already.
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
