// Walks a module in the order of PyTorch's state_dict and load_state_dict.
#pragma once

#include <functional>
#include <string>
#include <vector>

#include "client/torch/key_rules.h"
#include "modelstore/tensor.h"
#include "modelstore/torch.h"
#include "modelstore/value.h"

namespace modelstore::torch_internal {

// One entry of a state dict. `tensor` shares the module's memory.
struct StateEntry {
  std::string key;
  torch::Tensor tensor;
  TensorRole role = TensorRole::kUnspecified;
  // The version of PyTorch's class that introduced the entry; state dicts of earlier
  // versions do not have it.
  int64_t since_version = 1;
};

// As Module.state_dict(): a module's parameters, then its buffers except those that
// `non_persistent` matches, then its children.
std::vector<StateEntry> WalkState(const torch::nn::Module& module,
                                  const KeyPatterns& non_persistent = {});

// Entries of a plain state dict, which has no roles.
std::vector<StateEntry> WalkState(const StateDict& state_dict);

// Appends `extra` to a module's entries. INVALID_ARGUMENT, naming the key, if it is
// already used or its tensor is undefined.
absl::Status AddExtra(const StateDict& extra, std::vector<StateEntry>& entries);

// PyTorch's `_metadata`: module path to {"version": n}, so that Python loads the
// stored state dict with the rules of the version that wrote it.
Value StateMetadata(const torch::nn::Module& module);

// Returns the keys of `stored` that `module` does not have, in the order of
// load_state_dict: by module, outermost first.
std::vector<std::string> UnexpectedKeys(const torch::nn::Module& module,
                                        const KeyPatterns& non_persistent,
                                        const std::vector<std::string>& stored);

}  // namespace modelstore::torch_internal
