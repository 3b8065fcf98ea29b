// Client: saves to and loads from a modelstore server, without torch.
//
//   auto client = modelstore::Client::Connect("localhost:7070");
//   if (!client.ok()) return client.status();
//   auto checkpoints = client->ListCheckpoints("models/iris");
//   if (!checkpoints.ok()) return checkpoints.status();
//   for (const auto& c : *checkpoints) std::cout << c.name << "\n";
//
// The methods of Client create, get, list, update and delete models and checkpoints, read
// the contents of a checkpoint, save and load. Everything else is a free function of
// another header that takes a Client:
//   torch.h         SaveCheckpoint, LoadCheckpoint: modules, state dicts, optimizers
//   architecture.h  LoadModel: builds a model whose class the program does not have
//   policy.h        CheckpointPolicy: when to save
//   retention.h     SetRetentionPolicy, PruneCheckpoints: what to keep
//   lifecycle.h     SetAlias, AcquireLease, CopyCheckpoint, ModelWatcher
//   inspect.h       VerifyCheckpoint, CompareCheckpoints
//   modify.h        ModifyCheckpoint, History; edit_list.h has the edits
//   admin.h         GetServerInfo, GetStats, ListUploads, CollectGarbage
//   errors.h        StatusLine, ReasonOf: the details of a status
// Arguments have one order: the client, the resource's name, other required arguments,
// the options. Optional arguments and the deadline (see deadline.h) are in the options.
// Methods are const and free functions take a `const Client&`, because a call changes the
// server and not the handle.
//
// Performance: a Client is cheap to copy. Connections are opened on
// first use and shared by all copies.
// Thread safety: every method may be called from any thread at any time.
// Errors: absl::Status throughout. Nothing throws, exits, installs signal
// handlers or tunes the allocator. After fork() the child gets FAILED_PRECONDITION from
// every object that its parent created, and from Connect() if the parent had connected:
// gRPC does not support fork().
// Ignored results: functions whose result must not be lost are marked [[nodiscard]]
// themselves, because absl::Status causes a warning with clang only.
// Retries: calls that are safe to repeat are repeated on UNAVAILABLE, overload included,
// for up to ConnectOptions.retry_timeout, after the delay that the server requests.
// Broken transfers resume. Errors that waiting does not fix, such as a full disk, are
// returned at once.
#pragma once

#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "modelstore/connection.h"
#include "modelstore/listing.h"
#include "modelstore/options.h"
#include "modelstore/resources.h"
#include "modelstore/transfer.h"

namespace modelstore {

// One page of a list of checkpoints.
struct CheckpointPage {
  // May be shorter than the limit, or empty, even if more pages follow.
  std::vector<CheckpointInfo> checkpoints;
  // Empty on the last page.
  std::string next_page_token;
};

// A handle to one server. Copies share connections and saves in flight.
class Client {
 public:
  // Connects to `target`, such as `localhost:7070`. Contacts the server once, so that a
  // wrong address fails here: UNAVAILABLE or DEADLINE_EXCEEDED.
  static absl::StatusOr<Client> Connect(std::string_view target,
                                        const ConnectOptions& options = {});
  // Uses an existing connection, such as a fake in a test.
  explicit Client(std::shared_ptr<Connection> connection);

  // `model_id` is `iris`, while every `name` and `parent` of a model is `models/iris`.
  // ALREADY_EXISTS if the model exists.
  absl::StatusOr<ModelInfo> CreateModel(std::string_view model_id,
                                        const CreateModelOptions& options = {}) const;
  absl::StatusOr<ModelInfo> GetModel(std::string_view name,
                                     const CallOptions& options = {}) const;
  Listing<ModelInfo> ListModels(const ListModelsOptions& options = {}) const;
  // Changes the fields that are set in `update`.
  absl::StatusOr<ModelInfo> UpdateModel(std::string_view name, const ModelUpdate& update,
                                        const CallOptions& options = {}) const;
  // FAILED_PRECONDITION if the model has checkpoints and options.force is not set, or,
  // naming the holders, if an alias, a pin or a lease holds one of them.
  absl::Status DeleteModel(std::string_view name,
                           const DeleteModelOptions& options = {}) const;

  // `name` is `models/{model}/checkpoints/` and a version, an alias (lifecycle.h) or
  // `latest`. The result has the version's number.
  absl::StatusOr<CheckpointInfo> GetCheckpoint(std::string_view name,
                                               const CallOptions& options = {}) const;
  // All checkpoints of `parent`, `models/{model}`, that match options.filter.
  // INVALID_ARGUMENT for a filter or order that does not parse; OUT_OF_RANGE for an order
  // other than by version in a model with more than 10,000 versions.
  Listing<CheckpointInfo> ListCheckpoints(
      std::string_view parent, const ListCheckpointsOptions& options = {}) const;
  // One page of the list, for models with many versions. The page has at most
  // options.limit checkpoints (at most 1000). `page_token` is the next_page_token of the
  // page before, or empty for the first page. Tokens do not expire; filter and order must
  // not change between pages. If the order is not by version, versions that are added or
  // deleted between two pages may be skipped or returned twice.
  absl::StatusOr<CheckpointPage> GetCheckpointPage(
      std::string_view parent, std::string_view page_token,
      const ListCheckpointsOptions& options = {}) const;
  // Changes the fields that are set in `update`.
  [[nodiscard]] absl::StatusOr<CheckpointInfo> UpdateCheckpoint(
      std::string_view name, const CheckpointUpdate& update,
      const CallOptions& options = {}) const;
  // `name` must end in a version number. FAILED_PRECONDITION, naming the holders, if an
  // alias, a pin or a lease holds the version.
  absl::Status DeleteCheckpoint(std::string_view name,
                                const CallOptions& options = {}) const;

  // Descriptions of all tensors, without their bytes.
  Listing<TensorInfo> ListTensors(std::string_view checkpoint,
                                  const CallOptions& options = {}) const;
  // The values of a section, without the bytes of its tensors. NOT_FOUND if the
  // checkpoint has no such section; CheckpointInfo::sections lists them.
  absl::StatusOr<SectionContent> GetSection(std::string_view checkpoint,
                                            std::string_view section,
                                            const CallOptions& options = {}) const;
  // NOT_FOUND if the checkpoint has no such attachment; CheckpointInfo::attachments lists
  // them.
  absl::StatusOr<Attachment> GetAttachment(std::string_view checkpoint,
                                           std::string_view attachment,
                                           const CallOptions& options = {}) const;

  // Starts a save of `content` as the next version of `parent`, `models/{model}`, and
  // returns at once. The bytes that the views point to are copied in the background; they
  // must not change until SaveHandle::Staged(). SaveAsync(...).Finish() is a synchronous
  // save. If every view is `immutable`, it skips the copy and runs at normal priority.
  // INVALID_ARGUMENT for content without any tensor, section, attachment and
  // architecture, unless options.allow_empty. Errors are returned by the handle.
  SaveHandle SaveAsync(std::string_view parent, SaveContent content,
                       const SaveOptions& options = {}) const;

  // Fetches what a load would deliver, without the bytes of tensors. See LoadPlan.
  // NOT_FOUND if the checkpoint, or a selected tensor, does not exist.
  absl::StatusOr<LoadPlan> PlanLoad(std::string_view name,
                                    const LoadOptions& options = {}) const;

  // Waits for every save of this client and its copies. Returns the first failure that
  // was not yet returned by a SaveHandle. DEADLINE_EXCEEDED if saves still run.
  [[nodiscard]] absl::Status Drain(Deadline deadline) const;

  // The connection, for the free functions of other headers. FAILED_PRECONDITION in a
  // child process after fork().
  absl::StatusOr<std::shared_ptr<Connection>> connection() const;

 private:
  struct Shared;
  std::shared_ptr<Shared> shared_;
};

}  // namespace modelstore
