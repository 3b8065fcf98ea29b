// Walks of a module in the order of PyTorch's state_dict and load_state_dict.
#pragma once

#include <functional>
#include <string>
#include <vector>

#include "client/torch/key_rules.h"
#include "modelstore/tensor.h"
#include "modelstore/torch.h"
#include "modelstore/value.h"

namespace modelstore::torch_internal {

// One entry of a state dict. `tensor` is the module's own.
struct StateEntry {
  std::string key;
  torch::Tensor tensor;
  TensorRole role = TensorRole::kUnspecified;
  // The version of PyTorch's class that brought it: a state dict of an earlier one
  // does without.
  int64_t since_version = 1;
};

// As Module.state_dict(): a module's parameters, its buffers but for those that the
// patterns name, its children.
std::vector<StateEntry> WalkState(const torch::nn::Module& module,
                                  const KeyPatterns& non_persistent = {});

// Entries of a plain state dict, which tells no roles.
std::vector<StateEntry> WalkState(const StateDict& state_dict);

// Adds `extra_tensors` behind a module's. INVALID_ARGUMENT, naming the key, for one that
// is taken or whose tensor is undefined.
absl::Status AddExtra(const StateDict& extra, std::vector<StateEntry>& entries);

// PyTorch's `_metadata`: module path to {"version": n}, so that Python loads the
// stored state dict with the rules of the version that wrote it.
Value StateMetadata(const torch::nn::Module& module);

// The keys of `stored` that `module` has no place for, in the order in which
// load_state_dict lists them: by module, outermost first.
std::vector<std::string> UnexpectedKeys(const torch::nn::Module& module,
                                        const KeyPatterns& non_persistent,
                                        const std::vector<std::string>& stored);

}  // namespace modelstore::torch_internal
