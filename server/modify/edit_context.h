// The environment of an edit: the checkpoint under edit, the other checkpoints that edits
// name, the limits on memory and work that all edits of a call share, and helpers for
// errors and warnings that name the edit.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "modelstore/v1/edits.pb.h"
#include "modelstore/v1/operations.pb.h"
#include "server/core/service_context.h"
#include "server/modify/optimizer_index.h"
#include "server/modify/report.h"
#include "server/modify/working_checkpoint.h"
#include "storage/api/reads.h"

namespace modelstore::server::modify {

// The other checkpoints that edits name. Each is opened once and kept open until the call
// ends, so its deletion meanwhile does no harm. Used by one thread at a time.
class Sources {
 public:
  // Every source must use `base`'s digest algorithm.
  // `context` must outlive this.
  Sources(ServiceContext* context, std::shared_ptr<storage::Read> base)
      : context_(context), base_(std::move(base)) {}

  // Opens a checkpoint. `name` may end in a version, an alias or `latest`; within a call,
  // the same name always gives the same version. The result is owned by this.
  // INVALID_ARGUMENT if the name is malformed or the digest algorithm is not that of the
  // base, NOT_FOUND.
  absl::StatusOr<WorkingCheckpoint*> Open(absl::string_view name);

 private:
  ServiceContext* const context_;
  const std::shared_ptr<storage::Read> base_;
  // Memory of the opened checkpoints' tables.
  std::vector<Reservation> reserved_;
  // By the name in the request.
  std::map<std::string, std::unique_ptr<WorkingCheckpoint>> opened_;
};

// The canonical name `models/{model}/checkpoints/{version}` of an open checkpoint.
std::string NameOf(const storage::Read& read);

class LoraFactors;

// The limits and shared objects of all edits of a call. Used by one thread at a time,
// except CheckCancelled(), if `keep_going` is thread-safe.
class EditResources {
 public:
  // Maximum number of new elements of all edits of a call: 16 GiB of float32.
  static constexpr int64_t kMaxMadeElements = int64_t{1} << 32;
  // Maximum number of optimizers; each takes a pass over all tensors.
  static constexpr size_t kMaxOptimizers = 64;

  EditResources(std::shared_ptr<SessionMemory> memory,
                const WorkingCheckpoint& checkpoint,
                const v1::ModifyCheckpointRequest& request,
                std::function<absl::Status()> keep_going = nullptr)
      : memory_(memory),
        reservation_(std::move(memory)),
        checkpoint_(checkpoint),
        request_(request),
        keep_going_(std::move(keep_going)) {}

  // CANCELLED if the caller is gone, UNAVAILABLE if the server shuts down. Long loops
  // call it in every iteration.
  absl::Status CheckCancelled() const {
    return keep_going_ ? keep_going_() : absl::OkStatus();
  }
  // Reserves memory until this is destroyed. RESOURCE_EXHAUSTED if the server has no room
  // for it.
  absl::Status Reserve(int64_t bytes);
  // As Reserve(), until the result is destroyed.
  absl::StatusOr<Reservation> Borrow(int64_t bytes) const;
  // Reserves the memory that the checkpoint under edit has grown by since the last call.
  absl::Status ReserveGrowth();
  // Counts new elements. INVALID_ARGUMENT, with value and limit, if the edits of the call
  // make more than kMaxMadeElements.
  absl::Status TakeElements(int64_t elements);
  // All optimizers of the base, ordered by section; read at the first call and owned by
  // this. INVALID_ARGUMENT if there are more than kMaxOptimizers, or if
  // `optimizer_param_names` of the request do not fit.
  absl::StatusOr<OptimizerIndexes> Optimizers();
  // Cache for the factors of all adapters that the call merges; made at the first call.
  const std::shared_ptr<LoraFactors>& lora_factors();

 private:
  absl::Status OutOfMemory(const absl::Status& status, int64_t bytes) const;
  absl::StatusOr<std::vector<OptimizerIndex>> ReadOptimizers() const;

  const std::shared_ptr<SessionMemory> memory_;
  Reservation reservation_;
  const WorkingCheckpoint& checkpoint_;
  const v1::ModifyCheckpointRequest& request_;
  const std::function<absl::Status()> keep_going_;
  // Reserved so far, for error messages.
  int64_t reserved_bytes_ = 0;
  // Memory of the checkpoint as of the last ReserveGrowth().
  int64_t checkpoint_bytes_ = 0;
  int64_t made_elements_ = 0;
  std::optional<std::vector<OptimizerIndex>> optimizers_;
  std::shared_ptr<LoraFactors> lora_factors_;
};

// The arguments of one edit. Lives for the call of ApplyEdit().
struct EditContext {
  WorkingCheckpoint& checkpoint;
  Report& report;
  Sources& sources;
  EditResources& resources;
  // Index of the edit in the request.
  int index = 0;
  // Name of its kind, such as `cast`.
  std::string kind;
  // See Edit.untie.
  bool untie = false;
  // The edit as it is stored with the new version. The edit replaces what depends on the
  // time of the call: names such as `latest` by versions, and an absent seed by the one
  // it drew.
  v1::Edit& resolved;

  // The path of a field: `edits[2].cast.dtype` for `dtype`, `edits[2].cast` for an empty
  // one.
  std::string Field(absl::string_view field) const;
  // Returns INVALID_ARGUMENT at a field of this edit.
  absl::Status Invalid(absl::string_view field, absl::string_view message) const;
  // Return NOT_FOUND and ALREADY_EXISTS: `{field}: {type} {name} does not exist`.
  absl::Status Missing(absl::string_view field, absl::string_view type,
                       absl::string_view name) const;
  absl::Status NameInUse(absl::string_view field, absl::string_view type,
                         absl::string_view name) const;
  // Adds the field to the message of an error, unless the message starts with it.
  absl::Status At(absl::string_view field, const absl::Status& status) const;
  void Warn(Warning::Kind kind, absl::string_view path, absl::string_view message) const {
    report.Warn(kind, index, path, message);
  }
};

// Replaces the bytes of a tensor and of all tensors that are tied to it. If the edit says
// `untie`, only the one tensor changes and leaves its tied group, with a warning.
// INVALID_ARGUMENT if the source exceeds kMaxSourceDepth or kMaxWorkingBytes.
absl::Status ReplaceBytes(EditContext& context, WorkingTensor& tensor, SourcePtr source,
                          DType dtype, std::vector<int64_t> shape);

}  // namespace modelstore::server::modify
