// Client: saves to and loads from a modelstore server, without torch.
//
//   auto client = modelstore::Client::Connect("localhost:7070");
//   if (!client.ok()) return client.status();
//   auto checkpoints = client->ListCheckpoints("models/iris");
//   if (!checkpoints.ok()) return checkpoints.status();
//   for (const auto& c : *checkpoints) std::cout << c.name << "\n";
//
// Methods of Client are the standard calls of its two resources (create, get, list,
// update, delete a model or a checkpoint), reading what a checkpoint holds, saving and
// loading. Everything else is a free function of another header, which takes a Client:
//   torch.h         SaveCheckpoint, LoadCheckpoint: modules, state dicts, optimizers
//   architecture.h  LoadModel: a model whose class the program does not know
//   policy.h        CheckpointPolicy: when to save
//   retention.h     SetRetentionPolicy, PruneCheckpoints: what to keep
//   lifecycle.h     SetAlias, AcquireLease, CopyCheckpoint, ModelWatcher
//   inspect.h       VerifyCheckpoint, CompareCheckpoints
//   modify.h        ModifyCheckpoint, History; edit_list.h has the edits
//   admin.h         GetServerInfo, GetStats, ListUploads, CollectGarbage
//   errors.h        StatusLine, ReasonOf: what a status tells
// Arguments come in one order: the client, the resource's name, what else is required,
// the options. What may be left out is in the options, and so is the deadline (see
// deadline.h).
// Methods are const and free functions take a `const Client&`: a call changes the server,
// and not the handle to it.
//
// Performance: a Client is a few pointers; copy it. Connections are opened on
// first use and shared by all copies.
// Thread safety: every method may be called from any thread at any time.
// Errors: absl::Status throughout. Nothing throws, exits, installs signal
// handlers or tunes the allocator. After fork() the child gets
// FAILED_PRECONDITION from everything that its parent made, and from Connect()
// if the parent had connected: gRPC does not pass through fork().
// Ignored results: what loses data when it is dropped is [[nodiscard]] by itself, since
// absl::Status makes only clang warn.
// Retries: calls that are safe to repeat are repeated on UNAVAILABLE, overload included,
// for up to ConnectOptions.retry_timeout and never sooner than the server asks. Transfers
// resume where they were cut. Errors that waiting does not fix, such as a full disk, are
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

struct CheckpointPage {
  // May be fewer than asked for, even none, and not be the last.
  std::vector<CheckpointInfo> checkpoints;
  // Empty on the last page.
  std::string next_page_token;
};

class Client {
 public:
  // Reaches the server once, so that a wrong address is told here.
  static absl::StatusOr<Client> Connect(std::string_view target,
                                        const ConnectOptions& options = {});
  explicit Client(std::shared_ptr<Connection> connection);

  absl::StatusOr<ModelInfo> CreateModel(std::string_view model_id,
                                        const CreateModelOptions& options = {}) const;
  absl::StatusOr<ModelInfo> GetModel(std::string_view name,
                                     const CallOptions& options = {}) const;
  Listing<ModelInfo> ListModels(const ListModelsOptions& options = {}) const;
  absl::StatusOr<ModelInfo> UpdateModel(std::string_view name, const ModelUpdate& update,
                                        const CallOptions& options = {}) const;
  absl::Status DeleteModel(std::string_view name,
                           const DeleteModelOptions& options = {}) const;

  // `name` ends in a version, an alias (lifecycle.h) or `latest`.
  absl::StatusOr<CheckpointInfo> GetCheckpoint(std::string_view name,
                                               const CallOptions& options = {}) const;
  // INVALID_ARGUMENT for a filter or order that does not parse.
  Listing<CheckpointInfo> ListCheckpoints(
      std::string_view parent, const ListCheckpointsOptions& options = {}) const;
  // The same page by page, for models of many versions: at most options.limit of them,
  // 1000 at most, from where the page with this next_page_token ended; the first for an
  // empty one. A token is a position and never expires; filter and order must be those of
  // its page. Ordered by a figure, versions that come or go between two pages may be
  // skipped or come twice.
  absl::StatusOr<CheckpointPage> GetCheckpointPage(
      std::string_view parent, std::string_view page_token,
      const ListCheckpointsOptions& options = {}) const;
  [[nodiscard]] absl::StatusOr<CheckpointInfo> UpdateCheckpoint(
      std::string_view name, const CheckpointUpdate& update,
      const CallOptions& options = {}) const;
  // `name` ends in the version's number. FAILED_PRECONDITION names what holds it.
  absl::Status DeleteCheckpoint(std::string_view name,
                                const CallOptions& options = {}) const;

  Listing<TensorInfo> ListTensors(std::string_view checkpoint,
                                  const CallOptions& options = {}) const;
  // The values of a section of any size, without its tensors' bytes. NOT_FOUND if the
  // checkpoint has none of this name. CheckpointInfo::sections lists them.
  absl::StatusOr<SectionContent> GetSection(std::string_view checkpoint,
                                            std::string_view section,
                                            const CallOptions& options = {}) const;
  // NOT_FOUND if the checkpoint has none of this name. CheckpointInfo::attachments lists
  // them.
  absl::StatusOr<Attachment> GetAttachment(std::string_view checkpoint,
                                           std::string_view attachment,
                                           const CallOptions& options = {}) const;

  // Copies what the content's views point to and returns at once; see
  // SaveHandle. SaveAsync(...).Finish() is the synchronous save: if every view is
  // `immutable`, without the copy, and without stepping back for threads that compute.
  // INVALID_ARGUMENT for content without a tensor, a section, an attachment and an
  // architecture, unless SaveOptions.allow_empty.
  SaveHandle SaveAsync(std::string_view parent, SaveContent content,
                       const SaveOptions& options = {}) const;

  absl::StatusOr<LoadPlan> PlanLoad(std::string_view name,
                                    const LoadOptions& options = {}) const;

  // Waits for every save of this client and its copies; returns the first
  // failure that nobody has seen.
  [[nodiscard]] absl::Status Drain(Deadline deadline) const;

  // What the free functions go through. FAILED_PRECONDITION in the child of a fork.
  absl::StatusOr<std::shared_ptr<Connection>> connection() const;

 private:
  struct Shared;
  std::shared_ptr<Shared> shared_;
};

}  // namespace modelstore
