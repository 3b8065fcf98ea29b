// What an edit works with: the checkpoint under edit, the other checkpoints that edits
// name, the memory and the amount of work that all edits of a call share, and the errors
// and warnings that name the edit.
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

// The other checkpoints that edits name, each opened once and held to the end, so
// that deleting one meanwhile takes nothing away. Used by one thread at a time.
class Sources {
 public:
  // Every source must use `base`'s digest algorithm.
  Sources(ServiceContext* context, std::shared_ptr<storage::Read> base)
      : context_(context), base_(std::move(base)) {}

  // `name` may end in a version, an alias or `latest`; the same name is the same
  // version for all edits of a call. Owned by this. INVALID_ARGUMENT or NOT_FOUND.
  absl::StatusOr<WorkingCheckpoint*> Open(absl::string_view name);

 private:
  ServiceContext* const context_;
  const std::shared_ptr<storage::Read> base_;
  // Of the tables of those that were opened.
  std::vector<Reservation> reserved_;
  std::map<std::string, std::unique_ptr<WorkingCheckpoint>> opened_;
};

// `models/{model}/checkpoints/{version}` of what was opened.
std::string NameOf(const storage::Read& read);

class LoraFactors;

// What all edits of a call together may make, and what they share.
class EditResources {
 public:
  // Elements that all edits of a call may make anew: 16 GiB of float32.
  static constexpr int64_t kMaxMadeElements = int64_t{1} << 32;
  // Each takes a pass over the tensors.
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

  // CANCELLED once the caller is gone, UNAVAILABLE once the server shuts down. What
  // takes long asks often.
  absl::Status CheckCancelled() const {
    return keep_going_ ? keep_going_() : absl::OkStatus();
  }
  // RESOURCE_EXHAUSTED if the server has no room for so much more. Given back with
  // this.
  absl::Status Reserve(int64_t bytes);
  // As Reserve(), given back with the result.
  absl::StatusOr<Reservation> Borrow(int64_t bytes) const;
  // Reserves what the checkpoint under edit has grown by.
  absl::Status ReserveGrowth();
  // INVALID_ARGUMENT, with both figures, if edits make too many elements.
  absl::Status TakeElements(int64_t elements);
  // All of the base, by section; read when they are first asked for.
  // INVALID_ARGUMENT if there are more than kMaxOptimizers.
  absl::StatusOr<OptimizerIndexes> Optimizers();
  // Of all adapters that are merged; made when they are first asked for.
  const std::shared_ptr<LoraFactors>& lora_factors();

 private:
  absl::Status OutOfMemory(const absl::Status& status, int64_t bytes) const;
  absl::StatusOr<std::vector<OptimizerIndex>> ReadOptimizers() const;

  const std::shared_ptr<SessionMemory> memory_;
  Reservation reservation_;
  const WorkingCheckpoint& checkpoint_;
  const v1::ModifyCheckpointRequest& request_;
  const std::function<absl::Status()> keep_going_;
  int64_t reserved_bytes_ = 0;
  int64_t checkpoint_bytes_ = 0;
  int64_t made_elements_ = 0;
  std::optional<std::vector<OptimizerIndex>> optimizers_;
  std::shared_ptr<LoraFactors> lora_factors_;
};

// What an edit works on.
struct EditContext {
  WorkingCheckpoint& checkpoint;
  Report& report;
  Sources& sources;
  EditResources& resources;
  // Of the edit in the request.
  int index = 0;
  // Its name there, such as `cast`.
  std::string kind;
  // See Edit.untie.
  bool untie = false;
  // The edit as it is kept with the version: what it left to the moment (versions
  // that a name stood for, a seed that was drawn) is written down here.
  v1::Edit& resolved;

  // `edits[2].cast.dtype` for `dtype`; `edits[2].cast` for nothing.
  std::string Field(absl::string_view field) const;
  // INVALID_ARGUMENT at a field of this edit.
  absl::Status Invalid(absl::string_view field, absl::string_view message) const;
  // NOT_FOUND and ALREADY_EXISTS: `{field}: {type} {name} does not exist`.
  absl::Status Missing(absl::string_view field, absl::string_view type,
                       absl::string_view name) const;
  absl::Status NameInUse(absl::string_view field, absl::string_view type,
                         absl::string_view name) const;
  // Puts the field before a status that does not name it yet.
  absl::Status At(absl::string_view field, const absl::Status& status) const;
  void Warn(Warning::Kind kind, absl::string_view path, absl::string_view message) const {
    report.Warn(kind, index, path, message);
  }
};

// Gives one tensor, and unless the edit says `untie` all that are tied to it, other
// bytes. With `untie` it leaves its group, which the report warns of.
// INVALID_ARGUMENT if more is stacked on the tensor than can be computed at once.
absl::Status ReplaceBytes(EditContext& context, WorkingTensor& tensor, SourcePtr source,
                          DType dtype, std::vector<int64_t> shape);

}  // namespace modelstore::server::modify
