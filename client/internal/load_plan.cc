// First half of a load: fetches the plan and binds buffers to its tensors.
#include <unistd.h>

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "client/internal/background.h"
#include "client/internal/convert.h"
#include "client/internal/fetch_plan.h"
#include "client/internal/load.h"
#include "client/internal/load_run.h"
#include "client/internal/rpc.h"
#include "proto/contract/chunk_wire.h"
#include "proto/contract/errors.h"
#include "proto/contract/limits.h"
#include "proto/contract/message_codec.h"
#include "proto/contract/names.h"

namespace modelstore {
namespace internal {
namespace {

// Gaps up to this size are received and dropped, which is cheaper than another stream.
constexpr int64_t kSmallGapBytes = int64_t{256} << 10;

// A large section arrives in slices. An earlier message has its name.
absl::Status AddSectionSlice(const v1::LoadPlan& part, FetchedPlan* plan) {
  absl::StrAppend(&plan->section_bytes, part.section_bytes());
  if (plan->section_bytes.size() > static_cast<size_t>(kMaxManifestBytes)) {
    return absl::InternalError(
        "LoadCheckpoint: a section exceeds the maximum size of a manifest");
  }
  if (!part.section_complete()) return absl::OkStatus();
  v1::Section content;
  if (plan->sections.empty() || !ParseMessage(plan->section_bytes, &content)) {
    return absl::InternalError("LoadCheckpoint: a section is malformed");
  }
  plan->sections.back().MergeFrom(content);
  plan->section_bytes.clear();
  return absl::OkStatus();
}

absl::Status AddPart(absl::Span<const std::string_view> fragments, FetchedPlan* plan) {
  std::vector<absl::string_view> views;
  for (const std::string_view f : fragments) views.emplace_back(f.data(), f.size());
  absl::StatusOr<SplitMessage> split = SplitChunkMessage(views, kMaxHeadBytes);
  v1::LoadCheckpointResponse response;
  if (!split.ok() || !ParseMessage(split->head, &response)) {
    return absl::InternalError("LoadCheckpoint: a message is malformed");
  }
  v1::LoadPlan& part = *response.mutable_plan();
  if (part.has_checkpoint()) {
    plan->checkpoint = std::move(*part.mutable_checkpoint());
    plan->resume_token = part.resume_token();
    plan->total_bytes = part.total_bytes();
  }
  for (v1::Tensor& t : *part.mutable_tensors()) plan->tensors.push_back(std::move(t));
  for (v1::Section& s : *part.mutable_sections()) plan->sections.push_back(std::move(s));
  if (absl::Status s = AddSectionSlice(part, plan); !s.ok()) return s;
  plan->complete = plan->complete || part.complete();
  if (plan->tensors.size() > static_cast<size_t>(kMaxTensors)) {
    return absl::InternalError(
        "LoadCheckpoint: the plan exceeds the maximum number of tensors");
  }
  return absl::OkStatus();
}

// Converts the plan and computes each tensor's range in the sequence. The server's sizes
// are checked against dtype and shape (ToTensorInfo) and against the total.
absl::Status FillState(FetchedPlan fetched, LoadPlan::State* state) {
  state->checkpoint = ToCheckpointInfo(fetched.checkpoint);
  state->total_bytes = fetched.total_bytes;
  state->targets = std::make_unique<LoadTarget[]>(fetched.tensors.size());
  int64_t position = 0;
  for (size_t i = 0; i < fetched.tensors.size(); ++i) {
    absl::StatusOr<TensorInfo> info = ToTensorInfo(fetched.tensors[i]);
    if (!info.ok()) return info.status();
    state->targets[i].begin = position;
    position += info->size_bytes;
    state->targets[i].end = position;
    state->tensors.push_back(*std::move(info));
  }
  if (position != fetched.total_bytes) {
    return absl::InternalError(absl::StrCat("LoadCheckpoint: the plan has ",
                                            fetched.total_bytes,
                                            " bytes, but its tensors have ", position));
  }
  for (const v1::Section& section : fetched.sections) {
    absl::StatusOr<SectionContent> content = ToSectionContent(section);
    if (!content.ok()) return content.status();
    state->sections.push_back(*std::move(content));
  }
  MutexLock lock(state->mutex);
  state->resume_token = fetched.resume_token;
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<FetchedPlan> FetchPlan(Connection& connection, const std::string& name,
                                      const LoadOptions& options, Deadline deadline) {
  v1::LoadCheckpointRequest request;
  ToLoadRequest(options, &request);
  request.set_name(name);
  request.set_plan_only(true);
  const auto step = [&] {
    return std::min(deadline, After(connection.options().stall_timeout));
  };
  absl::StatusOr<std::unique_ptr<Stream>> stream =
      connection.Open(std::string(kTransfer) + "LoadCheckpoint", 0, step());
  if (!stream.ok()) return stream.status();
  absl::Status s = SendRequest(**stream, request.SerializeAsString(), step());
  if (!s.ok()) return s;
  FetchedPlan plan;
  while (true) {
    absl::StatusOr<ReceivedMessage> message = (*stream)->Read(step());
    if (absl::IsOutOfRange(message.status())) break;
    if (!message.ok()) return StreamError(**stream, message.status(), step());
    if (s = AddPart(message->fragments, &plan); !s.ok()) return s;
  }
  // OK without `complete` is a truncated plan.
  if (s = (*stream)->Finish(step()); !s.ok()) return s;
  if (!plan.complete) return absl::UnavailableError("the plan ended early");
  return plan;
}

absl::StatusOr<LoadPlan> MakeLoadPlan(std::shared_ptr<Connection> connection,
                                      std::string_view name, const LoadOptions& options) {
  const std::string text(name);
  if (auto parsed = ParseCheckpointName("name", text); !parsed.ok()) {
    return parsed.status();
  }
  v1::LoadCheckpointRequest request;
  ToLoadRequest(options, &request);
  if (absl::Status s = CheckStrings(request); !s.ok()) return s;
  absl::StatusOr<FetchedPlan> fetched = Retry(
      RetryPolicy::Of(connection->options()), Idempotency::kIdempotent,
      TransferDeadline(options.deadline), DefaultSleeper(),
      [&](Deadline deadline) { return FetchPlan(*connection, text, options, deadline); });
  if (!fetched.ok())
    return Annotate(fetched.status(), absl::StrCat("planning to load ", text));
  auto state = std::make_unique<LoadPlan::State>();
  state->connection = std::move(connection);
  state->options = options;
  state->pid = getpid();
  absl::Status s = FillState(*std::move(fetched), state.get());
  if (!s.ok()) return s;
  return LoadPlan(std::move(state));
}

std::vector<LoadRange> CutRanges(const LoadTarget* targets, size_t count,
                                 int64_t max_bytes) {
  std::vector<LoadRange> ranges;
  for (size_t i = 0; i < count; ++i) {
    const LoadTarget& target = targets[i];
    if (!target.bound || target.begin == target.end) continue;
    int64_t position = target.begin;
    while (position < target.end) {
      const bool joins =
          !ranges.empty() && position - ranges.back().end <= kSmallGapBytes;
      if (!joins) ranges.push_back({position, position});
      LoadRange& range = ranges.back();
      const int64_t limit = range.begin + max_bytes;
      if (target.end <= limit) {
        range.end = position = target.end;
        continue;
      }
      // Multiples of kMaxChunkBytes are chunk boundaries for every chunk size.
      const int64_t cut =
          target.begin + (limit - target.begin) / kMaxChunkBytes * kMaxChunkBytes;
      if (limit > target.begin && cut > position) range.end = position = cut;
      if (range.begin == range.end) {
        range.end = position = std::min(target.end, position + kMaxChunkBytes);
      } else {
        ranges.push_back({position, position});
      }
    }
  }
  while (!ranges.empty() && ranges.back().begin == ranges.back().end) ranges.pop_back();
  return ranges;
}

}  // namespace internal

LoadPlan::LoadPlan(std::unique_ptr<State> state) : state_(std::move(state)) {}
LoadPlan::LoadPlan(LoadPlan&&) noexcept = default;
LoadPlan& LoadPlan::operator=(LoadPlan&&) noexcept = default;
LoadPlan::~LoadPlan() {
  // In a forked child the connection must not be destroyed.
  if (state_ != nullptr && getpid() != state_->pid) {
    internal::KeepForever(std::move(state_->connection));
  }
}

const CheckpointInfo& LoadPlan::checkpoint() const { return state_->checkpoint; }
const std::vector<TensorInfo>& LoadPlan::tensors() const { return state_->tensors; }
const std::vector<SectionContent>& LoadPlan::sections() const { return state_->sections; }
int64_t LoadPlan::total_bytes() const { return state_->total_bytes; }

absl::Status LoadPlan::Bind(size_t index, WritableBuffer buffer) {
  if (index >= state_->tensors.size()) {
    return absl::OutOfRangeError(absl::StrCat("the plan has no tensor ", index));
  }
  const TensorInfo& info = state_->tensors[index];
  if (buffer.size_bytes < static_cast<size_t>(info.size_bytes) ||
      (buffer.data == nullptr && buffer.sink == nullptr && info.size_bytes > 0)) {
    return absl::InvalidArgumentError(
        absl::StrCat("tensor ", TensorNameOf(info.section, info.key), " needs ",
                     info.size_bytes, " bytes, the buffer has ", buffer.size_bytes));
  }
  state_->targets[index].buffer = std::move(buffer);
  state_->targets[index].bound = true;
  return absl::OkStatus();
}

absl::Status LoadPlan::Run(Deadline deadline) {
  if (getpid() != state_->pid) {
    return absl::FailedPreconditionError(
        "this plan belongs to the parent process: fork() before connecting");
  }
  return internal::RunLoad(state_.get(), deadline);
}

bool LoadPlan::done(size_t index) const {
  return index < state_->tensors.size() && state_->started &&
         state_->targets[index].bound && state_->targets[index].missing == 0;
}

bool LoadPlan::touched(size_t index) const {
  return index < state_->tensors.size() && state_->targets[index].touched;
}

Progress LoadPlan::progress() const {
  Progress p;
  p.total_bytes = state_->bound_bytes;
  p.done_bytes = state_->done_bytes;
  p.transferred_bytes = state_->transferred_bytes;
  p.reconnects = state_->reconnects;
  return p;
}

}  // namespace modelstore
