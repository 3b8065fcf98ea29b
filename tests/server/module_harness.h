// Checkpoints with an architecture and an optimizer, and edits of their modules.
#pragma once

#include <string>
#include <utility>
#include <vector>

#include "proto/contract/architecture/types.h"
#include "tests/server/modify_harness.h"

namespace modelstore::server {

// A module of type `Net` with these children, each given as name and text.
ModuleTree Net(const std::vector<std::pair<std::string, std::string>>& children,
               const std::vector<std::string>& forward = {});

// Groups of an optimizer, each the keys of its parameters. Each has a state: `step` and
// a field of random numbers in the parameter's shape.
struct Groups {
  std::vector<std::vector<std::string>> keys;
  // Options of each group, as names and numbers.
  std::vector<std::pair<std::string, double>> options;
  bool with_names = true;
  std::string field = "exp_avg";
  std::string section = "optimizer";
};

class ModuleEditTest : public ModifyTest {
 protected:
  // Whether SaveModule() gives section `model` the `_metadata` that PyTorch would.
  bool with_metadata_ = false;
  // The modules in `_metadata` of section `model`, each as `path: version`.
  std::vector<std::string> Metadata(const std::string& checkpoint);

  // Saves random parameters for all tensors of the module as models/m, with its
  // architecture, unless it is to be unknown.
  void SaveModule(const ModuleTree& root, const Groups& groups = {},
                  bool with_architecture = true) {
    SaveWithOptimizers(root, {groups}, with_architecture);
  }
  void SaveWithOptimizers(const ModuleTree& root, const std::vector<Groups>& optimizers,
                          bool with_architecture = true);
  // Zeros of any size: their chunks are one.
  void SaveZeros(const ModuleTree& root);

  // The optimizer's parameters by group, as `params` or `param_names` tells.
  std::vector<std::vector<std::string>> Names(const std::string& checkpoint,
                                              const std::string& section = "optimizer");
  // Bytes of a field of a parameter's state, by its name; `none` if it has none.
  std::string StateOf(const std::string& checkpoint, const std::string& key,
                      const std::string& field = "exp_avg",
                      const std::string& section = "optimizer");
  // The keys of section `model`, in order.
  std::vector<std::string> ModelKeys(const std::string& checkpoint);

 private:
  v1::Section OptimizerSection(const Groups& groups);
  const v1::Value* Optimizer(const std::string& checkpoint, const std::string& section);

  v1::Checkpoint full_;
};

}  // namespace modelstore::server
