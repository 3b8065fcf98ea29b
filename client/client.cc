#include "modelstore/client.h"

#include <unistd.h>

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "client/internal/background.h"
#include "client/internal/convert.h"
#include "client/internal/grpc_connection.h"
#include "client/internal/load.h"
#include "client/internal/rpc.h"
#include "client/internal/save_queue.h"
#include "modelstore/v1/model_store.pb.h"
#include "proto/contract/digest.h"
#include "proto/contract/errors.h"
#include "proto/contract/names.h"

namespace modelstore {

using internal::CallDeadline;
using internal::CallStore;
using internal::Idempotency;

namespace {

// Page size of lists: the server's maximum.
constexpr int kPage = 1000;

absl::string_view View(std::string_view s) { return {s.data(), s.size()}; }

}  // namespace

// State that all copies of a Client share.
struct Client::Shared {
  explicit Shared(std::shared_ptr<Connection> c)
      : connection(std::move(c)),
        saves(std::make_shared<internal::SaveQueue>(connection)) {}

  // A child process after fork() has none of gRPC's threads and must not touch its locks,
  // so nothing is destroyed there. `connection` needs no special treatment: the queue of
  // saves, which is kept, also refers to it.
  ~Shared() {
    if (getpid() == pid) return;
    internal::KeepForever(std::move(saves));
  }

  absl::Status CheckProcess() const {
    if (getpid() == pid) return absl::OkStatus();
    return absl::FailedPreconditionError(
        "this client belongs to the parent process: fork() before connecting");
  }

  std::shared_ptr<Connection> connection;
  std::shared_ptr<internal::SaveQueue> saves;
  const pid_t pid = getpid();  // the process that created the client
};

absl::StatusOr<Client> Client::Connect(std::string_view target,
                                       const ConnectOptions& options) {
  if (options.streams < 1 || options.streams > 64) {
    return InvalidField("streams", "must be 1 to 64");
  }
  const Deadline deadline = options.deadline.value_or(After(std::chrono::seconds(10)));
  absl::StatusOr<std::shared_ptr<Connection>> connection =
      internal::MakeGrpcConnection(target, options);
  if (!connection.ok()) return connection.status();
  Client client(*std::move(connection));
  const auto info = CallStore<v1::ServerInfo>(client, "GetServerInfo",
                                              v1::GetServerInfoRequest(), deadline);
  if (!info.ok()) {
    return Annotate(info.status(), absl::StrCat("connecting to ", View(target)));
  }
  return client;
}

absl::StatusOr<std::shared_ptr<Connection>> Client::connection() const {
  if (absl::Status s = shared_->CheckProcess(); !s.ok()) return s;
  return shared_->connection;
}

Client::Client(std::shared_ptr<Connection> connection)
    : shared_(std::make_shared<Shared>(std::move(connection))) {}

absl::StatusOr<ModelInfo> Client::CreateModel(std::string_view model_id,
                                              const CreateModelOptions& options) const {
  v1::CreateModelRequest request;
  request.set_model_id(std::string(model_id));
  request.mutable_model()->set_description(options.description);
  request.mutable_model()->mutable_labels()->insert(options.labels.begin(),
                                                    options.labels.end());
  auto model = CallStore<v1::Model>(*this, "CreateModel", request,
                                    CallDeadline(*this, options.deadline),
                                    Idempotency::kNotIdempotent);
  if (!model.ok()) return model.status();
  return internal::ToModelInfo(*model);
}

absl::StatusOr<ModelInfo> Client::GetModel(std::string_view name,
                                           const CallOptions& options) const {
  v1::GetModelRequest request;
  request.set_name(std::string(name));
  auto model = CallStore<v1::Model>(*this, "GetModel", request,
                                    CallDeadline(*this, options.deadline));
  if (!model.ok()) return model.status();
  return internal::ToModelInfo(*model);
}

Listing<ModelInfo> Client::ListModels(const ListModelsOptions& options) const {
  const Deadline deadline = CallDeadline(*this, options.deadline);
  v1::ListModelsRequest request;
  request.set_prefix(options.prefix);
  request.set_page_size(kPage);
  std::vector<ModelInfo> models;
  while (true) {
    auto page = CallStore<v1::ListModelsResponse>(*this, "ListModels", request, deadline);
    if (!page.ok()) return page.status();
    for (const v1::Model& m : page->models()) models.push_back(internal::ToModelInfo(m));
    if (page->next_page_token().empty()) return models;
    request.set_page_token(page->next_page_token());
  }
}

absl::StatusOr<ModelInfo> Client::UpdateModel(std::string_view name,
                                              const ModelUpdate& update,
                                              const CallOptions& options) const {
  // Identified by uid, so that a retry does not change another model that was created
  // with the same name in the meantime.
  const Deadline deadline = CallDeadline(*this, options.deadline);
  const absl::StatusOr<ModelInfo> present = GetModel(name, {.deadline = deadline});
  if (!present.ok()) return present.status();
  v1::UpdateModelRequest request;
  v1::Model& model = *request.mutable_model();
  model.set_name(present->name);
  model.set_uid(present->uid);
  if (update.description) {
    model.set_description(*update.description);
    request.mutable_update_mask()->add_paths("description");
  }
  if (update.labels) {
    model.mutable_labels()->insert(update.labels->begin(), update.labels->end());
    request.mutable_update_mask()->add_paths("labels");
  }
  auto changed = CallStore<v1::Model>(*this, "UpdateModel", request, deadline);
  if (!changed.ok()) return changed.status();
  return internal::ToModelInfo(*changed);
}

absl::Status Client::DeleteModel(std::string_view name,
                                 const DeleteModelOptions& options) const {
  // Identified by uid, so that a retry does not delete another model that was created
  // with the same name in the meantime.
  const Deadline deadline = CallDeadline(*this, options.deadline);
  absl::StatusOr<ModelInfo> model = GetModel(name, {.deadline = deadline});
  if (!model.ok()) return model.status();
  v1::DeleteModelRequest request;
  request.set_name(std::string(name));
  request.set_force(options.force);
  request.set_model_uid(model->uid);
  return internal::CallDelete<v1::DeleteModelResponse>(*this, "DeleteModel", request,
                                                       deadline);
}

absl::StatusOr<CheckpointInfo> Client::GetCheckpoint(std::string_view name,
                                                     const CallOptions& options) const {
  v1::GetCheckpointRequest request;
  request.set_name(std::string(name));
  request.set_view(v1::CHECKPOINT_VIEW_BASIC);
  auto checkpoint = CallStore<v1::Checkpoint>(*this, "GetCheckpoint", request,
                                              CallDeadline(*this, options.deadline));
  if (!checkpoint.ok()) return checkpoint.status();
  return internal::ToCheckpointInfo(*checkpoint);
}

absl::StatusOr<CheckpointPage> Client::GetCheckpointPage(
    std::string_view parent, std::string_view page_token,
    const ListCheckpointsOptions& options) const {
  if (options.limit < 0) return InvalidField("limit", "must not be negative");
  v1::ListCheckpointsRequest request;
  request.set_parent(std::string(parent));
  request.set_filter(options.filter);
  request.set_order_by(options.order_by);
  request.set_page_size(options.limit > 0 ? std::min(options.limit, kPage) : kPage);
  request.set_page_token(std::string(page_token));
  auto answer = CallStore<v1::ListCheckpointsResponse>(
      *this, "ListCheckpoints", request, CallDeadline(*this, options.deadline));
  if (!answer.ok()) return answer.status();
  CheckpointPage page;
  for (const v1::Checkpoint& c : answer->checkpoints()) {
    page.checkpoints.push_back(internal::ToCheckpointInfo(c));
  }
  page.next_page_token = answer->next_page_token();
  return page;
}

Listing<CheckpointInfo> Client::ListCheckpoints(
    std::string_view parent, const ListCheckpointsOptions& options) const {
  std::vector<CheckpointInfo> found;
  ListCheckpointsOptions rest = options;
  rest.deadline = CallDeadline(*this, options.deadline);
  std::string token;
  // A page may be short, or even empty, before the last: the token decides.
  do {
    if (options.limit > 0) rest.limit = options.limit - static_cast<int>(found.size());
    auto page = GetCheckpointPage(parent, token, rest);
    if (!page.ok()) return page.status();
    for (CheckpointInfo& c : page->checkpoints) found.push_back(std::move(c));
    token = std::move(page->next_page_token);
  } while (!token.empty() &&
           (options.limit == 0 || found.size() < static_cast<size_t>(options.limit)));
  return found;
}

// An expire_time in the mask without a value removes the expiry.
absl::StatusOr<CheckpointInfo> Client::UpdateCheckpoint(
    std::string_view name, const CheckpointUpdate& update,
    const CallOptions& options) const {
  const Deadline deadline = CallDeadline(*this, options.deadline);
  v1::UpdateCheckpointRequest request;
  v1::Checkpoint& checkpoint = *request.mutable_checkpoint();
  auto& mask = *request.mutable_update_mask();
  // `latest` and aliases are resolved once, so that a retry changes the same version as
  // the first attempt.
  v1::GetCheckpointRequest get;
  get.set_name(std::string(name));
  get.set_view(v1::CHECKPOINT_VIEW_BASIC);
  const auto present = CallStore<v1::Checkpoint>(*this, "GetCheckpoint", get, deadline);
  if (!present.ok()) return present.status();
  checkpoint.set_name(present->name());
  checkpoint.set_model_uid(present->model_uid());
  if (update.description) {
    checkpoint.set_description(*update.description);
    mask.add_paths("description");
  }
  if (update.labels) {
    checkpoint.mutable_labels()->insert(update.labels->begin(), update.labels->end());
    mask.add_paths("labels");
  }
  if (update.pinned) {
    checkpoint.set_pinned(*update.pinned);
    mask.add_paths("pinned");
  }
  if (update.expire_time) {
    if (*update.expire_time != kNeverExpires) {
      *checkpoint.mutable_expire_time() = internal::ToTimestamp(*update.expire_time);
    }
    mask.add_paths("expire_time");
  }
  auto changed = CallStore<v1::Checkpoint>(*this, "UpdateCheckpoint", request, deadline);
  if (!changed.ok()) return changed.status();
  return internal::ToCheckpointInfo(*changed);
}

absl::Status Client::DeleteCheckpoint(std::string_view name,
                                      const CallOptions& options) const {
  // Identified by the model's uid: see DeleteModel.
  const Deadline deadline = CallDeadline(*this, options.deadline);
  absl::StatusOr<CheckpointInfo> checkpoint = GetCheckpoint(name, {.deadline = deadline});
  if (!checkpoint.ok()) return checkpoint.status();
  v1::DeleteCheckpointRequest request;
  request.set_name(std::string(name));
  request.set_model_uid(checkpoint->model_uid);
  return internal::CallDelete<v1::DeleteCheckpointResponse>(*this, "DeleteCheckpoint",
                                                            request, deadline);
}

Listing<TensorInfo> Client::ListTensors(std::string_view checkpoint,
                                        const CallOptions& options) const {
  const Deadline deadline = CallDeadline(*this, options.deadline);
  v1::ListTensorsRequest request;
  request.set_parent(std::string(checkpoint));
  request.set_page_size(10'000);
  std::vector<TensorInfo> tensors;
  while (true) {
    auto page =
        CallStore<v1::ListTensorsResponse>(*this, "ListTensors", request, deadline);
    if (!page.ok()) return page.status();
    for (const v1::Tensor& t : page->tensors()) {
      absl::StatusOr<TensorInfo> info = internal::ToTensorInfo(t);
      if (!info.ok()) return info.status();
      tensors.push_back(*std::move(info));
    }
    if (page->next_page_token().empty()) return tensors;
    request.set_page_token(page->next_page_token());
  }
}

absl::StatusOr<SectionContent> Client::GetSection(std::string_view checkpoint,
                                                  std::string_view section,
                                                  const CallOptions& options) const {
  const Deadline deadline = CallDeadline(*this, options.deadline);
  v1::GetSectionRequest request;
  request.set_parent(std::string(checkpoint));
  request.set_section(std::string(section));
  auto answer = CallStore<v1::Section>(*this, "GetSection", request, deadline);
  if (answer.ok()) return internal::ToSectionContent(*answer);
  if (!absl::IsOutOfRange(answer.status())) return answer.status();
  // The section is larger than one message. The plan of a load delivers it in slices.
  absl::StatusOr<LoadPlan> plan = PlanLoad(
      checkpoint, {.selection = {.sections = {request.section()}}, .deadline = deadline});
  if (!plan.ok()) return plan.status();
  if (plan->sections().size() != 1) {
    return absl::InternalError("LoadCheckpoint: the plan is not that of one section");
  }
  return plan->sections().front();
}

absl::StatusOr<Attachment> Client::GetAttachment(std::string_view checkpoint,
                                                 std::string_view attachment,
                                                 const CallOptions& options) const {
  const Deadline deadline = CallDeadline(*this, options.deadline);
  // Resolves `latest` and aliases once, because all parts must belong to one version.
  absl::StatusOr<CheckpointInfo> named =
      GetCheckpoint(checkpoint, {.deadline = deadline});
  if (!named.ok()) return named.status();
  v1::GetAttachmentRequest request;
  request.set_parent(named->name);
  request.set_attachment(std::string(attachment));
  Attachment out;
  while (true) {
    auto part =
        CallStore<v1::GetAttachmentResponse>(*this, "GetAttachment", request, deadline);
    if (!part.ok()) return part.status();
    out.data += part->data();
    if (part->has_next_offset() && !part->data().empty()) {
      request.set_offset(static_cast<int64_t>(out.data.size()));
      continue;
    }
    const std::string digest =
        ComputeDigest(DigestAlgorithm::kXxh3_128, out.data).ToHex();
    if (digest != part->info().digest()) {
      return absl::DataLossError(absl::StrCat("attachment ", request.attachment(), " of ",
                                              named->name,
                                              ": the bytes that came do "
                                              "not match its digest"));
    }
    out.name = part->info().name();
    out.media_type = part->info().media_type();
    return out;
  }
}

SaveHandle Client::SaveAsync(std::string_view parent, SaveContent content,
                             const SaveOptions& options) const {
  if (absl::Status s = shared_->CheckProcess(); !s.ok()) return SaveHandle::Failed(s);
  absl::StatusOr<std::string> model_id = ParseModelName("parent", View(parent));
  if (!model_id.ok()) return SaveHandle::Failed(model_id.status());
  auto state = std::make_shared<SaveHandle::State>();
  SaveHandle handle(state);
  internal::SaveJob job;
  job.model_id = *std::move(model_id);
  job.content = std::move(content);
  job.deadline = state->deadline = internal::TransferDeadline(options.deadline);
  job.options = options;
  job.state = std::move(state);
  shared_->saves->Submit(std::move(job));
  return handle;
}

absl::StatusOr<LoadPlan> Client::PlanLoad(std::string_view name,
                                          const LoadOptions& options) const {
  if (absl::Status s = shared_->CheckProcess(); !s.ok()) return s;
  return internal::MakeLoadPlan(shared_->connection, name, options);
}

absl::Status Client::Drain(Deadline deadline) const {
  if (absl::Status s = shared_->CheckProcess(); !s.ok()) return s;
  return shared_->saves->Drain(deadline);
}

}  // namespace modelstore
