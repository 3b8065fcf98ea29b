// Steps of a save, without failures:
//
//   plan = cut the content into chunks
//   copy what the caller may change; Staged() returns
//   if everything is staged and the save is not small:
//     the rest runs at lower priority and over fewer streams
//   if the save is small:         digest; SaveCheckpoint(everything); done
//   if the model has a base:      digest everything
//     missing = FindMissingChunks(base)
//     if missing is small:        SaveCheckpoint(missing, with that base); done
//   upload = CreateUpload
//   UploadChunks(missing chunks, manifest)        over several streams
//   worker 0: CommitUpload        other workers: wait for the commit
// Unstaged bytes on a device are copied to the host twice: to be digested and to be sent.
// Every step is repeated after transient failures; a repeated upload sends what
// FindMissingChunks still reports. The request_id makes the commit idempotent.
#include "client/internal/save.h"

#include <algorithm>
#include <optional>
#include <utility>

#include "absl/strings/str_cat.h"
#include "client/internal/check_strings.h"
#include "client/internal/chunk_sender.h"
#include "client/internal/convert.h"
#include "client/internal/request_id.h"
#include "client/internal/rpc.h"
#include "client/internal/same_content.h"
#include "client/internal/save_outcome.h"
#include "client/internal/save_plan.h"
#include "client/internal/threads.h"
#include "google/protobuf/empty.pb.h"
#include "modelstore/v1/checkpoint_transfer.pb.h"
#include "modelstore/v1/model_store.pb.h"
#include "proto/contract/chunk_wire.h"
#include "proto/contract/errors.h"
#include "proto/contract/limits.h"
#include "proto/contract/message_codec.h"
#include "proto/contract/names.h"

namespace modelstore::internal {
namespace {

class Save {
 public:
  Save(Connection* connection, StagingPool* pool, SaveJob* job)
      : connection_(*connection),
        pool_(pool),
        job_(*job),
        options_(job->options),
        state_(job->state.get()),
        given_request_id_(!options_.request_id.empty()),
        streams_(std::max(1, connection->options().streams)) {
    if (!given_request_id_) options_.request_id = NewRequestId("save");
    outcome_.request_id = options_.request_id;
    outcome_.request_id_is_the_callers = given_request_id_;
  }

  absl::StatusOr<CheckpointInfo> Run();
  absl::Status Explain(const absl::Status& failure) const {
    return outcome_.Explain(failure, state_->cancellation.cancelled());
  }
  // Called after Run(). Releases the caller's memory, and deletes the upload of a failed
  // save unless a later save can resume it.
  void CleanUp(bool succeeded);

 private:
  bool Distributed() const { return options_.contribution_count > 1; }
  absl::Status CheckOptions() const;
  absl::Status Stage();
  Sleeper MakeSleeper();
  Deadline StepDeadline() const {
    return std::min(job_.deadline, After(connection_.options().stall_timeout));
  }
  template <typename Response>
  absl::StatusOr<Response> Call(std::string_view method,
                                const google::protobuf::Message& request) {
    return CallRpc<Response>(connection_, kTransfer, method, request,
                             Idempotency::kIdempotent, job_.deadline, MakeSleeper());
  }

  // Name of the base version; empty if there is none.
  absl::StatusOr<std::string> FindBase();
  // Indexes of the digested chunks that `name`, a version or an upload, lacks. Sets
  // `*base` to the version that `name` resolved to, if it is not null.
  absl::StatusOr<std::vector<uint32_t>> FindMissing(const std::string& name,
                                                    std::string* base);

  absl::StatusOr<v1::Checkpoint> SaveInOneStream(const std::string& base,
                                                 const std::vector<uint32_t>& chunks);
  absl::StatusOr<v1::Checkpoint> TryOneStream(const std::string& base,
                                              const std::vector<uint32_t>& chunks);
  absl::Status SendOneStream(Stream& stream, const std::string& base,
                             const std::vector<uint32_t>& chunks);
  absl::Status Send(Stream& stream, const v1::SaveCheckpointRequest& request,
                    std::vector<Payload> payloads, int64_t payload_bytes);

  absl::Status DigestAll() { return plan_->DigestAll(streams_, job_.deadline); }
  absl::StatusOr<v1::Checkpoint> SaveByUpload();
  // Saves in one stream if `base` lacks only few bytes. Absent if it did not save.
  absl::StatusOr<std::optional<v1::Checkpoint>> SaveDifference(const std::string& base);
  absl::StatusOr<v1::Upload> CreateUpload();
  absl::Status Deliver(const v1::Upload& upload);
  absl::StatusOr<std::vector<uint32_t>> Outstanding(const std::string& upload);
  absl::StatusOr<v1::Checkpoint> Commit(const v1::Upload& upload);
  // Another process may use the caller's request_id with another manifest before either
  // commits. The committed version is then not what this save has sent: INVALID_ARGUMENT.
  absl::StatusOr<v1::Checkpoint> CheckCommitted(v1::Checkpoint committed);
  absl::Status WaitForContributions(const std::string& upload);
  absl::StatusOr<v1::Checkpoint> WaitForCommit(const std::string& upload);
  // Returns the version that an earlier save with this request_id made, if its content is
  // equal.
  absl::StatusOr<v1::Checkpoint> EarlierSave(int64_t version);
  // INVALID_ARGUMENT if `version`, which has this request_id, has other content.
  absl::Status CheckSameContent(int64_t version);
  // Reads a version that is known to contain this save.
  absl::StatusOr<v1::Checkpoint> GetCommitted(int64_t version);

  Connection& connection_;
  StagingPool* const pool_;
  SaveJob& job_;
  SaveOptions options_;
  SaveHandle::State* const state_;
  const bool given_request_id_;
  int streams_;
  std::unique_ptr<SavePlan> plan_;
  bool all_staged_ = false;
  std::string open_upload_;
  SaveOutcome outcome_;
};

absl::Status Save::CheckOptions() const {
  const SaveContent& content = job_.content;
  if (content.tensors.empty() && content.sections.empty() &&
      content.attachments.empty() && content.architecture.empty() && !Distributed() &&
      !options_.allow_empty) {
    return absl::InvalidArgumentError(
        "there is nothing to save: no tensor, section, attachment or architecture; set "
        "allow_empty to save an empty version");
  }
  if (options_.contribution_count < 1 ||
      options_.contribution_count > kMaxContributions) {
    return InvalidField("contribution_count",
                        absl::StrCat("must be 1 to ", kMaxContributions));
  }
  if (options_.contribution < 0 || options_.contribution >= options_.contribution_count) {
    return InvalidField("contribution", "must be less than contribution_count");
  }
  if (Distributed() && !given_request_id_) {
    return InvalidField("request_id",
                        "is required, and must be the same for every worker of the save");
  }
  if (options_.expect_no_version && options_.expected_latest_version.has_value()) {
    return InvalidField("expected_latest_version", "not with expect_no_version");
  }
  absl::Status s = CheckString("base_checkpoint", options_.base_checkpoint);
  return s.ok() ? ValidateRequestId("request_id", options_.request_id) : s;
}

Sleeper Save::MakeSleeper() {
  return [this](std::chrono::milliseconds time) {
    state_->reconnects += 1;
    return state_->cancellation.Sleep(time);
  };
}

absl::StatusOr<CheckpointInfo> Save::Run() {
  if (std::chrono::steady_clock::now() >= job_.deadline) {
    return absl::DeadlineExceededError("the deadline passed before the save started");
  }
  if (absl::Status s = CheckOptions(); !s.ok()) return s;
  absl::StatusOr<std::unique_ptr<SavePlan>> plan =
      SavePlan::Make(std::move(job_.content), /*whole=*/!Distributed());
  if (!plan.ok()) return plan.status();
  plan_ = *std::move(plan);
  state_->total_bytes = plan_->total_bytes();
  if (absl::Status s = Stage(); !s.ok()) return s;
  absl::StatusOr<v1::Checkpoint> saved = absl::UnknownError("");
  if (plan_->total_bytes() < kSmallSaveBytes && !Distributed()) {
    if (absl::Status s = plan_->DigestAll(1, job_.deadline); !s.ok()) return s;
    std::vector<uint32_t> all(plan_->chunk_count());
    for (size_t i = 0; i < all.size(); ++i) all[i] = static_cast<uint32_t>(i);
    saved = SaveInOneStream(options_.base_checkpoint, all);
  } else if (all_staged_ && plan_->may_change()) {
    // Staged() has returned, so the caller computes now. Fewer threads of the save
    // compete with it for cores.
    streams_ = LimitToHalfTheCores(streams_);
    RunAtLowerPriority([&] { saved = SaveByUpload(); });
  } else {
    saved = SaveByUpload();
  }
  if (!saved.ok()) return saved.status();
  state_->done_bytes = plan_->total_bytes();
  return ToCheckpointInfo(*saved);
}

absl::Status Save::Stage() {
  const int64_t limit = options_.max_staging_bytes.value_or(plan_->total_bytes());
  const int threads = std::max(2, streams_);
  absl::StatusOr<bool> all =
      plan_->Stage(pool_->shared_from_this(), limit, threads, job_.deadline);
  if (!all.ok()) return all.status();
  all_staged_ = *all;
  if (all_staged_) state_->SetStaged(absl::OkStatus());
  return absl::OkStatus();
}

void Save::CleanUp(bool succeeded) {
  if (plan_ != nullptr) plan_->Release(After(connection_.options().stall_timeout));
  if (succeeded || open_upload_.empty() || given_request_id_) return;
  // The request_id was generated here, so no later save can resume the upload. If the
  // deletion fails, the upload expires.
  v1::DeleteUploadRequest request;
  request.set_name(open_upload_);
  (void)CallOnce<google::protobuf::Empty>(
      connection_, absl::StrCat(std::string(kTransfer), "DeleteUpload"),
      request.SerializeAsString(), After(std::chrono::seconds(2)));
}

absl::StatusOr<std::string> Save::FindBase() {
  if (options_.no_base) return std::string();
  if (!options_.base_checkpoint.empty()) return options_.base_checkpoint;
  v1::GetModelRequest request;
  request.set_name(ModelName(job_.model_id));
  absl::StatusOr<v1::Model> model =
      CallRpc<v1::Model>(connection_, kModelStore, "GetModel", request,
                         Idempotency::kIdempotent, job_.deadline, MakeSleeper());
  if (absl::IsNotFound(model.status())) return std::string();
  if (!model.ok()) return model.status();
  return model->latest_version() > 0
             ? CheckpointNameOf(job_.model_id, model->latest_version())
             : std::string();
}

absl::StatusOr<std::vector<uint32_t>> Save::FindMissing(const std::string& name,
                                                        std::string* base) {
  std::vector<uint32_t> missing;
  std::vector<uint32_t> asked;
  v1::FindMissingChunksRequest request;
  request.set_name(name);
  const auto ask = [&]() -> absl::Status {
    auto answer = Call<v1::FindMissingChunksResponse>("FindMissingChunks", request);
    if (!answer.ok()) return answer.status();
    if (base != nullptr) *base = answer->base_checkpoint();
    for (const uint32_t i : answer->missing()) {
      if (i < asked.size()) missing.push_back(asked[i]);
    }
    asked.clear();
    request.clear_digests();
    return absl::OkStatus();
  };
  for (size_t i = 0; i < plan_->chunk_count(); ++i) {
    if (!plan_->chunk(i).digested) continue;
    const absl::string_view digest = plan_->chunk(i).digest.bytes();
    request.mutable_digests()->append(digest.data(), digest.size());
    asked.push_back(static_cast<uint32_t>(i));
    if (asked.size() < static_cast<size_t>(kMaxDigestsPerCall)) continue;
    if (absl::Status s = ask(); !s.ok()) return s;
  }
  if (!asked.empty() || base != nullptr) {
    if (absl::Status s = ask(); !s.ok()) return s;
  }
  return missing;
}

// --- Small saves -----------------------------------------------------------

absl::StatusOr<v1::Checkpoint> Save::SaveInOneStream(
    const std::string& base, const std::vector<uint32_t>& chunks) {
  return Retry(RetryPolicy::Of(connection_.options()), Idempotency::kIdempotent,
               job_.deadline, MakeSleeper(), [&](Deadline) {
                 const SaveOutcome before = outcome_;
                 auto saved = TryOneStream(base, chunks);
                 // A refused attempt had no effect, but an earlier one may have.
                 const absl::Status& s = saved.status();
                 const bool refused = !s.ok() && !IsTransient(s) && !absl::IsCancelled(s);
                 if (refused || IsOverloaded(s)) outcome_ = before;
                 return saved;
               });
}

absl::StatusOr<v1::Checkpoint> Save::TryOneStream(const std::string& base,
                                                  const std::vector<uint32_t>& chunks) {
  if (state_->cancellation.cancelled())
    return absl::CancelledError("the save was cancelled");
  absl::StatusOr<std::unique_ptr<Stream>> stream = connection_.Open(
      absl::StrCat(std::string(kTransfer), "SaveCheckpoint"), 0, StepDeadline());
  if (!stream.ok()) return stream.status();
  TrackedStream tracked(state_->cancellation, **stream);
  absl::Status s = SendOneStream(**stream, base, chunks);
  if (!s.ok()) return StreamError(**stream, s, StepDeadline());
  absl::StatusOr<std::string> bytes = CloseAndReceive(**stream, StepDeadline());
  if (!bytes.ok()) return bytes.status();
  v1::Checkpoint checkpoint;
  if (!ParseMessage(*bytes, &checkpoint)) {
    return absl::InternalError("SaveCheckpoint: the answer is malformed");
  }
  return checkpoint;
}

absl::Status Save::SendOneStream(Stream& stream, const std::string& base,
                                 const std::vector<uint32_t>& chunks) {
  v1::SaveCheckpointRequest request;
  request.set_parent(ModelName(job_.model_id));
  *request.mutable_checkpoint() = plan_->metadata();
  request.mutable_checkpoint()->set_base_checkpoint(base);
  request.set_no_base(options_.no_base);
  request.set_request_id(options_.request_id);
  request.set_create_model(options_.create_model);
  request.set_allow_empty(options_.allow_empty);
  SetExpectedLatest(options_, &request);
  // The header is sent with the first part of the manifest.
  for (v1::ManifestPart& part : plan_->ManifestParts()) {
    *request.mutable_manifest() = std::move(part);
    if (absl::Status s = Send(stream, request, {}, 0); !s.ok()) return s;
    request.Clear();
  }
  ChunkQueue queue(plan_.get(), chunks);
  int64_t duplicates = 0;
  while (true) {
    const absl::StatusOr<std::vector<uint32_t>> batch =
        queue.Take(kMessageBytes, StepDeadline(), &duplicates);
    if (!batch.ok()) return batch.status();
    if (batch->empty()) break;
    request.Clear();
    for (const uint32_t i : *batch) {
      v1::ChunkHeader* header = request.add_chunks();
      const absl::string_view digest = plan_->chunk(i).digest.bytes();
      header->set_digest(digest.data(), digest.size());
      header->set_size_bytes(plan_->chunk(i).size);
    }
    int64_t bytes = 0;
    std::vector<Payload> payloads = PayloadsOf(plan_.get(), *batch, &bytes);
    absl::Status s = Send(stream, request, std::move(payloads), bytes);
    if (!s.ok()) return s;
  }
  request.Clear();
  request.set_finish(true);
  outcome_.commit = SaveOutcome::Commit::kSent;
  return Send(stream, request, {}, 0);
}

absl::Status Save::Send(Stream& stream, const v1::SaveCheckpointRequest& request,
                        std::vector<Payload> payloads, int64_t payload_bytes) {
  std::string head = ChunkMessageHead(request, static_cast<size_t>(payload_bytes));
  const int64_t bytes = static_cast<int64_t>(head.size()) + payload_bytes;
  absl::Status s = stream.Write(std::move(head), std::move(payloads), StepDeadline());
  if (s.ok()) state_->transferred_bytes += bytes;
  return s;
}

// --- Uploads ---------------------------------------------------------------

absl::StatusOr<v1::Checkpoint> Save::SaveByUpload() {
  absl::StatusOr<std::string> base = FindBase();
  if (!base.ok()) return base.status();
  if (!base->empty()) {
    if (absl::Status s = DigestAll(); !s.ok()) return s;
    // With the caller's request_id the save may be repeated when the latest version, and
    // thus the base, is another. Both attempts must use the same method, or the server
    // would see two different requests.
    if (!given_request_id_) {
      absl::StatusOr<std::optional<v1::Checkpoint>> saved = SaveDifference(*base);
      if (!saved.ok()) return saved.status();
      if (saved->has_value()) return **std::move(saved);
    }
  }
  // If a commit lacks chunks that the server had acknowledged (it may have lost power),
  // they are sent again. At most three attempts.
  for (int attempt = 1;; ++attempt) {
    absl::StatusOr<v1::Upload> upload = CreateUpload();
    if (!upload.ok()) return upload.status();
    if (upload->committed_version() > 0) return EarlierSave(upload->committed_version());
    open_upload_ = upload->name();
    outcome_.uploaded = true;
    absl::Status delivered = Deliver(*upload);
    // The upload has expired, or another save with this request_id commits it.
    const bool gone =
        absl::IsNotFound(delivered) || absl::IsFailedPrecondition(delivered);
    if (gone && attempt < 3) continue;
    if (!delivered.ok()) return delivered;
    state_->SetStaged(absl::OkStatus());
    if (options_.contribution != 0) {
      outcome_.commit = SaveOutcome::Commit::kDelegatedToWorker0;
    }
    absl::StatusOr<v1::Checkpoint> saved = Commit(*upload);
    if (saved.ok()) return CheckCommitted(*std::move(saved));
    if (Distributed() || attempt == 3) return saved;
    if (absl::IsNotFound(saved.status())) continue;
    if (!absl::IsFailedPrecondition(saved.status())) return saved;
    absl::StatusOr<std::vector<uint32_t>> missing = Outstanding(upload->name());
    if (!missing.ok() || missing->empty()) return saved;
  }
}

absl::StatusOr<std::optional<v1::Checkpoint>> Save::SaveDifference(
    const std::string& base) {
  std::string canonical;
  absl::StatusOr<std::vector<uint32_t>> missing = FindMissing(base, &canonical);
  // NOT_FOUND: the base was deleted meanwhile (here, or after this call). Everything must
  // be sent then.
  if (absl::IsNotFound(missing.status())) return std::optional<v1::Checkpoint>();
  if (!missing.ok()) return missing.status();
  int64_t bytes = 0;
  for (const uint32_t i : *missing) bytes += plan_->chunk(i).size;
  if (bytes >= kSmallSaveBytes) return std::optional<v1::Checkpoint>();
  state_->done_bytes = plan_->total_bytes() - bytes;
  absl::StatusOr<v1::Checkpoint> saved = SaveInOneStream(canonical, *missing);
  // Unless an earlier attempt may have made the version.
  if (outcome_.commit == SaveOutcome::Commit::kNone &&
      (absl::IsNotFound(saved.status()) || absl::IsFailedPrecondition(saved.status()))) {
    return std::optional<v1::Checkpoint>();
  }
  if (!saved.ok()) return saved.status();
  return std::optional<v1::Checkpoint>(*std::move(saved));
}

absl::StatusOr<v1::Upload> Save::CreateUpload() {
  v1::CreateUploadRequest request;
  request.set_parent(ModelName(job_.model_id));
  *request.mutable_upload()->mutable_checkpoint() = plan_->metadata();
  // As the caller gave it, not resolved, so that all workers and repetitions send equal
  // requests.
  request.mutable_upload()->mutable_checkpoint()->set_base_checkpoint(
      options_.base_checkpoint);
  request.set_no_base(options_.no_base);
  if (given_request_id_) {
    request.mutable_upload()->mutable_checkpoint()->mutable_producer()->clear_host();
  }
  request.mutable_upload()->set_contribution_count(options_.contribution_count);
  request.set_request_id(options_.request_id);
  request.set_create_model(options_.create_model);
  return Call<v1::Upload>("CreateUpload", request);
}

absl::StatusOr<std::vector<uint32_t>> Save::Outstanding(const std::string& upload) {
  absl::StatusOr<std::vector<uint32_t>> missing = FindMissing(upload, nullptr);
  if (!missing.ok()) return missing;
  int64_t bytes = 0;
  for (size_t i = 0; i < plan_->chunk_count(); ++i) {
    if (!plan_->chunk(i).digested) missing->push_back(static_cast<uint32_t>(i));
  }
  for (const uint32_t i : *missing) bytes += plan_->chunk(i).size;
  std::sort(missing->begin(), missing->end());
  state_->done_bytes = plan_->total_bytes() - bytes;
  return missing;
}

absl::Status Save::Deliver(const v1::Upload& upload) {
  const UploadRound::Target target{upload.name(), options_.contribution};
  UploadRound round(&connection_, plan_.get(), state_, target, job_.deadline);
  RetryState retry(RetryPolicy::Of(connection_.options()), job_.deadline, MakeSleeper());
  std::string name = upload.name();
  size_t least = plan_->chunk_count() + 1;
  while (true) {
    absl::StatusOr<std::vector<uint32_t>> todo = Outstanding(name);
    absl::Status s = todo.status();
    if (s.ok()) {
      if (todo->size() < least) {
        least = todo->size();
        retry.OnProgress();
      }
      s = round.Run(*std::move(todo), streams_);
      if (s.ok()) return s;
    }
    if (absl::Status final = retry.OnFailure(s); !final.ok()) return final;
  }
}

absl::StatusOr<v1::Checkpoint> Save::Commit(const v1::Upload& upload) {
  if (options_.contribution != 0) return WaitForCommit(upload.name());
  if (Distributed()) {
    if (absl::Status s = WaitForContributions(upload.name()); !s.ok()) return s;
  }
  if (state_->cancellation.cancelled())
    return absl::CancelledError("the save was cancelled");
  v1::CommitUploadRequest request;
  request.set_name(upload.name());
  request.set_allow_empty(options_.allow_empty);
  SetExpectedLatest(options_, &request);
  outcome_.commit = SaveOutcome::Commit::kSent;
  absl::StatusOr<v1::Checkpoint> committed =
      Call<v1::Checkpoint>("CommitUpload", request);
  const bool refused = !committed.ok() && !IsTransient(committed.status()) &&
                       !absl::IsCancelled(committed.status());
  if (refused) outcome_.commit = SaveOutcome::Commit::kNone;
  return committed;
}

absl::StatusOr<v1::Checkpoint> Save::CheckCommitted(v1::Checkpoint committed) {
  // Not for distributed saves: every worker would read the whole manifest.
  if (!given_request_id_ || Distributed()) return committed;
  absl::Status same = CheckSameContent(committed.version());
  if (absl::IsInvalidArgument(same)) return same;
  return committed;
}

absl::Status Save::WaitForContributions(const std::string& upload) {
  v1::GetUploadRequest request;
  request.set_name(upload);
  Backoff pause;
  while (true) {
    absl::StatusOr<v1::Upload> state = Call<v1::Upload>("GetUpload", request);
    if (!state.ok()) return state.status();
    int complete = 0;
    for (const v1::Contribution& c : state->contributions()) complete += c.complete();
    if (complete == options_.contribution_count || state->committed_version() > 0) {
      return absl::OkStatus();
    }
    const std::chrono::milliseconds wait = pause.Next(absl::OkStatus());
    if (After(wait) >= job_.deadline) {
      return absl::DeadlineExceededError(
          absl::StrCat("only ", complete, " of ", options_.contribution_count,
                       " contributions of ", upload, " are complete"));
    }
    if (!state_->cancellation.Sleep(wait)) {
      return absl::CancelledError("the save was cancelled");
    }
  }
}

absl::StatusOr<v1::Checkpoint> Save::WaitForCommit(const std::string& upload) {
  v1::GetUploadRequest request;
  request.set_name(upload);
  Backoff pause;
  while (true) {
    absl::StatusOr<v1::Upload> state = Call<v1::Upload>("GetUpload", request);
    // The server may forget a committed upload, but not its request_id.
    if (absl::IsNotFound(state.status())) {
      state = CreateUpload();
      if (state.ok() && state->committed_version() == 0) {
        return absl::AbortedError(absl::StrCat(upload, " was deleted before its commit"));
      }
      // The upload may also have expired while another with this request_id was
      // committed, so the content is compared.
      if (state.ok()) return EarlierSave(state->committed_version());
    }
    if (!state.ok()) return state.status();
    if (state->committed_version() > 0) return GetCommitted(state->committed_version());
    const std::chrono::milliseconds wait = pause.Next(absl::OkStatus());
    if (After(wait) >= job_.deadline) {
      return absl::DeadlineExceededError(
          absl::StrCat(upload, " is delivered, but worker 0 has not committed it"));
    }
    if (!state_->cancellation.Sleep(wait)) {
      return absl::CancelledError("the save was cancelled");
    }
  }
}

absl::StatusOr<v1::Checkpoint> Save::EarlierSave(int64_t version) {
  outcome_.commit = SaveOutcome::Commit::kFound;
  outcome_.version = version;
  if (absl::Status s = CheckSameContent(version); !s.ok()) return s;
  return GetCommitted(version);
}

// The server compares the metadata itself when the upload is created.
absl::Status Save::CheckSameContent(int64_t version) {
  if (absl::Status s = DigestAll(); !s.ok()) return s;
  const absl::StatusOr<std::string> difference = DifferenceFrom(
      connection_, CheckpointNameOf(job_.model_id, version), plan_->ManifestParts(),
      /*whole=*/!Distributed(), job_.deadline, MakeSleeper());
  if (!difference.ok()) return difference.status();
  if (difference->empty()) return absl::OkStatus();
  return InvalidField("request_id",
                      absl::StrCat("\"", options_.request_id,
                                   "\" was used with other content for version ", version,
                                   ": ", *difference, "; give another request_id"));
}

absl::StatusOr<v1::Checkpoint> Save::GetCommitted(int64_t version) {
  outcome_.commit = SaveOutcome::Commit::kMade;
  outcome_.version = version;
  v1::GetCheckpointRequest request;
  request.set_name(CheckpointNameOf(job_.model_id, version));
  return CallRpc<v1::Checkpoint>(connection_, kModelStore, "GetCheckpoint", request,
                                 Idempotency::kIdempotent, job_.deadline, MakeSleeper());
}

}  // namespace

void RunSave(std::shared_ptr<Connection> connection, std::shared_ptr<StagingPool> pool,
             SaveJob job) {
  const std::shared_ptr<SaveHandle::State> state = job.state;
  const std::string context = absl::StrCat("saving ", ModelName(job.model_id));
  Save save(connection.get(), pool.get(), &job);
  absl::StatusOr<CheckpointInfo> result = save.Run();
  if (!result.ok()) result = save.Explain(result.status());
  save.CleanUp(result.ok());
  job.content = {};
  if (result.ok()) {
    state->SetResult(std::move(result));
  } else {
    state->SetResult(Annotate(result.status(), context));
  }
}

}  // namespace modelstore::internal
