// Matches stored tensors with the tensors of a module and applies PyTorch's `strict`
// rules, before any byte is changed.
#pragma once

#include <string>
#include <unordered_map>
#include <vector>

#include "client/torch/key_rules.h"
#include "client/torch/state_dict.h"
#include "modelstore/client.h"
#include "modelstore/torch.h"

namespace modelstore::torch_internal {

// Index of a plan's tensors by section and key. A position is an index in
// LoadPlan::tensors(). `tensors` of the constructor must outlive it.
class PlanIndex {
 public:
  explicit PlanIndex(const std::vector<TensorInfo>& tensors);

  // Records the stored dtypes, if the plan has those after a cast. Call it before
  // Rename().
  void NoteStoredTypes(const std::vector<TensorInfo>& stored);
  // Applies renames to the keys of section `model` and reports them.
  absl::Status Rename(const KeyRenames& renames, LoadReport& report);

  // Returns the position of a tensor by its key after renaming; -1 if there is none.
  int64_t Find(const std::string& section, const std::string& key) const;
  // The key after renaming.
  const std::string& KeyOf(int64_t index) const;
  // The description as delivered: after slices and casts, with the stored key.
  const TensorInfo& info(int64_t index) const { return (*tensors_)[index]; }
  // The dtype in the checkpoint.
  DType stored_dtype(int64_t index) const;
  // The positions of a section's tensors, in the plan's order.
  std::vector<int64_t> Section(const std::string& section) const;
  // The position whose bytes `index` shares: `index` itself, unless it is tied to another
  // tensor of the plan.
  int64_t Root(int64_t index) const;

 private:
  const std::vector<TensorInfo>* tensors_;
  std::unordered_map<std::string, int64_t> by_name_;
  std::unordered_map<int64_t, DType> stored_dtypes_;
  // Keys of section `model` after renaming: by position those that changed, and by new
  // key all of them.
  std::unordered_map<int64_t, std::string> renamed_;
  std::unordered_map<std::string, int64_t> by_new_name_;
};

// A tensor of the module and the plan position that is loaded into it.
struct Match {
  std::string key;
  int64_t index = 0;
  torch::Tensor target;
};

// Matches `entries`, which are those of args.module and args.extra_tensors, with the plan
// and fills the report. FAILED_PRECONDITION, naming every key concerned, if a policy is
// kFail. `left_out` are keys, after renaming, that the selection excludes; they are
// skipped instead of missing. `metadata` is the stored `_metadata`.
absl::StatusOr<std::vector<Match>> MatchModule(
    const std::vector<StateEntry>& entries, const PlanIndex& plan, const Value& metadata,
    const std::vector<std::string>& left_out, const KeyPatterns& non_persistent,
    const LoadArgs& args, const LoadOptions& options, LoadReport& report);

}  // namespace modelstore::torch_internal
