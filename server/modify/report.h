// What a modification tells its caller beside the result: warnings, and what
// became of each parameter.
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

// Collected while edits are applied. Used by one thread at a time.
class Report {
 public:
  // `edit_index` is -1 where it is about the whole. `path` is a module path or a
  // key; `message` says what is so, and what follows from it.
  void Warn(Warning::Kind kind, int edit_index, absl::string_view path,
            absl::string_view message);
  const std::vector<Warning>& warnings() const { return warnings_; }

  // What an optimizer keeps of one parameter, by its key after all edits, or its old
  // key where it was removed. Told by FollowOptimizers().
  struct OptimizerState {
    ParameterFate::OptimizerFate fate = ParameterFate::OPTIMIZER_FATE_NO_STATE;
    // Position of its parameter group; unset where it is in none.
    std::optional<int> group;
  };
  void SetOptimizer(absl::string_view section, absl::string_view key,
                    OptimizerState state) {
    optimizers_[std::string(key)][std::string(section)] = state;
  }
  // It cannot be told what an optimizer keeps of which parameter.
  void SetOptimizerUnknown() {
    unknown_state_ = ParameterFate::OPTIMIZER_FATE_UNSPECIFIED;
  }

  // One for each parameter of section `model` of the old and the new version, in
  // the order of the new one, those that are gone after them; several of one that
  // several optimizers hold.
  std::vector<ParameterFate> Fates(const WorkingCheckpoint& checkpoint) const;

 private:
  // Adds what the optimizers keep of the parameter.
  void AddFates(const ParameterFate& fate, std::vector<ParameterFate>& fates) const;

  std::vector<Warning> warnings_;
  // By key and section.
  absl::flat_hash_map<std::string, std::map<std::string, OptimizerState>> optimizers_;
  // Of a parameter of which nothing was told.
  ParameterFate::OptimizerFate unknown_state_ = ParameterFate::OPTIMIZER_FATE_NO_STATE;
};

// What became of a parameter that is in the new version: read off its origin.
ParameterFate::Fate FateOf(const WorkingTensor& tensor, const WorkingCheckpoint& of);

// Leaves out of the result what would make its message larger than a client takes, and
// names it there: the version is committed, and the answer must say so.
void FitResult(v1::ModifyCheckpointResponse::Result& result);

}  // namespace modelstore::server::modify
