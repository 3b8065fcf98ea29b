// Distributes ranges of the plan's sequence to one thread per stream. A range whose
// stream breaks resumes on a new stream at the last verified byte.
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

constexpr int64_t kMinRangeBytes = int64_t{16} << 20;
constexpr int64_t kMaxRangeBytes = int64_t{128} << 20;

class LoadRun {
 public:
  LoadRun(LoadPlan::State* plan, Deadline deadline)
      : plan_(plan), connection_(*plan->connection), deadline_(deadline) {}

  absl::Status Run();

 private:
  void RunLane(int lane);
  // Empty when none is left.
  LoadRange NextRange() EXCLUDES(mutex_);
  // If the server has no stream for this lane, returns the rest of its range to the queue
  // and is true; the lane then ends.
  bool ReturnRange(int lane, const absl::Status& refusal, LoadRange left)
      EXCLUDES(mutex_);
  // Fetches a range with retries. False if the rest of it was returned to the queue.
  absl::StatusOr<bool> FetchRange(int lane, LoadRange range);
  // One attempt. Advances `*position` by verified bytes, also if it fails.
  absl::Status FetchOnce(int lane, int64_t end, int64_t* position,
                         const std::string& token);
  // Replaces the resume token if it is still `used`: the server has forgotten it.
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
  // Ranges not started, in reverse order.
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
  const int streams = LimitToHalfTheCores(connection_.options().streams);
  std::vector<LoadRange> ranges =
      CutRanges(plan_->targets.get(), plan_->tensors.size(),
                std::clamp(bytes / (streams * 4), kMinRangeBytes, kMaxRangeBytes));
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
  // Ranges that other lanes returned after lane 0 had finished.
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

bool LoadRun::ReturnRange(int lane, const absl::Status& refusal, LoadRange left) {
  // Lane 0 retries instead: one stream is enough, and one is needed.
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
      // The first failure is the cause; later ones are cancellations.
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
    // If other streams made progress, a refused stream does not run into its retry
    // timeout.
    const int64_t received = plan_->transferred_bytes;
    if (received > seen_bytes) retry.OnOtherStreamProgress();
    seen_bytes = received;
    if (position > before) retry.OnProgress();
    if (ReturnRange(lane, s, {position, range.end})) return false;
    if (absl::IsFailedPrecondition(s)) {
      // The server does not know the token, usually after a restart. Counts as a
      // transient failure, in case it forgets the new one too.
      s = RenewToken(token);
      if (s.ok()) s = absl::UnavailableError("the server no longer knows the load");
    } else if (absl::IsDataLoss(s) && mismatch_at != position) {
      // Fetches once more: bytes damaged in transit are intact the second time, bytes
      // damaged at the source are not.
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
    if (!message.ok()) return StreamError(**stream, message.status(), StepDeadline());
    if (s = receiver.Take(*message, end, position); !s.ok()) return s;
  }
  // All bytes are verified, so the status of the stream does not matter.
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
