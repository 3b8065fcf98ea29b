// Which stored tensor goes into which tensor of a module, and whether it may:
// PyTorch's `strict`, decided before a byte is touched.
#pragma once

#include <string>
#include <unordered_map>
#include <vector>

#include "client/torch/key_rules.h"
#include "client/torch/state_dict.h"
#include "modelstore/client.h"
#include "modelstore/torch.h"

namespace modelstore::torch_internal {

// Tensors of a plan by section and key.
class PlanIndex {
 public:
  explicit PlanIndex(const std::vector<TensorInfo>& tensors);

  // Before any renaming, where the plan's types are those after a cast: what is stored.
  void NoteStoredTypes(const std::vector<TensorInfo>& stored);
  // Gives the tensors of `model` the names that they have here.
  absl::Status Rename(const KeyRenames& renames, LoadReport& report);

  // Position in the plan, by its name here; -1 if it has no such tensor.
  int64_t Find(const std::string& section, const std::string& key) const;
  // Its name here.
  const std::string& KeyOf(int64_t index) const;
  // As it arrives.
  const TensorInfo& info(int64_t index) const { return (*tensors_)[index]; }
  DType stored_dtype(int64_t index) const;
  // Positions of a section's tensors, in the plan's order.
  std::vector<int64_t> Section(const std::string& section) const;
  // The position whose bytes `index` shares; itself unless it is tied to another
  // tensor of the plan.
  int64_t Root(int64_t index) const;

 private:
  const std::vector<TensorInfo>* tensors_;
  std::unordered_map<std::string, int64_t> by_name_;
  std::unordered_map<int64_t, DType> stored_dtypes_;
  // Of the tensors of `model` that are renamed, by position and by name.
  std::unordered_map<int64_t, std::string> renamed_;
  std::unordered_map<std::string, int64_t> by_new_name_;
};

struct Match {
  std::string key;
  int64_t index = 0;
  torch::Tensor target;
};

// Fills the report. Fails, naming every key concerned, where a policy says so.
// `left_out`: stored keys that the caller's filters keep from the plan; they are
// neither missing nor loaded; under their names here. `metadata`: PyTorch's, as stored.
// `entries`: those of args.module and args.extra_tensors.
absl::StatusOr<std::vector<Match>> MatchModule(
    const std::vector<StateEntry>& entries, const PlanIndex& plan, const Value& metadata,
    const std::vector<std::string>& left_out, const KeyPatterns& non_persistent,
    const LoadArgs& args, const LoadOptions& options, LoadReport& report);

}  // namespace modelstore::torch_internal
