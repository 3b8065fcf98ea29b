// LoadReport: differences between a checkpoint and the program that loads it (torch.h).
#pragma once

#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "modelstore/tensor.h"

namespace modelstore {

// What a load found, key by key. Filled also if the load fails. `Stored` means in the
// checkpoint; `wanted` and `here` mean in the module, optimizer or scheduler.
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
  std::vector<std::string> absent_sections;  // requested, not in the checkpoint
  // Values as text; empty where that side has no such setting.
  struct SettingChange {
    std::string name;  // `optimizer:param_groups/0/lr`
    std::string stored, here;
  };
  std::vector<SettingChange> hyperparameters;  // the stored values were loaded
  std::vector<SettingChange> settings;         // the values here were kept
  // Pairs of tensors that share memory here and have different stored values: the name
  // that was overwritten, and the name whose values were kept.
  std::vector<std::pair<std::string, std::string>> overwritten;
  // Tensors that options.target_dtype does not apply to: complex, integers, booleans.
  std::vector<std::string> uncast;
  // Not loaded: excluded by the selection; a section or option that only one side has;
  // optimizer state of a parameter that no stored group lists; a buffer that the PyTorch
  // version that saved the state dict did not have (`num_batches_tracked` without
  // `_metadata`).
  std::vector<std::string> skipped;
  // Keys of section `model` with another name here: {stored name, name here}.
  std::vector<std::pair<std::string, std::string>> renamed;
  // Devices whose tensors went to the CPU instead, with the reason of each.
  std::vector<std::string> fell_back;
  // Patterns of LoadArgs::placement that placed no tensor.
  std::vector<std::string> unused_placement;
  // Optimizer sections whose state was assigned by parameter order, without names.
  std::vector<std::string> inferred;
  // Filled if the transfer fails: tensors with their new bytes, tensors that are
  // unchanged, and tensors whose bytes are undefined.
  std::vector<std::string> loaded, untouched, undefined;

  // Returns the report as text of several lines.
  std::string ToString() const;
};

}  // namespace modelstore
