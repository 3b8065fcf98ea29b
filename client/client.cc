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

using internal::CallRpc;
using internal::Idempotency;
using internal::kModelStore;

namespace {

// Of a list; the most that the server gives.
constexpr int kPage = 1000;

absl::string_view View(std::string_view s) { return {s.data(), s.size()}; }

}  // namespace

struct Client::Shared {
  explicit Shared(std::shared_ptr<Connection> c)
      : connection(std::move(c)),
        saves(std::make_shared<internal::SaveQueue>(connection)) {}

  // The child of a fork has none of gRPC's threads and must not touch its locks:
  // there everything is left as it is.
  ~Shared() {
    if (getpid() == pid) return;
    internal::KeepForever(std::move(saves));
  }

  absl::Status CheckProcess() const {
    if (getpid() == pid) return absl::OkStatus();
    return absl::FailedPreconditionError(
        "this client belongs to the parent process: fork() before connecting");
  }

  template <typename Response>
  absl::StatusOr<Response> Call(std::string_view method,
                                const google::protobuf::Message& request,
                                Idempotency idempotency = Idempotency::kIdempotent) {
    if (absl::Status s = CheckProcess(); !s.ok()) return s;
    return CallRpc<Response>(*connection, kModelStore, method, request, idempotency,
                             internal::StoreDeadline(connection->options()));
  }

  std::shared_ptr<Connection> connection;
  std::shared_ptr<internal::SaveQueue> saves;
  const pid_t pid = getpid();
};

absl::StatusOr<Client> Client::Connect(std::string_view target, ConnectOptions options) {
  if (options.streams < 1 || options.streams > 64) {
    return InvalidField("streams", "must be 1 to 64");
  }
  absl::StatusOr<std::shared_ptr<Connection>> connection =
      internal::MakeGrpcConnection(target, options);
  if (!connection.ok()) return connection.status();
  Client client(*std::move(connection));
  absl::StatusOr<v1::ServerInfo> info =
      CallRpc<v1::ServerInfo>(*client.shared_->connection, kModelStore, "GetServerInfo",
                              v1::GetServerInfoRequest(), Idempotency::kIdempotent,
                              After(options.connect_timeout));
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
                                              std::string_view description) {
  v1::CreateModelRequest request;
  request.set_model_id(std::string(model_id));
  request.mutable_model()->set_description(std::string(description));
  absl::StatusOr<v1::Model> model =
      shared_->Call<v1::Model>("CreateModel", request, Idempotency::kNotIdempotent);
  if (!model.ok()) return model.status();
  return internal::ToModelInfo(*model);
}

absl::StatusOr<ModelInfo> Client::GetModel(std::string_view name) {
  v1::GetModelRequest request;
  request.set_name(std::string(name));
  absl::StatusOr<v1::Model> model = shared_->Call<v1::Model>("GetModel", request);
  if (!model.ok()) return model.status();
  return internal::ToModelInfo(*model);
}

Listing<ModelInfo> Client::ListModels(std::string_view prefix) {
  v1::ListModelsRequest request;
  request.set_prefix(std::string(prefix));
  request.set_page_size(kPage);
  std::vector<ModelInfo> models;
  while (true) {
    auto page = shared_->Call<v1::ListModelsResponse>("ListModels", request);
    if (!page.ok()) return page.status();
    for (const v1::Model& m : page->models()) models.push_back(internal::ToModelInfo(m));
    if (page->next_page_token().empty()) return models;
    request.set_page_token(page->next_page_token());
  }
}

absl::Status Client::DeleteModel(std::string_view name, bool force) {
  // By its uid: a repeated call deletes no other model that has the name meanwhile.
  absl::StatusOr<ModelInfo> model = GetModel(name);
  if (!model.ok()) return model.status();
  v1::DeleteModelRequest request;
  request.set_name(std::string(name));
  request.set_force(force);
  request.set_model_uid(model->uid);
  return internal::CallDelete<v1::DeleteModelResponse>(*shared_->connection,
                                                       "DeleteModel", request);
}

absl::StatusOr<CheckpointInfo> Client::GetCheckpoint(std::string_view name) {
  v1::GetCheckpointRequest request;
  request.set_name(std::string(name));
  request.set_view(v1::BASIC);
  auto checkpoint = shared_->Call<v1::Checkpoint>("GetCheckpoint", request);
  if (!checkpoint.ok()) return checkpoint.status();
  return internal::ToCheckpointInfo(*checkpoint);
}

absl::StatusOr<CheckpointPage> Client::GetCheckpointPage(
    std::string_view parent, const ListCheckpointsOptions& options,
    std::string_view page_token) {
  if (options.limit < 0) return InvalidField("limit", "must not be negative");
  v1::ListCheckpointsRequest request;
  request.set_parent(std::string(parent));
  request.set_filter(options.filter);
  request.set_order_by(options.order_by);
  request.set_page_size(options.limit > 0 ? std::min(options.limit, kPage) : kPage);
  request.set_page_token(std::string(page_token));
  auto answer = shared_->Call<v1::ListCheckpointsResponse>("ListCheckpoints", request);
  if (!answer.ok()) return answer.status();
  CheckpointPage page;
  for (const v1::Checkpoint& c : answer->checkpoints()) {
    page.checkpoints.push_back(internal::ToCheckpointInfo(c));
  }
  page.next_page_token = answer->next_page_token();
  return page;
}

Listing<CheckpointInfo> Client::ListCheckpoints(std::string_view parent,
                                                const ListCheckpointsOptions& options) {
  std::vector<CheckpointInfo> found;
  ListCheckpointsOptions rest = options;
  std::string token;
  do {
    if (options.limit > 0) rest.limit = options.limit - static_cast<int>(found.size());
    auto page = GetCheckpointPage(parent, rest, token);
    if (!page.ok()) return page.status();
    for (CheckpointInfo& c : page->checkpoints) found.push_back(std::move(c));
    token = std::move(page->next_page_token);
  } while (!token.empty() &&
           (options.limit == 0 || found.size() < static_cast<size_t>(options.limit)));
  return found;
}

absl::Status Client::DeleteCheckpoint(std::string_view name) {
  v1::GetCheckpointRequest get;
  get.set_name(std::string(name));
  auto checkpoint = shared_->Call<v1::Checkpoint>("GetCheckpoint", get);
  if (!checkpoint.ok()) return checkpoint.status();
  v1::DeleteCheckpointRequest request;
  request.set_name(std::string(name));
  request.set_model_uid(checkpoint->model_uid());
  return internal::CallDelete<v1::DeleteCheckpointResponse>(*shared_->connection,
                                                            "DeleteCheckpoint", request);
}

Listing<TensorInfo> Client::ListTensors(std::string_view checkpoint) {
  v1::ListTensorsRequest request;
  request.set_parent(std::string(checkpoint));
  request.set_page_size(10'000);
  std::vector<TensorInfo> tensors;
  while (true) {
    auto page = shared_->Call<v1::ListTensorsResponse>("ListTensors", request);
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

absl::StatusOr<Attachment> Client::GetAttachment(std::string_view checkpoint,
                                                 std::string_view attachment) {
  // By its number: all parts must be of one version, and `latest` and aliases move.
  absl::StatusOr<CheckpointInfo> named = GetCheckpoint(checkpoint);
  if (!named.ok()) return named.status();
  v1::GetAttachmentRequest request;
  request.set_parent(named->name);
  request.set_attachment(std::string(attachment));
  Attachment out;
  while (true) {
    auto part = shared_->Call<v1::GetAttachmentResponse>("GetAttachment", request);
    if (!part.ok()) return part.status();
    out.data += part->data();
    if (part->next_offset() > 0 && !part->data().empty()) {
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
                             SaveOptions options) {
  if (absl::Status s = shared_->CheckProcess(); !s.ok()) return SaveHandle::Failed(s);
  absl::StatusOr<std::string> model_id = ParseModelName("parent", View(parent));
  if (!model_id.ok()) return SaveHandle::Failed(model_id.status());
  auto state = std::make_shared<SaveHandle::State>();
  SaveHandle handle(state);
  internal::SaveJob job;
  job.model_id = *std::move(model_id);
  job.content = std::move(content);
  job.deadline = state->deadline = After(options.timeout);
  job.options = std::move(options);
  job.state = std::move(state);
  shared_->saves->Submit(std::move(job));
  return handle;
}

absl::StatusOr<LoadPlan> Client::PlanLoad(std::string_view name, LoadOptions options) {
  if (absl::Status s = shared_->CheckProcess(); !s.ok()) return s;
  return internal::MakeLoadPlan(shared_->connection, name, options);
}

absl::Status Client::Drain(Deadline deadline) {
  if (absl::Status s = shared_->CheckProcess(); !s.ok()) return s;
  return shared_->saves->Drain(deadline);
}

}  // namespace modelstore
