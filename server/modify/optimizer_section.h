// An optimizer's section of a checkpoint under edit: its groups and the states of its
// parameters, as they are to be stored.
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

// Used by one thread at a time; the section is changed through this alone meanwhile.
class OptimizerSection {
 public:
  // Of a section that is there. FAILED_PRECONDITION, saying why, if it is not laid out
  // as an optimizer's: see CheckOptimizerLayout().
  static absl::StatusOr<OptimizerSection> Of(WorkingCheckpoint& checkpoint,
                                             absl::string_view section);

  int group_count() const;
  v1::Value& Group(int g);
  // Null if it has none. Valid until states come or go.
  const v1::Value* StateOf(int64_t id) const;

  // The parameters of a group and, where it has names or `with_names`, their names.
  void SetParameters(int g, const std::vector<int64_t>& ids,
                     const std::vector<std::string>& names, bool with_names);
  // Puts the new name wherever `param_names` has an old one.
  void RenameParameters(absl::FunctionRef<std::string(const std::string& name)> new_name);
  // Removes the states of these numbers, or of all, and their tensors.
  absl::Status Forget(absl::FunctionRef<bool(int64_t id)> gone);

  // A parameter of Adagrad's, whose state begins before its first step.
  struct Beginning {
    int64_t id = 0;
    double sum = 0;
    DType dtype = DType::kFloat32;
    std::vector<int64_t> shape;
  };
  absl::Status BeginAdagrad(const std::vector<Beginning>& parameters);

 private:
  OptimizerSection(WorkingCheckpoint& checkpoint, absl::string_view name)
      : checkpoint_(&checkpoint), name_(name) {}
  // Of the section, which does not move: its tensors do.
  v1::Value& value() const;
  v1::Value& States() const;
  v1::Value& Groups() const;
  void Index();

  WorkingCheckpoint* checkpoint_;
  std::string name_;
  // Places of `state` and `param_groups` in the section's dict.
  int states_ = 0;
  int groups_ = 0;
  // By number, its place in `state`.
  absl::flat_hash_map<int64_t, int> places_;
};

}  // namespace modelstore::server::modify
