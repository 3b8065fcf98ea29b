// Ranges of the plan's sequence are handed out to as many threads as there are
// streams. A range that is cut goes on where it was cut, on a new stream.
#include "client/internal/load_run.h"

#include <algorithm>
#include <optional>
#include <thread>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "client/internal/chunk_receiver.h"
#include "client/internal/fetch_plan.h"
#include "client/internal/rpc.h"
#include "client/internal/threads.h"
#include "proto/contract/errors.h"
#include "proto/contract/limits.h"

namespace modelstore::internal {
namespace {

constexpr int64_t kLeastRangeBytes = int64_t{16} << 20;
constexpr int64_t kMostRangeBytes = int64_t{128} << 20;

class LoadRun {
 public:
  LoadRun(LoadPlan::State* plan, Deadline deadline)
      : plan_(plan), connection_(*plan->connection), deadline_(deadline) {}

  absl::Status Run();

 private:
  void RunLane(int lane);
  // Empty when there is none.
  LoadRange NextRange() EXCLUDES(mutex_);
  // True: the server has no stream for this lane, and what is left of its range was
  // handed back.
  bool HandBack(int lane, const absl::Status& refusal, LoadRange left) EXCLUDES(mutex_);
  // False if what was left of the range was handed back.
  absl::StatusOr<bool> FetchRange(int lane, LoadRange range);
  // Moves `*position` on towards `end`.
  absl::Status FetchOnce(int lane, int64_t end, int64_t* position,
                         const std::string& token);
  absl::Status RenewToken(const std::string& used);
  std::string Token() const {
    MutexLock lock(plan_->mutex);
    return plan_->resume_token;
  }
  Deadline StepDeadline() const {
    return std::min(deadline_, After(connection_.options().stall_timeout));
  }

  LoadPlan::State* const plan_;
  Connection& connection_;
  const Deadline deadline_;
  Cancellation cancellation_;

  Mutex mutex_;
  // Those that nobody has taken, the first at the end.
  std::vector<LoadRange> ranges_ GUARDED_BY(mutex_);
  absl::Status failure_ GUARDED_BY(mutex_);
};

absl::Status LoadRun::Run() {
  int64_t bytes = 0;
  for (size_t i = 0; i < plan_->tensors.size(); ++i) {
    LoadTarget& target = plan_->targets[i];
    target.missing = target.bound ? target.end - target.begin : 0;
    bytes += target.missing;
  }
  plan_->bound_bytes = bytes;
  plan_->done_bytes = 0;
  plan_->started = true;
  const int streams = OnePerTwoCores(connection_.options().streams);
  std::vector<LoadRange> ranges =
      CutRanges(plan_->targets.get(), plan_->tensors.size(),
                std::clamp(bytes / (streams * 4), kLeastRangeBytes, kMostRangeBytes));
  const size_t lanes = std::min<size_t>(streams, ranges.size());
  {
    MutexLock lock(mutex_);
    ranges_.assign(ranges.rbegin(), ranges.rend());
  }
  std::vector<std::thread> threads;
  for (size_t lane = 1; lane < lanes; ++lane) {
    threads.push_back(TryThread([this, lane] { RunLane(static_cast<int>(lane)); }));
  }
  RunLane(0);
  for (std::thread& thread : threads) {
    if (thread.joinable()) thread.join();
  }
  // What another lane handed back after this one had ended.
  RunLane(0);
  MutexLock lock(mutex_);
  return failure_;
}

LoadRange LoadRun::NextRange() {
  MutexLock lock(mutex_);
  if (ranges_.empty()) return {};
  const LoadRange range = ranges_.back();
  ranges_.pop_back();
  return range;
}

bool LoadRun::HandBack(int lane, const absl::Status& refusal, LoadRange left) {
  // Lane 0 waits for its turn: one stream is enough, and without any nothing comes.
  if (lane == 0 || !IsOverloaded(refusal)) return false;
  MutexLock lock(mutex_);
  ranges_.push_back(left);
  return true;
}

void LoadRun::RunLane(int lane) {
  for (LoadRange range = NextRange(); range.end > range.begin; range = NextRange()) {
    if (cancellation_.cancelled()) return;
    const absl::StatusOr<bool> fetched = FetchRange(lane, range);
    if (fetched.ok() && *fetched) continue;
    if (fetched.ok()) return;
    {
      MutexLock lock(mutex_);
      // The first is the cause; the others were cancelled because of it.
      if (failure_.ok()) failure_ = fetched.status();
    }
    cancellation_.Cancel();
    return;
  }
}

absl::StatusOr<bool> LoadRun::FetchRange(int lane, LoadRange range) {
  RetryState retry(
      RetryPolicy::Of(connection_.options()), deadline_,
      [this](std::chrono::milliseconds time) { return cancellation_.Sleep(time); });
  int64_t position = range.begin;
  std::optional<int64_t> mismatch_at;
  int64_t seen_bytes = plan_->transferred_bytes;
  while (true) {
    const int64_t before = position;
    const std::string token = Token();
    absl::Status s = FetchOnce(lane, range.end, &position, token);
    if (position == range.end) return true;
    if (cancellation_.cancelled()) return absl::CancelledError("another stream failed");
    plan_->reconnects += 1;
    // A stream that is refused while others bring bytes waits for its turn.
    const int64_t brought = plan_->transferred_bytes;
    if (brought > seen_bytes) retry.OnProgressElsewhere();
    seen_bytes = brought;
    if (position > before) retry.OnProgress();
    if (HandBack(lane, s, {position, range.end})) return false;
    if (absl::IsFailedPrecondition(s)) {
      // The token is unknown. A server that forgets the new one too is as good as
      // away.
      s = RenewToken(token);
      if (s.ok()) s = absl::UnavailableError("the server knows the load no more");
    } else if (absl::IsDataLoss(s) && mismatch_at != position) {
      // What was damaged on the way comes whole the second time; what is damaged
      // at its source does not.
      mismatch_at = position;
      continue;
    }
    if (absl::Status final = retry.OnFailure(s); !final.ok()) return final;
  }
}

absl::Status LoadRun::FetchOnce(int lane, int64_t end, int64_t* position,
                                const std::string& token) {
  absl::StatusOr<std::unique_ptr<Stream>> stream =
      connection_.Open(std::string(kTransfer) + "LoadCheckpoint", lane, StepDeadline());
  if (!stream.ok()) return stream.status();
  TrackedStream tracked(cancellation_, **stream);
  v1::LoadCheckpointRequest request;
  request.set_name(plan_->checkpoint.name);
  request.set_omit_plan(true);
  request.set_resume_token(token);
  request.set_start_position(*position);
  request.set_end_position(end);
  request.set_max_message_bytes(kMaxMessageBytes);
  absl::Status s = SendRequest(**stream, request.SerializeAsString(), StepDeadline());
  if (!s.ok()) return s;
  ChunkReceiver receiver(plan_);
  while (*position < end) {
    absl::StatusOr<ReceivedMessage> message = (*stream)->Read(StepDeadline());
    if (!message.ok()) return WhyBroken(**stream, message.status(), StepDeadline());
    if (s = receiver.Take(*message, end, position); !s.ok()) return s;
  }
  // All bytes are here and verified: how the stream ends changes nothing.
  (void)(*stream)->Finish(StepDeadline());
  return absl::OkStatus();
}

absl::Status LoadRun::RenewToken(const std::string& used) {
  MutexLock lock(plan_->mutex);
  if (plan_->resume_token != used) return absl::OkStatus();
  absl::StatusOr<FetchedPlan> fetched =
      FetchPlan(connection_, plan_->checkpoint.name, plan_->options, deadline_);
  if (!fetched.ok()) return fetched.status();
  if (fetched->checkpoint.manifest_digest() != plan_->checkpoint.manifest_digest ||
      fetched->checkpoint.model_uid() != plan_->checkpoint.model_uid ||
      fetched->total_bytes != plan_->total_bytes) {
    return absl::AbortedError(
        absl::StrCat(plan_->checkpoint.name, " was replaced while it was loaded"));
  }
  plan_->resume_token = fetched->resume_token;
  return absl::OkStatus();
}

}  // namespace

absl::Status RunLoad(LoadPlan::State* plan, Deadline deadline) {
  absl::Status s = LoadRun(plan, deadline).Run();
  return s.ok() ? s : Annotate(s, absl::StrCat("loading ", plan->checkpoint.name));
}

}  // namespace modelstore::internal
