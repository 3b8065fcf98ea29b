#include "server/operations/verify_session.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/strip.h"
#include "proto/contract/errors.h"
#include "proto/contract/steady_time.h"
#include "server/core/request_codec.h"
#include "server/core/resource_names.h"

namespace modelstore::server {
namespace {

using Finding = v1::VerifyCheckpointResponse::Finding;

// Maximum wait for the rate limit before the call checks whether it was cancelled.
constexpr absl::Duration kLongestWait = absl::Milliseconds(200);
// Bytes read by one step, about 10 ms, after which other RPCs can use the thread.
constexpr int64_t kStepBytes = int64_t{16} << 20;
// Jobs of one step. Bounds steps over tensors without bytes.
constexpr size_t kStepJobs = 1024;

// True if the error is about the stored bytes, as opposed to the store or the call.
bool IsDamage(const absl::Status& status) {
  return absl::IsDataLoss(status) || absl::IsOutOfRange(status);
}

}  // namespace

absl::StatusOr<std::unique_ptr<OutboundSession>> VerifySession::Open(
    ServiceContext& context, absl::string_view bytes) {
  v1::VerifyCheckpointRequest request;
  if (auto s = ParseRequest(bytes, &request); !s.ok()) return s;
  auto ref = ParseCheckpointRef("name", request.name());
  if (!ref.ok()) return ref.status();
  if (request.max_bytes_per_second() < 0) {
    return InvalidField("max_bytes_per_second", "must not be negative; 0 for no limit");
  }
  auto read = context.store->reads().Open(ref->model_id, ref->version);
  if (!read.ok()) return read.status();
  Reservation reservation(context.memory);
  const int64_t tensors = (*read)->manifest().tensors_size();
  auto reserved = reservation.Grow(
      tensors * static_cast<int64_t>(sizeof(PlannedTensor) + sizeof(Finding)));
  if (!reserved.ok()) return reserved;
  return std::make_unique<OperationStream>(std::unique_ptr<OperationSession>(
      new VerifySession(context, *std::move(read), std::move(reservation), request)));
}

VerifySession::VerifySession(ServiceContext& context, std::shared_ptr<storage::Read> read,
                             Reservation reservation,
                             const v1::VerifyCheckpointRequest& request)
    : OperationSession(context),
      read_(std::move(read)),
      reservation_(std::move(reservation)),
      selection_(request.selection()),
      count_non_finite_(request.count_non_finite()),
      rate_limiter_(request.max_bytes_per_second()) {
  result_.set_checkpoint(FullCheckpointName(*read_));
}

absl::Status VerifySession::Plan() {
  v1::LoadCheckpointRequest request;
  *request.mutable_selection() = selection_;
  auto plan = TensorPlan::Make(read_, request);
  if (!plan.ok()) return plan.status();
  plan_ = *std::move(plan);
  total_bytes_ = plan_.total_bytes();
  return absl::OkStatus();
}

absl::StatusOr<OperationSession::Then> VerifySession::Step() {
  if (!std::exchange(planned_, true)) return Aside([this] { return Plan(); });
  if (at_ == plan_.tensors().size()) return Done();
  if (const absl::Duration wait = rate_limiter_.Wait(SteadyNow());
      wait > absl::ZeroDuration()) {
    return Again(std::min(wait, kLongestWait));
  }
  // The jobs read in parallel; their results are taken in order, so that a tensor ends
  // after all its chunks.
  std::vector<Job> jobs = Gather(rate_limiter_.StepBytes(kStepBytes));
  context_.ForEach(static_cast<int>(jobs.size()), [&](int i) { ReadOne(jobs[i]); });
  int64_t bytes = 0;
  for (const Job& job : jobs) {
    if (!job.status.ok() && !IsDamage(job.status)) return job.status;
    bytes += job.bytes;
    if (job.is_end) {
      EndTensor(job.tensor);
    } else {
      TakeChunk(job);
    }
  }
  result_.set_verified_bytes(result_.verified_bytes() + bytes);
  rate_limiter_.Spend(bytes, SteadyNow());
  return Again();
}

std::vector<VerifySession::Job> VerifySession::Gather(int64_t bytes) {
  std::vector<Job> jobs;
  while (bytes > 0 && jobs.size() < kStepJobs && at_ < plan_.tensors().size()) {
    const PlannedTensor& tensor = plan_.tensors()[at_];
    Job job;
    job.tensor = at_;
    if (!entered_ && tensor.tied_to.empty()) {
      auto cursor = storage::ChunkCursor::Open(plan_.shared_read(), tensor.source);
      entered_ = true;
      if (cursor.ok()) {
        next_ = *std::move(cursor);
      } else {
        // The pieces do not tile the tensor, so none of its bytes can be read.
        job.bytes = tensor.size_bytes;
        job.status = cursor.status();
        jobs.push_back(std::move(job));
        continue;
      }
    }
    if (next_.has_value() && !next_->done()) {
      job.chunk = next_;
      job.bytes = next_->chunk_bytes();
      next_->NextChunk();
      bytes -= job.bytes;
    } else {
      job.is_end = true;
      entered_ = false;
      next_.reset();
      ++at_;
    }
    jobs.push_back(std::move(job));
  }
  return jobs;
}

void VerifySession::ReadOne(Job& job) const {
  // A chunk that is skipped because of a cancellation counts as read, but the call ends
  // with an error before it sends a result.
  if (job.is_end || !job.status.ok() || !CheckCancelled().ok()) return;
  const PlannedTensor& tensor = plan_.tensors()[job.tensor];
  auto bytes = job.chunk->ReadChunk();
  job.status = bytes.status();
  if (!bytes.ok() || !count_non_finite_) return;
  const absl::string_view view = bytes->view();
  job.found =
      CountNonFinite(tensor.from, view.data(),
                     static_cast<int64_t>(view.size()) / ElementSize(tensor.from));
}

void VerifySession::TakeChunk(const Job& job) {
  current_.set_nan_count(current_.nan_count() + job.found.nan);
  current_.set_infinity_count(current_.infinity_count() + job.found.infinite);
  if (job.status.ok()) return;
  const PlannedTensor& tensor = plan_.tensors()[job.tensor];
  current_.set_damaged_bytes(current_.damaged_bytes() + job.bytes);
  if (!current_.damage().empty()) return;
  // Only the first error of a tensor is reported, without the tensor's name, which is a
  // field of the finding.
  const std::string prefix = absl::StrCat(
      "tensor ", FullTensorName(plan_.read().manifest().tensors(tensor.source)), " of ",
      result_.checkpoint(), ": ");
  current_.set_damage(std::string(absl::StripPrefix(job.status.message(), prefix)));
}

void VerifySession::EndTensor(size_t index) {
  const PlannedTensor& tensor = plan_.tensors()[index];
  result_.set_verified_tensors(result_.verified_tensors() + 1);
  if (tensor.tied_to.empty()) {
    // The elements are counted once, although several tensors may share them.
    result_.set_nan_count(result_.nan_count() + current_.nan_count());
    result_.set_infinity_count(result_.infinity_count() + current_.infinity_count());
    if (!current_.damage().empty() ||
        current_.nan_count() + current_.infinity_count() > 0) {
      findings_[tensor.source] = std::move(current_);
    }
    current_.Clear();
  }
  // A tensor tied to an earlier one of the sequence reports the finding of that one.
  const auto found = findings_.find(tensor.source);
  if (found == findings_.end()) return;
  if (!found->second.damage().empty()) {
    result_.set_damaged_tensors(result_.damaged_tensors() + 1);
  }
  v1::VerifyCheckpointResponse response;
  *response.mutable_finding() = found->second;
  response.mutable_finding()->set_tensor(
      FullTensorName(plan_.read().manifest().tensors(tensor.described)));
  Send(response);
}

std::string VerifySession::Progress() const {
  v1::VerifyCheckpointResponse response;
  response.mutable_progress()->set_verified_bytes(result_.verified_bytes());
  response.mutable_progress()->set_total_bytes(total_bytes_);
  return response.SerializeAsString();
}

std::string VerifySession::Result() {
  v1::VerifyCheckpointResponse response;
  *response.mutable_result() = std::move(result_);
  return response.SerializeAsString();
}

}  // namespace modelstore::server
