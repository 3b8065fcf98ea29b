// Access to an optimizer's section of a checkpoint under edit: its parameter groups, and
// the state of each parameter.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/container/flat_hash_set.h"
#include "absl/functional/function_ref.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "server/modify/working_checkpoint.h"

namespace modelstore::server::modify {

// Used by one thread at a time. While it exists, the section must not be changed in any
// other way. The checkpoint must outlive it.
class OptimizerSection {
 public:
  // Opens an existing section. FAILED_PRECONDITION with the reason if its layout is not
  // that of an optimizer: see CheckOptimizerLayout().
  static absl::StatusOr<OptimizerSection> Of(WorkingCheckpoint& checkpoint,
                                             absl::string_view section);

  int group_count() const;
  // The dict of a parameter group, with `params`, `param_names` and options.
  v1::Value& Group(int g);
  // State of a parameter by its number; null if it has none. Valid until states are added
  // or removed.
  const v1::Value* StateOf(int64_t id) const;

  // Replaces `params` of a group, and `param_names` if the group has it or `with_names`
  // is set. `ids` and `names` correspond.
  void SetParameters(int g, const std::vector<int64_t>& ids,
                     const std::vector<std::string>& names, bool with_names);
  // Replaces each name in `param_names` of all groups.
  void RenameParameters(absl::FunctionRef<std::string(const std::string& name)> new_name);
  // Removes the states for whose numbers `gone` returns true, with their tensors, except
  // those that a remaining state refers to.
  absl::Status Forget(absl::FunctionRef<bool(int64_t id)> gone);

  // A parameter of Adagrad, which requires state before the first step.
  struct Beginning {
    int64_t id = 0;
    double sum = 0;
    DType dtype = DType::kFloat32;
    std::vector<int64_t> shape;
  };
  // Adds the initial state of these parameters: `step` is 0, and each element of `sum`
  // has the given value. They must not have state. New tensors go to the end of the
  // table.
  absl::Status BeginAdagrad(const std::vector<Beginning>& parameters);

 private:
  OptimizerSection(WorkingCheckpoint& checkpoint, absl::string_view name)
      : checkpoint_(&checkpoint), name_(name) {}
  // Looked up at each call: cheap, and never dangling.
  v1::Value& value() const;
  v1::Value& States() const;
  v1::Value& Groups() const;
  void Index();

  WorkingCheckpoint* checkpoint_;
  std::string name_;
  // Positions of `state` and `param_groups` among the entries of the section's dict.
  int states_ = 0;
  int groups_ = 0;
  // Position of the entry in `state`, by the parameter's number.
  absl::flat_hash_map<int64_t, int> places_;
};

}  // namespace modelstore::server::modify
