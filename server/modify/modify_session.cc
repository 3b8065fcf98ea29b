#include "server/modify/modify_session.h"

#include <algorithm>
#include <thread>
#include <utility>

#include "absl/strings/str_cat.h"
#include "proto/contract/architecture/text.h"
#include "proto/contract/errors.h"
#include "proto/contract/limits.h"
#include "proto/contract/message_codec.h"
#include "proto/contract/names.h"
#include "proto/contract/steady_time.h"
#include "server/core/convert.h"
#include "server/core/request_codec.h"
#include "server/core/resource_names.h"
#include "server/core/validation.h"
#include "server/modify/apply_edit.h"
#include "server/modify/follow_optimizer.h"
#include "server/modify/inconsistencies.h"

namespace modelstore::server::modify {
namespace {

// Time of one step of computation; see OperationSession::Step().
constexpr absl::Duration kStep = absl::Milliseconds(50);
// Maximum memory of all computing threads of one call; the first thread may exceed it.
constexpr int64_t kMaxThreadBytes = int64_t{64} << 20;
// The list of edits is a part of the version's record, which every listing reads.
constexpr int kMaxEdits = 1000;
// Ranges of rows that all tensors together may be composed of.
constexpr int64_t kMaxParts = int64_t{4} << 20;
// Approximate memory of a range of rows in the plan and of its piece in the manifest.
constexpr int64_t kPlannedPartBytes = 320;
constexpr size_t kMaxEditBytes = size_t{1} << 20;
// Size of a message of the report. The difference leaves room for the enclosing fields.
constexpr size_t kReportPartBytes = static_cast<size_t>(kMaxManifestMessageBytes) - 4096;

// Digest of everything in the request that determines the new version. A repeated request
// with the same request_id must have the same digest.
std::string DigestOf(const v1::ModifyCheckpointRequest& request) {
  v1::ModifyCheckpointRequest content = request;
  content.clear_request_id();
  content.clear_expected_latest_version();
  content.clear_validate_only();
  v1::Checkpoint metadata;
  const v1::Checkpoint& given = request.checkpoint();
  if (given.has_epoch()) metadata.set_epoch(given.epoch());
  if (given.has_step()) metadata.set_step(given.step());
  if (given.has_loss()) metadata.set_loss(given.loss());
  *metadata.mutable_metrics() = given.metrics();
  *metadata.mutable_labels() = given.labels();
  metadata.set_description(given.description());
  *content.mutable_checkpoint() = std::move(metadata);
  return std::string(
      ComputeDigest(DigestAlgorithm::kXxh3_128, SerializeDeterministic(content)).bytes());
}

absl::Status CheckRequest(const v1::ModifyCheckpointRequest& request) {
  if (request.edits().empty()) return InvalidField("edits", "is required");
  if (request.edits_size() > kMaxEdits) {
    return InvalidField("edits", absl::StrCat("has ", request.edits_size(), ", at most ",
                                              kMaxEdits, " are allowed"));
  }
  size_t bytes = 0;
  for (const v1::Edit& edit : request.edits()) bytes += edit.ByteSizeLong();
  if (bytes > kMaxEditBytes) {
    return InvalidField("edits", absl::StrCat("has ", bytes, " bytes, at most ",
                                              kMaxEditBytes, " are allowed"));
  }
  for (const auto& [section, parameters] : request.optimizer_param_names()) {
    if (parameters.names_size() <= kMaxTensors) continue;
    return InvalidField(absl::StrCat("optimizer_param_names[", section, "].names"),
                        absl::StrCat("has ", parameters.names_size(), ", at most ",
                                     kMaxTensors, " are allowed"));
  }
  if (!v1::ModifyCheckpointRequest::OptimizerPolicy_IsValid(request.optimizer_policy())) {
    return InvalidField("optimizer_policy", "unknown");
  }
  if (auto s = ValidateRequestId("request_id", request.request_id()); !s.ok()) return s;
  return ValidateCheckpoint("checkpoint", request.checkpoint());
}

// Name of the field of the edit's kind, such as `cast`.
std::string KindOf(const v1::Edit& edit) {
  const auto* field = v1::Edit::descriptor()->FindFieldByNumber(edit.kind_case());
  return field == nullptr ? "" : field->name();
}

}  // namespace

absl::StatusOr<std::unique_ptr<OutboundSession>> ModifySession::Open(
    ServiceContext& context, absl::string_view bytes) {
  v1::ModifyCheckpointRequest request;
  if (auto s = ParseRequest(bytes, &request); !s.ok()) return s;
  auto ref = ParseCheckpointRef("name", request.name());
  if (!ref.ok()) return ref.status();
  if (auto s = CheckRequest(request); !s.ok()) return s;
  std::optional<int64_t> expected_latest;
  if (request.has_expected_latest_version()) {
    expected_latest = request.expected_latest_version();
  }
  auto expected = ExpectedLatest(expected_latest, /*expect_no_version=*/false);
  if (!expected.ok()) return expected.status();
  std::string digest = DigestOf(request);
  auto earlier =
      context.store->saves().FindRequested(ref->model_id, request.request_id(), digest);
  if (!earlier.ok()) return earlier.status();
  std::unique_ptr<ModifySession> session(
      new ModifySession(context, std::move(request), std::move(digest)));
  session->expected_latest_ = *expected;
  if (earlier->has_value()) {
    auto model = context.store->models().Get(ref->model_id);
    if (!model.ok()) return model.status();
    session->model_ = *std::move(model);
    session->record_ = **std::move(earlier);
    // The version exists: there is nothing to do but to return it.
    session->state_ = State::kMadeBefore;
    return std::make_unique<OperationStream>(std::move(session));
  }
  auto read = context.store->reads().Open(ref->model_id, ref->version);
  if (!read.ok()) return read.status();
  if (auto s = session->Start(*std::move(read)); !s.ok()) return s;
  return std::make_unique<OperationStream>(std::move(session));
}

ModifySession::ModifySession(ServiceContext& context, v1::ModifyCheckpointRequest request,
                             std::string request_digest)
    : OperationSession(context),
      request_(std::move(request)),
      request_digest_(std::move(request_digest)),
      edits_(request_.edits().begin(), request_.edits().end()) {}

absl::Status ModifySession::Start(std::shared_ptr<storage::Read> read) {
  model_ = read->model();
  const int64_t latest = model_.latest_version();
  if (expected_latest_.has_value() && *expected_latest_ != latest) {
    return LatestVersionDiffers(ModelName(model_.model_id()), *expected_latest_, latest);
  }
  sources_ = std::make_unique<Sources>(&context_, read);
  // Covers the table while it is made; then `resources_` reserves its exact size.
  Reservation reservation(context_.memory);
  auto s = reservation.Grow(read->manifest().tensors_size() *
                            static_cast<int64_t>(sizeof(WorkingTensor)));
  if (!s.ok()) return s;
  auto checkpoint = WorkingCheckpoint::Of(std::move(read));
  if (!checkpoint.ok()) return checkpoint.status();
  checkpoint_ = std::make_unique<WorkingCheckpoint>(*std::move(checkpoint));
  resources_ = std::make_unique<EditResources>(context_.memory, *checkpoint_, request_,
                                               [this] { return CheckCancelled(); });
  if (s = resources_->ReserveGrowth(); !s.ok()) return s;
  if (checkpoint_->architecture().has_value()) {
    architecture_before_ = PrintModule(checkpoint_->architecture()->root());
  }
  return absl::OkStatus();
}

absl::StatusOr<OperationSession::Then> ModifySession::Step() {
  if (state_ == State::kMadeBefore) return Done();
  if (std::exchange(state_, State::kCompute) == State::kEdit) {
    return Aside([this] { return ApplyEdits(); });
  }
  auto computed = Compute(SteadyNow() + kStep);
  if (!computed.ok()) return computed.status();
  if (!*computed) return Again();
  return Done([this] { return Commit(); });
}

absl::Status ModifySession::ApplyEdits() {
  for (int i = 0; i < request_.edits_size(); ++i) {
    if (auto s = CheckCancelled(); !s.ok()) return s;
    next_edit_ = i;
    const v1::Edit& edit = request_.edits(i);
    EditContext context{*checkpoint_, report_,      *sources_, *resources_, i,
                        KindOf(edit), edit.untie(), edits_[i]};
    if (auto s = ApplyEdit(edit, context); !s.ok()) return s;
    if (auto s = context.At("", resources_->ReserveGrowth()); !s.ok()) return s;
  }
  return BeginCompute();
}

absl::Status ModifySession::BeginCompute() {
  auto optimizers = resources_->Optimizers();
  if (!optimizers.ok()) return optimizers.status();
  auto s = FollowOptimizers(request_.optimizer_policy(), *optimizers, *checkpoint_,
                            *resources_, report_);
  if (!s.ok()) return s;
  if (checkpoint_->tensors().size() > static_cast<size_t>(kMaxTensors)) {
    return InvalidField("edits", absl::StrCat("leave ", checkpoint_->tensors().size(),
                                              " tensors, of at most ", kMaxTensors));
  }
  if (s = ReserveParts(); !s.ok()) return s;
  out_ = std::make_unique<WriteOut>(checkpoint_.get());
  if (s = out_->CheckPlan(); !s.ok()) return s;
  // The digests are held twice: in the plan and in the manifest.
  s = resources_->Reserve(2 * out_->digest_bytes() + ThreadBytes());
  if (!s.ok()) return s;
  if (!request_.validate_only()) {
    auto save = context_.store->saves().StartDerived(MakeSave(), out_->sources());
    if (!save.ok()) return save.status();
    save_ = *std::move(save);
  }
  out_->Begin(save_.get());
  planned_ = true;
  return absl::OkStatus();
}

// Limits and reserves the memory of the ranges of rows that tensors are composed of, in
// the plan and in the manifest.
absl::Status ModifySession::ReserveParts() {
  int64_t parts = 0;
  for (const WorkingTensor& tensor : checkpoint_->tensors()) {
    parts += static_cast<int64_t>(tensor.source->parts().size());
  }
  if (parts > kMaxParts) {
    return InvalidField(
        "edits", absl::StrCat("put tensors together of ", parts,
                              " ranges of rows, of at most ", kMaxParts,
                              ": keep rows that follow each other, or give some edits to "
                              "another call"));
  }
  return resources_->Reserve(parts * kPlannedPartBytes);
}

// As many threads as cores, within kMaxThreadBytes, but at least one.
int64_t ModifySession::ThreadBytes() {
  const int64_t own = out_->working_bytes();
  const int cores = static_cast<int>(std::thread::hardware_concurrency());
  max_threads_ = 1;
  while (own > 0 && max_threads_ < cores && (max_threads_ + 1) * own <= kMaxThreadBytes) {
    ++max_threads_;
  }
  return max_threads_ * own;
}

absl::StatusOr<bool> ModifySession::Compute(absl::Time until) {
  // All threads end at `until`. One that starts later returns at once.
  context_.ForEach(max_threads_, [&](int) { out_->Work(until); });
  if (auto s = out_->status(); !s.ok()) return s;
  return out_->done();
}

storage::SaveRequest ModifySession::MakeSave() const {
  const records::CheckpointMetadata& old = checkpoint_->base()->checkpoint().metadata();
  v1::Checkpoint given = request_.checkpoint();
  given.clear_architecture();
  storage::SaveRequest save;
  save.model_id = model_.model_id();
  save.metadata = MetadataToRecord(given);
  records::CheckpointMetadata& metadata = save.metadata;
  // What the request leaves out is inherited from the base.
  if (!metadata.has_epoch() && old.has_epoch()) metadata.set_epoch(old.epoch());
  if (!metadata.has_step() && old.has_step()) metadata.set_step(old.step());
  if (!metadata.has_loss() && old.has_loss()) metadata.set_loss(old.loss());
  if (metadata.metrics().empty()) *metadata.mutable_metrics() = old.metrics();
  if (checkpoint_->architecture().has_value()) {
    v1::Architecture architecture = *checkpoint_->architecture();
    MarkIncomplete(*architecture.mutable_root());
    metadata.set_architecture(EncodeArchitecture(architecture));
  }
  for (const v1::Edit& edit : edits_) metadata.add_edits(EncodeEdit(edit));
  metadata.set_origin(v1::ORIGIN_MODIFIED);
  save.request_id = request_.request_id();
  save.request_digest = request_digest_;
  return save;
}

absl::Status ModifySession::Commit() {
  if (save_ != nullptr) {
    auto committed = save_->Commit(out_->Manifest(), expected_latest_);
    if (!committed.ok()) return committed.status();
    record_ = *std::move(committed);
  } else {
    *record_.mutable_metadata() = MakeSave().metadata;
    record_.set_base_model_id(model_.model_id());
    record_.set_base_model_uid(model_.uid());
    record_.set_base_version(checkpoint_->base()->checkpoint().version());
    record_.set_tensor_count(static_cast<int64_t>(checkpoint_->tensors().size()));
  }
  SendReport();
  return absl::OkStatus();
}

void ModifySession::SendReport() {
  WarnAboutInconsistencies(*checkpoint_, report_);
  v1::ModifyCheckpointResponse response;
  size_t bytes = 0;
  auto flush = [&] {
    if (bytes > 0) Send(response);
    response.Clear();
    bytes = 0;
  };
  auto add = [&](const auto& entry, auto list) {
    const size_t size = entry.ByteSizeLong() + 8;
    if (bytes + size > kReportPartBytes) flush();
    bytes += size;
    *list() = entry;
  };
  for (const Warning& warning : report_.warnings()) {
    add(warning, [&] { return response.mutable_report()->add_warnings(); });
  }
  for (const ParameterFate& fate : report_.Fates(*checkpoint_)) {
    add(fate, [&] { return response.mutable_report()->add_parameters(); });
  }
  flush();
}

v1::ModifyCheckpointResponse::Result ModifySession::MakeResult() const {
  v1::ModifyCheckpointResponse::Result result;
  v1::Checkpoint& checkpoint = *result.mutable_checkpoint();
  checkpoint = CheckpointFromRecord(model_, record_);
  // A validation: the checkpoint has no name yet.
  if (record_.version() == 0) {
    checkpoint.clear_name();
    checkpoint.clear_create_time();
    checkpoint.clear_etag();
  }
  // Cannot fail: the record was made by this server, now or in an earlier call.
  AddFullMetadata(record_.metadata(), checkpoint.name(), &checkpoint).IgnoreError();
  if (out_ != nullptr) result.set_new_tensor_bytes(out_->new_bytes());
  if (checkpoint.has_architecture()) {
    result.set_architecture_after(PrintModule(checkpoint.architecture().root()));
  }
  result.set_architecture_before(architecture_before_);
  result.set_stored_bytes(record_.stored_bytes());
  FitResult(result);
  return result;
}

std::string ModifySession::Progress() const {
  v1::ModifyCheckpointResponse response;
  auto* progress = response.mutable_progress();
  progress->set_edit_index(next_edit_);
  if (planned_) {
    progress->set_done_bytes(out_->done_bytes());
    progress->set_total_bytes(out_->total_bytes());
  }
  return response.SerializeAsString();
}

std::string ModifySession::Result() {
  v1::ModifyCheckpointResponse response;
  *response.mutable_result() = MakeResult();
  return response.SerializeAsString();
}

}  // namespace modelstore::server::modify
