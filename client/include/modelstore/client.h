// Client: saves to and loads from a modelstore server, without torch.
//
//   auto client = modelstore::Client::Connect("localhost:7070");
//   if (!client.ok()) return client.status();
//   auto checkpoints = client->ListCheckpoints("models/iris");
//   if (!checkpoints.ok()) return checkpoints.status();
//   for (const auto& c : *checkpoints) std::cout << c.name << "\n";
//
// Calls of the other headers, which take a Client:
//   torch.h         SaveCheckpoint, LoadCheckpoint: modules, state dicts, optimizers
//   architecture.h  LoadModel: a model whose class the program does not know
//   policy.h        CheckpointPolicy: when to save
//   retention.h     SetRetentionPolicy, PruneCheckpoints: what to keep
//   lifecycle.h     SetAlias, AcquireLease, CopyCheckpoint, ModelWatcher
//   inspect.h       VerifyCheckpoint, CompareCheckpoints
//   modify.h        ModifyCheckpoint, History; edit_list.h has the edits
//   admin.h         GetServerInfo, GetStats, ListUploads, CollectGarbage
//   errors.h        StatusLine, ReasonOf: what a status tells
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

#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "modelstore/connection.h"
#include "modelstore/listing.h"
#include "modelstore/options.h"
#include "modelstore/tensor.h"
#include "modelstore/value.h"

namespace modelstore {

// A save that goes on in the background. Copies share it; dropping all of them
// does not cancel it: a failure nobody saw is returned by the next save of the
// same client and by Client::Drain(). Nor does it end with the last Client: at a
// normal exit of the process, saves in flight are finished first (each has its
// timeout); call Drain() before, to know how they ended.
class [[nodiscard]] SaveHandle {
 public:
  // Returns when the caller may change the tensors again.
  [[nodiscard]] absl::Status Staged(Deadline deadline) const;
  // Returns when the server has made the version durable.
  [[nodiscard]] absl::StatusOr<CheckpointInfo> Durable(Deadline deadline) const;
  // Waits until the save ends. Cancels it 2 s after its timeout and waits up to 30 s more
  // for it to end: DEADLINE_EXCEEDED tells whether nothing was saved or the commit may be
  // decided.
  [[nodiscard]] absl::StatusOr<CheckpointInfo> Finish() const;
  Progress progress() const;
  // Ends the save as soon as possible; Durable() then returns CANCELLED unless
  // it was committed before, and tells whether it may have been.
  void Cancel() const;

  // A save that was refused before it began: every wait returns `status`.
  static SaveHandle Failed(absl::Status status);

  struct State;
  explicit SaveHandle(std::shared_ptr<State> state) : state_(std::move(state)) {}

 private:
  std::shared_ptr<State> state_;
};

// A load that is planned and not yet run: what would come, and where to put it.
// Move-only; used by one thread at a time, except progress().
class LoadPlan {
 public:
  LoadPlan(LoadPlan&&) noexcept;
  LoadPlan& operator=(LoadPlan&&) noexcept;
  ~LoadPlan();

  const CheckpointInfo& checkpoint() const;
  // In order of delivery. A tensor tied to an earlier one of the plan has
  // size_bytes 0.
  const std::vector<TensorInfo>& tensors() const;
  const std::vector<SectionContent>& sections() const;
  int64_t total_bytes() const;

  // Tensor `index` goes to `buffer`, which must hold its size_bytes. Tensors not
  // bound are not fetched.
  [[nodiscard]] absl::Status Bind(size_t index, WritableBuffer buffer);

  // Fetches every bound tensor, resuming when cut. On failure done(i) tells
  // which tensors hold their new bytes; of the others, bytes are undefined where
  // touched(i).
  [[nodiscard]] absl::Status Run(Deadline deadline);
  bool done(size_t index) const;
  bool touched(size_t index) const;
  Progress progress() const;

  struct State;
  explicit LoadPlan(std::unique_ptr<State> state);

 private:
  std::unique_ptr<State> state_;
};

struct ListCheckpointsOptions {
  // Conditions joined by AND, such as `epoch >= 10 AND metrics.accuracy > 0.9`. Each
  // compares `version`, `epoch`, `step`, `loss` or `metrics.NAME` with a number, or
  // `labels.NAME` with a string in double quotes (= !=). Empty: all.
  std::string filter = {};
  // `version` (also if empty), `version desc`, or, for models of up to 10,000 versions,
  // one of `epoch`, `step`, `loss`, `metrics.NAME`, with or without ` desc`; checkpoints
  // without it come last either way.
  std::string order_by = {};
  // 0: all.
  int limit = 0;
};

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
                                        ConnectOptions options = {});
  explicit Client(std::shared_ptr<Connection> connection);

  absl::StatusOr<ModelInfo> CreateModel(std::string_view model_id,
                                        std::string_view description = "");
  absl::StatusOr<ModelInfo> GetModel(std::string_view name);
  Listing<ModelInfo> ListModels(std::string_view prefix = "");
  // `force` deletes its checkpoints too.
  absl::Status DeleteModel(std::string_view name, bool force = false);

  // `name` ends in a version, an alias (lifecycle.h) or `latest`.
  absl::StatusOr<CheckpointInfo> GetCheckpoint(std::string_view name);
  // INVALID_ARGUMENT for a filter or order that does not parse.
  Listing<CheckpointInfo> ListCheckpoints(std::string_view parent,
                                          const ListCheckpointsOptions& options = {});
  // The same page by page, for models of many versions: at most options.limit of them,
  // 1000 at most, from where the page with this next_page_token ended. A token is a
  // position and never expires; filter and order must be those of its page. Ordered by a
  // figure, versions that come or go between two pages may be skipped or come twice.
  absl::StatusOr<CheckpointPage> GetCheckpointPage(std::string_view parent,
                                                   const ListCheckpointsOptions& options,
                                                   std::string_view page_token = "");
  absl::Status DeleteCheckpoint(std::string_view name);
  Listing<TensorInfo> ListTensors(std::string_view checkpoint);
  // NOT_FOUND if the checkpoint has none of this name. CheckpointInfo::attachments lists
  // them.
  absl::StatusOr<Attachment> GetAttachment(std::string_view checkpoint,
                                           std::string_view attachment);

  // Copies what the content's views point to and returns at once; see
  // SaveHandle. SaveAsync(...).Finish() is the synchronous save: if every view is
  // `immutable`, without the copy, and without stepping back for threads that compute.
  // INVALID_ARGUMENT for content without a tensor, a section, an attachment and an
  // architecture, unless SaveOptions.allow_empty.
  SaveHandle SaveAsync(std::string_view parent, SaveContent content,
                       SaveOptions options = {});

  absl::StatusOr<LoadPlan> PlanLoad(std::string_view name, LoadOptions options = {});

  // Waits for every save of this client and its copies; returns the first
  // failure that nobody has seen.
  [[nodiscard]] absl::Status Drain(Deadline deadline);

  // What the calls of the other headers go through (lifecycle.h, retention.h,
  // inspect.h, modify.h, admin.h). FAILED_PRECONDITION in the child of a fork.
  absl::StatusOr<std::shared_ptr<Connection>> connection() const;

 private:
  struct Shared;
  std::shared_ptr<Shared> shared_;
};

}  // namespace modelstore
