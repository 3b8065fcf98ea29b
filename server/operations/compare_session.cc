#include "server/operations/compare_session.h"

#include <algorithm>
#include <utility>

#include "proto/contract/limits.h"
#include "proto/contract/steady_time.h"
#include "server/core/request_codec.h"
#include "server/core/resource_names.h"

namespace modelstore::server {
namespace {

using Difference = v1::CompareCheckpointsResponse::TensorDifference;

// Maximum time that a difference waits for others to be sent in one message.
constexpr absl::Duration kDifferencesInterval = absl::Milliseconds(500);
// Bytes read by one step, about 10 ms, after which other RPCs can use the thread.
constexpr int64_t kStepBytes = int64_t{16} << 20;
// Jobs of one step. Bounds steps over tensors that are not read.
constexpr size_t kStepJobs = 1024;
// Size at which a message of differences is sent. Leaves space for one more, whose key
// and shapes are bounded.
constexpr size_t kDifferencesBytes = static_cast<size_t>(kMaxManifestMessageBytes) / 2;

absl::StatusOr<std::shared_ptr<storage::Read>> OpenRead(ServiceContext& context,
                                                        absl::string_view field,
                                                        const std::string& name) {
  auto ref = ParseCheckpointRef(field, name);
  if (!ref.ok()) return ref.status();
  return context.store->reads().Open(ref->model_id, ref->version);
}

}  // namespace

absl::StatusOr<std::unique_ptr<OutboundSession>> CompareSession::Open(
    ServiceContext& context, absl::string_view bytes) {
  v1::CompareCheckpointsRequest request;
  if (auto s = ParseRequest(bytes, &request); !s.ok()) return s;
  auto first = OpenRead(context, "name", request.name());
  if (!first.ok()) return first.status();
  auto other = OpenRead(context, "other", request.other());
  if (!other.ok()) return other.status();
  Reservation reservation(context.memory);
  const int64_t tensors =
      (*first)->manifest().tensors_size() + (*other)->manifest().tensors_size();
  auto reserved =
      reservation.Grow(tensors * static_cast<int64_t>(sizeof(ComparedTensor)));
  if (!reserved.ok()) return reserved;
  return std::make_unique<OperationStream>(std::unique_ptr<OperationSession>(
      new CompareSession(context, *std::move(first), *std::move(other),
                         std::move(reservation), std::move(request))));
}

CompareSession::CompareSession(ServiceContext& context,
                               std::shared_ptr<storage::Read> first,
                               std::shared_ptr<storage::Read> other,
                               Reservation reservation,
                               v1::CompareCheckpointsRequest request)
    : OperationSession(context),
      first_(std::move(first)),
      other_(std::move(other)),
      reservation_(std::move(reservation)),
      request_(std::move(request)) {}

absl::Status CompareSession::Plan() {
  auto plan = ComparePlan::Make(first_, other_, request_.selection());
  if (!plan.ok()) return plan.status();
  plan_ = *std::move(plan);
  int64_t total_bytes = 0;
  for (const ComparedTensor& tensor : plan_.tensors()) {
    if (ComparePlan::IsRead(tensor, request_.with_norms())) {
      total_bytes += plan_.SizeBytes(tensor);
    }
  }
  total_bytes_ = total_bytes;
  const storage::records::CheckpointRecord& first = first_->checkpoint();
  const storage::records::CheckpointRecord& other = other_->checkpoint();
  result_.set_checkpoint(FullCheckpointName(*first_));
  result_.set_other(FullCheckpointName(*other_));
  // The digest of a manifest covers all tensors, sections and attachments, whatever is
  // selected.
  result_.set_identical(plan_.DigestsComparable() &&
                        first.manifest_digest() == other.manifest_digest());
  result_.set_different_architecture(first.metadata().architecture() !=
                                     other.metadata().architecture());
  for (const std::string& section : plan_.DifferentSections(request_.selection())) {
    result_.add_different_sections(section);
  }
  return absl::OkStatus();
}

absl::StatusOr<OperationSession::Then> CompareSession::Step() {
  if (!std::exchange(planned_, true)) return Aside([this] { return Plan(); });
  if (taken_ == plan_.tensors().size()) {
    SendDifferences();
    return Done();
  }
  auto jobs = Gather();
  if (!jobs.ok()) return jobs.status();
  // The jobs read in parallel; their results are taken in order. A run that is skipped
  // because of a cancellation counts as equal, but the call ends with an error before it
  // sends a result.
  context_.ForEach(static_cast<int>(jobs->size()), [&](int i) {
    Job& job = (*jobs)[i];
    if (job.reading != nullptr && CheckCancelled().ok()) job.status = ReadRun(job);
  });
  for (const Job& job : *jobs) {
    if (!job.status.ok()) return job.status;
    compared_bytes_ += job.end - job.begin;
    if (job.reading == nullptr) {
      EndTensor(plan_.tensors()[taken_++]);
    } else {
      differs_ |= job.differs;
      sums_.Merge(job.sums);
    }
  }
  // Without norms the first difference decides, so the rest of the tensor is skipped.
  // differs_ is only set here if the end of the tensor was not taken yet; reading_ is
  // then still this tensor.
  if (differs_ && !request_.with_norms()) {
    compared_bytes_ += reading_->first.size_bytes() - position_;
    position_ = reading_->first.size_bytes();
  }
  if (SteadyNow() - differences_sent_ >= kDifferencesInterval) SendDifferences();
  return Again();
}

absl::StatusOr<std::vector<CompareSession::Job>> CompareSession::Gather() {
  std::vector<Job> jobs;
  int64_t bytes = 0;
  while (bytes < kStepBytes && jobs.size() < kStepJobs && at_ < plan_.tensors().size()) {
    const ComparedTensor& tensor = plan_.tensors()[at_];
    if (reading_ == nullptr && ComparePlan::IsRead(tensor, request_.with_norms())) {
      if (auto s = Enter(tensor); !s.ok()) return s;
    }
    Job job;
    if (reading_ != nullptr && position_ < reading_->first.size_bytes()) {
      // A run ends where the longer of the two chunks ends. Of the shorter chunks only
      // one that crosses this end is read twice, by this run and the next. The other
      // tensor may have another element size: its offsets are scaled.
      const int64_t size = ElementSize(reading_->first_dtype);
      const int64_t other_size = ElementSize(reading_->other_dtype);
      storage::ChunkCursor first = reading_->first, other = reading_->other;
      first.Seek(position_);
      other.Seek(position_ / size * other_size);
      job.reading = reading_;
      job.begin = position_;
      job.end = std::max(first.chunk_end(), other.chunk_end() / other_size * size);
      position_ = job.end;
      bytes += job.end - job.begin;
    } else {
      reading_.reset();
      ++at_;
    }
    jobs.push_back(std::move(job));
  }
  return jobs;
}

absl::Status CompareSession::Enter(const ComparedTensor& tensor) {
  auto first = storage::ChunkCursor::Open(plan_.first(), tensor.first_source);
  if (!first.ok()) return first.status();
  auto other = storage::ChunkCursor::Open(plan_.other(), tensor.other_source);
  if (!other.ok()) return other.status();
  const auto dtype = [](const storage::Read& read, int index) {
    return static_cast<DType>(read.manifest().tensors(index).dtype());
  };
  const DType first_dtype = dtype(*plan_.first(), tensor.first_source);
  const DType other_dtype = dtype(*plan_.other(), tensor.other_source);
  reading_ = std::make_shared<const Reading>(
      Reading{*std::move(first), *std::move(other), first_dtype, other_dtype,
              first_dtype == other_dtype && plan_.DigestsComparable()});
  position_ = 0;
  return absl::OkStatus();
}

absl::Status CompareSession::ReadRun(Job& job) const {
  const Reading& reading = *job.reading;
  const bool same_type = reading.first_dtype == reading.other_dtype;
  const int64_t size = ElementSize(reading.first_dtype);
  const int64_t other_size = ElementSize(reading.other_dtype);
  storage::ChunkCursor first = reading.first, other = reading.other;
  first.Seek(job.begin);
  other.Seek(job.begin / size * other_size);
  // Each round compares `count` elements that lie in one chunk on both sides.
  while (first.position() < job.end) {
    int64_t count = (job.end - first.position()) / size;
    const bool equal =
        reading.by_digest && CompareChunk(first, other) == ByDigest::kEqual;
    if (equal && !request_.with_norms()) {
      count = std::min(count, (first.chunk_end() - first.position()) / size);
    } else {
      auto bytes = first.Peek();
      if (!bytes.ok()) return bytes.status();
      // Equal chunks are read once: the norms need their values, but not both copies.
      auto other_bytes = equal ? bytes : other.Peek();
      if (!other_bytes.ok()) return other_bytes.status();
      count = std::min({count, static_cast<int64_t>(bytes->size()) / size,
                        static_cast<int64_t>(other_bytes->size()) / other_size});
      // Bytes of different types are not compared: the difference in dtype is known, and
      // the sums compare the values.
      if (same_type && !equal && !job.differs) {
        job.differs =
            bytes->substr(0, count * size) != other_bytes->substr(0, count * size);
      }
      if (request_.with_norms()) {
        job.sums.Add(reading.first_dtype, bytes->data(), reading.other_dtype,
                     other_bytes->data(), count);
      } else if (job.differs) {
        return absl::OkStatus();
      }
    }
    first.Advance(count * size);
    other.Advance(count * other_size);
  }
  return absl::OkStatus();
}

void CompareSession::EndTensor(const ComparedTensor& tensor) {
  const ComparedTensor::Kind kind =
      tensor.undecided && differs_ ? Difference::KIND_CONTENT : tensor.kind;
  switch (kind) {
    case Difference::KIND_ADDED:
      result_.set_added_tensors(result_.added_tensors() + 1);
      break;
    case Difference::KIND_REMOVED:
      result_.set_removed_tensors(result_.removed_tensors() + 1);
      break;
    case Difference::KIND_UNSPECIFIED:
      result_.set_equal_tensors(result_.equal_tensors() + 1);
      break;
    default:
      result_.set_different_tensors(result_.different_tensors() + 1);
  }
  if (kind != Difference::KIND_UNSPECIFIED) AddDifference(tensor, kind);
  differs_ = false;
  sums_ = DifferenceSums();
}

void CompareSession::AddDifference(const ComparedTensor& tensor,
                                   ComparedTensor::Kind kind) {
  Difference difference;
  difference.set_kind(kind);
  if (tensor.other >= 0) {
    const auto& record = plan_.other()->manifest().tensors(tensor.other);
    difference.set_tensor(FullTensorName(record));
    difference.set_other_dtype(static_cast<v1::DType>(record.dtype()));
    *difference.mutable_other_shape() = record.shape();
  }
  if (tensor.first >= 0) {
    const auto& record = plan_.first()->manifest().tensors(tensor.first);
    difference.set_tensor(FullTensorName(record));
    difference.set_dtype(static_cast<v1::DType>(record.dtype()));
    *difference.mutable_shape() = record.shape();
  }
  if (request_.with_norms() &&
      (kind == Difference::KIND_CONTENT || kind == Difference::KIND_DTYPE)) {
    difference.set_max_abs_difference(sums_.max_abs_difference());
    difference.set_difference_norm(sums_.difference_norm());
    difference.set_norm(sums_.norm());
    difference.set_differing_elements(sums_.differing_elements());
    difference.set_nan_differences(sums_.nan_differences());
  }
  differences_bytes_ += difference.ByteSizeLong() + 8;
  *differences_.mutable_differences()->add_tensors() = std::move(difference);
  if (differences_bytes_ >= kDifferencesBytes) SendDifferences();
}

void CompareSession::SendDifferences() {
  differences_sent_ = SteadyNow();
  if (differences_bytes_ == 0) return;
  Send(differences_);
  differences_.Clear();
  differences_bytes_ = 0;
}

std::string CompareSession::Progress() const {
  v1::CompareCheckpointsResponse response;
  response.mutable_progress()->set_compared_bytes(compared_bytes_);
  response.mutable_progress()->set_total_bytes(total_bytes_);
  return response.SerializeAsString();
}

std::string CompareSession::Result() {
  v1::CompareCheckpointsResponse response;
  *response.mutable_result() = std::move(result_);
  return response.SerializeAsString();
}

}  // namespace modelstore::server
