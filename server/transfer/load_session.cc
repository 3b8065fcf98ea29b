#include "server/transfer/load_session.h"

#include <algorithm>
#include <bit>

#include "absl/strings/str_cat.h"
#include "proto/contract/chunk_wire.h"
#include "proto/contract/errors.h"
#include "proto/contract/limits.h"
#include "proto/contract/names.h"
#include "proto/contract/numeric.h"
#include "server/core/convert.h"
#include "server/core/request_codec.h"
#include "server/core/resource_names.h"

namespace modelstore::server {
namespace {

// Maximum `data` of a message, and runs in it. Messages are large because each passes
// between several threads at a cost that does not depend on its size. They start small
// and double, because a client keeps only whole messages: over a connection that breaks
// repeatedly, a load of large messages would make no progress.
constexpr int64_t kBatchBytes = kMaxChunkBytes;
constexpr int kBatchRuns = 4096;
// Upper bound of a message's bytes other than `data`: a LoadedChunk (position, size and a
// 16-byte digest) encodes in less than 64 bytes.
constexpr int64_t kHeadBytes = int64_t{64} * kBatchRuns;
static_assert(kBatchBytes + kHeadBytes <= kMaxMessageBytes);
// Maximum size of a part of the plan; the rest of kMaxManifestMessageBytes is for the
// fields of LoadPlan other than sections and tensors, and for unknown ones.
constexpr size_t kPlanPartBytes = static_cast<size_t>(kMaxManifestMessageBytes) - 4096;
// Upper bound of a section's fields other than value and metadata.
constexpr size_t kSectionHeadBytes = 1024;

// Returns the maximum `data` of a message that the client accepts. A client that sets no
// max_message_bytes gets messages within gRPC's default limit.
int64_t MaxBatchBytes(const v1::LoadCheckpointRequest& request) {
  const int64_t message =
      std::clamp(request.max_message_bytes(), kMaxAnswerBytes, kMaxMessageBytes);
  return std::min(kBatchBytes, message - kHeadBytes);
}

// INVALID_ARGUMENT if a request with a resume_token also sets a field whose value the
// token carries.
absl::Status CheckTokenRequest(const v1::LoadCheckpointRequest& request) {
  if (request.has_selection() || request.slices_size() != 0 ||
      request.target_dtype() != v1::DTYPE_UNSPECIFIED || !request.device().empty()) {
    return InvalidField("resume_token",
                        "stands for selection, slices, target_dtype and device: leave "
                        "them unset");
  }
  return absl::OkStatus();
}

// `total` is the length of the sequence in bytes, here and in CheckRange().
int64_t EndPosition(const v1::LoadCheckpointRequest& request, int64_t total) {
  return request.has_end_position() ? request.end_position() : total;
}

absl::Status CheckRange(const v1::LoadCheckpointRequest& request, int64_t total) {
  const int64_t begin = request.start_position();
  const int64_t end = EndPosition(request, total);
  if (begin < 0 || begin > total) {
    return absl::OutOfRangeError(
        absl::StrCat("start_position ", begin, " of a sequence of ", total, " bytes"));
  }
  if (end < begin || end > total) {
    return absl::OutOfRangeError(absl::StrCat("end_position ", end, " of a sequence of ",
                                              total, " bytes that is read from ", begin));
  }
  return absl::OkStatus();
}

// INVALID_ARGUMENT if the request names another checkpoint than its resume_token. A name
// without a version number (an alias or `latest`) is compared by model alone, because it
// may have moved since the token was issued.
absl::Status CheckName(const CheckpointRef& ref, const storage::Read& read) {
  if (ref.model_id == read.model().model_id() &&
      (!ref.version.number || *ref.version.number == read.checkpoint().version())) {
    return absl::OkStatus();
  }
  return InvalidField(
      "resume_token",
      absl::StrCat("was given for ", CheckpointNameOf(read.model().model_id(),
                                                      read.checkpoint().version())));
}

}  // namespace

absl::StatusOr<std::unique_ptr<OutboundSession>> LoadSession::Open(
    ServiceContext& context, absl::string_view bytes) {
  v1::LoadCheckpointRequest request;
  if (auto s = ParseRequest(bytes, &request); !s.ok()) return s;
  auto ref = ParseCheckpointRef("name", request.name());
  if (!ref.ok()) return ref.status();
  absl::StatusOr<std::shared_ptr<storage::Read>> read;
  // The request that selects: this one, or the one that its resume_token was made of.
  // The range, omit_plan and plan_only are always those of `request`.
  v1::LoadCheckpointRequest selection = request;
  if (request.resume_token().empty()) {
    if (request.omit_plan()) {
      return InvalidField("omit_plan", "needs the resume_token of the plan");
    }
    read = context.store->reads().Open(ref->model_id, ref->version);
  } else {
    if (auto s = CheckTokenRequest(request); !s.ok()) return s;
    auto kept = ReadResumeToken(request.resume_token());
    if (!kept.ok()) return kept.status();
    selection = *std::move(kept);
    read = context.store->reads().Reopen(selection.resume_token());
    if (read.ok()) {
      if (auto s = CheckName(*ref, **read); !s.ok()) return s;
    }
  }
  if (!read.ok()) return read.status();
  // Reserved for every tensor of the manifest before the plan is made, because how many
  // the selection takes is not known earlier.
  Reservation reservation(context.memory);
  const int64_t tensors = (*read)->manifest().tensors_size();
  auto reserved = reservation.Grow(tensors * static_cast<int64_t>(sizeof(PlannedTensor)));
  if (!reserved.ok()) return reserved;
  auto plan = TensorPlan::Make(*read, selection);
  if (!plan.ok()) return plan.status();
  if (auto s = CheckRange(request, plan->total_bytes()); !s.ok()) return s;
  std::string token = request.resume_token();
  if (token.empty()) {
    token = MakeResumeToken(context.store->reads().Token(**read), selection);
  }
  request.set_device(selection.device().empty() ? "cpu" : selection.device());
  return std::unique_ptr<OutboundSession>(new LoadSession(
      *std::move(plan), std::move(reservation), std::move(request), std::move(token)));
}

LoadSession::LoadSession(TensorPlan plan, Reservation reservation,
                         v1::LoadCheckpointRequest request, std::string token)
    : plan_(std::move(plan)),
      reservation_(std::move(reservation)),
      request_(std::move(request)),
      token_(std::move(token)),
      max_batch_bytes_(MaxBatchBytes(request_)),
      max_run_bytes_(
          static_cast<int64_t>(std::bit_floor(static_cast<uint64_t>(max_batch_bytes_)))),
      plan_done_(request_.omit_plan()),
      position_(request_.start_position()),
      end_(EndPosition(request_, plan_.total_bytes())) {
  if (request_.plan_only()) end_ = position_;
  if (position_ < end_) at_ = plan_.Find(position_);
}

absl::StatusOr<std::optional<OutboundMessage>> LoadSession::Next() {
  if (cancelled_) return absl::CancelledError("the load was cancelled");
  if (!plan_done_) return NextPlanPart();
  if (position_ >= end_) return std::nullopt;
  return NextChunks();
}

absl::StatusOr<std::optional<OutboundMessage>> LoadSession::NextPlanPart() {
  v1::LoadCheckpointResponse response;
  v1::LoadPlan* part = response.mutable_plan();
  const storage::Read& read = plan_.read();
  if (first_part_) {
    *part->mutable_checkpoint() = CheckpointFromRecord(read.model(), read.checkpoint());
    part->set_resume_token(token_);
    part->set_total_bytes(plan_.total_bytes());
    (*part->mutable_bytes_by_device())[request_.device()] = plan_.total_bytes();
    first_part_ = false;
  }
  // A part is filled until the next entry would exceed kPlanPartBytes. One entry is
  // always added to an empty part, so that every part makes progress. A section larger
  // than a part is sent in slices, one a part.
  size_t bytes = part->ByteSizeLong();
  while (sent_sections_ < plan_.sections().size()) {
    const auto& record = read.manifest().sections(plan_.sections()[sent_sections_]);
    const size_t size = record.value().size() + kSectionHeadBytes;
    if (bytes > 0 && bytes + size > kPlanPartBytes) break;
    if (auto s = AddSection(record, size > kPlanPartBytes, part); !s.ok()) return s;
    bytes += size;
  }
  while (sent_sections_ == plan_.sections().size() &&
         sent_tensors_ < plan_.tensors().size()) {
    v1::Tensor tensor = plan_.Describe(plan_.tensors()[sent_tensors_]);
    const size_t size = tensor.ByteSizeLong() + 8;  // tag and length
    if (bytes > 0 && bytes + size > kPlanPartBytes) break;
    *part->add_tensors() = std::move(tensor);
    bytes += size;
    ++sent_tensors_;
  }
  plan_done_ = sent_tensors_ == plan_.tensors().size() &&
               sent_sections_ == plan_.sections().size();
  part->set_complete(plan_done_);
  return OutboundMessage{response.SerializeAsString(), {}};
}

absl::Status LoadSession::AddSection(const storage::records::SectionRecord& record,
                                     bool in_slices, v1::LoadPlan* part) {
  if (sent_slice_bytes_ == 0) {
    auto section = SectionFromRecord(record, FullCheckpointName(plan_.read()));
    if (!section.ok()) return section.status();
    // The totals are those of the checkpoint record, as in all other responses.
    for (const auto& summary : plan_.read().checkpoint().sections()) {
      if (summary.name() != section->name()) continue;
      section->set_tensor_count(summary.tensor_count());
      section->set_logical_bytes(summary.logical_bytes());
    }
    if (in_slices) {
      // They are in section_bytes instead, which this part and the next ones carry.
      section->clear_value();
      section->clear_metadata();
    }
    *part->add_sections() = *std::move(section);
  }
  if (in_slices) {
    const absl::string_view encoded = EncodedSection(record);
    const absl::string_view slice =
        encoded.substr(sent_slice_bytes_, kPlanPartBytes - kSectionHeadBytes);
    part->set_section_bytes(std::string(slice));
    sent_slice_bytes_ += slice.size();
    if (sent_slice_bytes_ < encoded.size()) return absl::OkStatus();
    part->set_section_complete(true);
    sent_slice_bytes_ = 0;
  }
  ++sent_sections_;
  return absl::OkStatus();
}

absl::StatusOr<std::optional<OutboundMessage>> LoadSession::NextChunks() {
  v1::LoadCheckpointResponse response;
  OutboundMessage message;
  int64_t bytes = 0;
  while (position_ < end_ && bytes < batch_bytes_ &&
         response.chunks_size() < kBatchRuns) {
    if (auto s = EnterTensor(); !s.ok()) return s;
    const Run run = PlanRun();
    if (bytes > 0 && bytes + run.size_bytes > batch_bytes_) break;
    v1::LoadedChunk* header = response.add_chunks();
    header->set_position(position_);
    header->set_size_bytes(run.size_bytes);
    if (auto s = ReadRun(run, header, &message); !s.ok()) return s;
    bytes += run.size_bytes;
    position_ += run.size_bytes;
  }
  first_chunks_ = false;
  // The stream may now wait for its client for long: it must not hold a chunk meanwhile.
  cursor_->Release();
  batch_bytes_ = std::min(2 * batch_bytes_, max_batch_bytes_);
  message.head = ChunkMessageHead(response, static_cast<size_t>(bytes));
  return message;
}

absl::Status LoadSession::EnterTensor() {
  const auto& tensors = plan_.tensors();
  // Also skips tensors without bytes: empty ones and those tied to an earlier one.
  while (position_ >= tensors[at_].position + tensors[at_].size_bytes) ++at_;
  const int source = tensors[at_].source;
  if (cursor_.has_value() && cursor_->tensor() == source) return absl::OkStatus();
  auto cursor = storage::ChunkCursor::Open(plan_.shared_read(), source);
  if (!cursor.ok()) return cursor.status();
  cursor_ = *std::move(cursor);
  return absl::OkStatus();
}

LoadSession::Run LoadSession::PlanRun() {
  const PlannedTensor& tensor = plan_.tensors()[at_];
  Run run;
  run.cast = tensor.from != tensor.to;
  // Sizes in bytes of one unit as stored and as sent. A unit is an element if it is cast,
  // else a byte. `first` and `last` count units of the planned tensor.
  const int64_t in = run.cast ? ElementSize(tensor.from) : 1;
  const int64_t out = run.cast ? ElementSize(tensor.to) : 1;
  const int64_t offset = position_ - tensor.position;
  const int64_t first = offset / out;
  run.skip = offset % out;
  run.begin = tensor.source_begin + first * in;
  cursor_->Seek(run.begin);

  // The run ends at the first of: the requested range, the tensor, the stored chunk, the
  // maximum of a run. `wanted` is the number of the tensor's bytes before the first two.
  const int64_t wanted = std::min(end_ - tensor.position, tensor.size_bytes);
  int64_t last = std::min((cursor_->chunk_end() - tensor.source_begin) / in,
                          (wanted + out - 1) / out);
  last =
      std::min(last, first + (first_chunks_ ? kInitialSendBytes : max_run_bytes_) / out);
  run.end = tensor.source_begin + last * in;
  run.size_bytes = std::min(last * out, wanted) - offset;
  return run;
}

absl::Status LoadSession::ReadRun(const Run& run, v1::LoadedChunk* header,
                                  OutboundMessage* message) {
  const PlannedTensor& tensor = plan_.tensors()[at_];
  const auto chunk = cursor_->HoldChunk();
  if (!chunk.ok()) return chunk.status();
  const absl::string_view taken =
      (*chunk)->view().substr(run.begin - cursor_->chunk_begin(), run.end - run.begin);
  const auto algorithm = DigestAlgorithm::kXxh3_128;
  // `owner` keeps the bytes of `sent` alive until gRPC has sent them: the chunk itself,
  // or a copy.
  absl::string_view sent = taken.substr(0, run.cast ? 0 : run.size_bytes);
  std::shared_ptr<void> owner = *chunk;
  if (run.cast) {
    const int64_t count = (run.end - run.begin) / ElementSize(tensor.from);
    auto cast = std::make_shared<std::string>();
    cast->resize(count * ElementSize(tensor.to));
    auto s = Cast(tensor.from, taken.data(), tensor.to, cast->data(), count);
    if (!s.ok()) return s;
    sent = absl::string_view(*cast).substr(run.skip, run.size_bytes);
    owner = std::move(cast);
  }
  // A chunk sent as it is stored has the stored digest, which HoldChunk() has checked.
  const bool whole = !run.cast && sent.size() == (*chunk)->view().size();
  if (whole && !cursor_->digest().empty()) {
    header->set_digest(std::string(cursor_->digest()));
  } else {
    header->set_digest(std::string(ComputeDigest(algorithm, sent).bytes()));
  }
  if (!whole && !run.cast) {
    // The byte budget charges a message that the client has not read by its own size, so
    // the message must not keep the larger chunk alive.
    auto copy = std::make_shared<std::string>(sent);
    sent = *copy;
    owner = std::move(copy);
  }
  message->payloads.emplace_back(sent, std::move(owner));
  if (run.end == cursor_->chunk_end()) cursor_->Release();
  return absl::OkStatus();
}

}  // namespace modelstore::server
