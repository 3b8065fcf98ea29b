// The report of a modification to its caller: warnings, and the fate of each parameter.
#pragma once

#include <map>
#include <optional>
#include <string>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/strings/string_view.h"
#include "modelstore/v1/operations.pb.h"
#include "server/modify/working_checkpoint.h"

namespace modelstore::server::modify {

using Warning = v1::ModifyCheckpointResponse::Warning;
using ParameterFate = v1::ModifyCheckpointResponse::ParameterFate;

// Collects the report while edits are applied. Used by one thread at a time.
class Report {
 public:
  // Adds a warning. `edit_index` is -1 if it concerns the whole checkpoint. `path` is a
  // module path or a key. `message` states the problem and its consequence.
  void Warn(Warning::Kind kind, int edit_index, absl::string_view path,
            absl::string_view message);
  const std::vector<Warning>& warnings() const { return warnings_; }

  // The fate of one parameter's state in one optimizer. Set by FollowOptimizers(), by the
  // parameter's key after all edits, or by its old key if it was removed.
  struct OptimizerState {
    ParameterFate::OptimizerFate fate = ParameterFate::OPTIMIZER_FATE_NO_STATE;
    // Index of its parameter group; unset if it is in none.
    std::optional<int> group;
  };
  void SetOptimizer(absl::string_view section, absl::string_view key,
                    OptimizerState state) {
    optimizers_[std::string(key)][std::string(section)] = state;
  }
  // Records that the parameters of an optimizer could not be identified. The fate of
  // state is then unspecified for parameters without an entry.
  void SetOptimizerUnknown() {
    unknown_state_ = ParameterFate::OPTIMIZER_FATE_UNSPECIFIED;
  }

  // Lists the parameters of section `model`: those of the new version in its order, then
  // those that were removed. A parameter held by several optimizers has an entry for
  // each.
  std::vector<ParameterFate> Fates(const WorkingCheckpoint& checkpoint) const;

 private:
  // Appends `fate` once for each optimizer that holds the parameter, or once if none
  // does.
  void AddFates(const ParameterFate& fate, std::vector<ParameterFate>& fates) const;

  std::vector<Warning> warnings_;
  // By the parameter's key, then by the optimizer's section.
  absl::flat_hash_map<std::string, std::map<std::string, OptimizerState>> optimizers_;
  // Fate of state for a parameter without an entry.
  ParameterFate::OptimizerFate unknown_state_ = ParameterFate::OPTIMIZER_FATE_NO_STATE;
};

// Derives the fate of a parameter of the new version from its origin.
ParameterFate::Fate FateOf(const WorkingTensor& tensor, const WorkingCheckpoint& of);

// Removes fields from the result until its message is small enough for a client, and
// lists them in `omitted`. The version is committed by then, so the answer must not fail.
void FitResult(v1::ModifyCheckpointResponse::Result& result);

}  // namespace modelstore::server::modify
