// What a load into a module, a state dict or an optimizer found: see torch.h.
#pragma once

#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "modelstore/tensor.h"

namespace modelstore {

// What a load found, key by key. Filled also when the load is refused.
struct LoadReport {
  std::vector<std::string> missing;     // in the module, not in the checkpoint
  std::vector<std::string> unexpected;  // in the checkpoint, not in the module
  struct ShapeMismatch {
    std::string key;
    std::vector<int64_t> stored, wanted;
  };
  std::vector<ShapeMismatch> shape_mismatch;
  struct DTypeChange {
    std::string key;
    DType stored, wanted;
  };
  std::vector<DTypeChange> dtype_change;
  std::vector<std::string> absent_sections;  // asked for, not in the checkpoint
  // As text; empty where that side has none.
  struct SettingChange {
    std::string name;  // `optimizer:param_groups/0/lr`
    std::string stored, here;
  };
  std::vector<SettingChange> hyperparameters;  // the stored ones were taken
  std::vector<SettingChange> settings;         // those here stayed
  // Pairs of names that share memory here and differ in the checkpoint: the one
  // overwritten, the one that was kept.
  std::vector<std::pair<std::string, std::string>> overwritten;
  // What options.target_dtype left as it is: complex, integers, booleans.
  std::vector<std::string> uncast;
  // Left alone: by the selection, because no such section or option is
  // known here or there, because no group of the stored optimizer lists the
  // parameter that a state is of, or because the state dict is of a version of
  // PyTorch that had no such buffer (`num_batches_tracked` without `_metadata`).
  std::vector<std::string> skipped;
  // Keys of section `model` that have another name here: stored, here.
  std::vector<std::pair<std::string, std::string>> renamed;
  // Devices that gave way to the CPU, with the reason of each.
  std::vector<std::string> fell_back;
  // Patterns of LoadArgs::placement that decided for no tensor.
  std::vector<std::string> unused_placement;
  // Sections of optimizers whose state was adopted in parameter order, without names.
  std::vector<std::string> inferred;
  // After a transfer that failed: tensors that hold new bytes, that are as they
  // were, and whose bytes are undefined.
  std::vector<std::string> loaded, untouched, undefined;

  // Several lines for a person.
  std::string ToString() const;
};

}  // namespace modelstore
