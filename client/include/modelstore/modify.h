// Modifies stored models on the server: a new version that shares with the old one
// everything that did not change.
//
//   auto made = modelstore::ModifyCheckpoint(
//       *client, "models/vgg16/checkpoints/latest",
//       modelstore::EditList()
//           .ReplaceModule("classifier.6", "Linear(4096, 10)")
//           .SetRequiresGrad(false, {"features\\..*"}));
//   if (made.ok()) std::cout << made->checkpoint.name << made->architecture_after;
//
// Paths and keys are PyTorch's: a module is `classifier.6`, its tensor
// `classifier.6.weight`; patterns are RE2 and match a key of section `model` whole.
// modelstore/v1/edits.proto tells each edit in full. Torch-free: all of it happens
// on the server.
#pragma once

#include <atomic>
#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"
#include "modelstore/client.h"
#include "modelstore/options.h"
#include "proto/contract/dtype.h"

namespace modelstore {

// How new parameters get their first values: `torch.nn.init`, by its names. With a
// seed they are, bit for bit, what Python gives after torch.manual_seed(seed) on the
// same kind of machine with the same PyTorch.
struct Initialization {
  enum class Scheme : uint8_t {
    kDefault = 1,  // what the module's own constructor does
    kZeros,
    kOnes,
    kConstant,  // `value`
    kNormal,    // `mean`, `std`
    kUniform,   // from `low` to `high`
    kXavierUniform,
    kXavierNormal,
    kKaimingUniform,
    kKaimingNormal,
  };
  Scheme scheme = Scheme::kDefault;
  double value = 0;
  double mean = 0;
  double std = 1;
  double low = 0;
  double high = 1;
  double gain = 1;            // of xavier
  double negative_slope = 0;  // of kaiming
  bool fan_out = false;       // of kaiming
  // Absent: the server draws one and keeps it with the version.
  std::optional<uint64_t> seed;
};

// Steps of a modification, done in this order, all or none. A value type; methods
// append and return the list, so that they chain.
class EditList {
 public:
  // What a new module may say beside its type.
  struct NewModule {
    // Also appended to a forward that is written down.
    bool in_forward = false;
    Initialization initialization;
    // Absent: the group of its nearest sibling, or of what it replaces.
    std::optional<int> optimizer_group;
  };
  EditList& AddModule(std::string_view path, std::string_view module,
                      const NewModule& options);
  EditList& AddModule(std::string_view path, std::string_view module) {
    return AddModule(path, module, NewModule());
  }
  EditList& ReplaceModule(std::string_view path, std::string_view module,
                          const NewModule& options);
  EditList& ReplaceModule(std::string_view path, std::string_view module) {
    return ReplaceModule(path, module, NewModule());
  }
  EditList& RemoveModule(std::string_view path);
  EditList& RenameModule(std::string_view path, std::string_view new_name);

  enum class NewRows : uint8_t { kDefault = 1, kZeros, kMean };
  // `keep_rows` empty: the first ones.
  EditList& ResizeOutput(std::string_view path, int64_t size,
                         const std::vector<int64_t>& keep_rows = {},
                         NewRows new_rows = NewRows::kDefault,
                         std::optional<uint64_t> seed = std::nullopt);

  // `replacement` may refer to the groups of the pattern: `\\1`.
  EditList& RenameKeys(std::string_view pattern, std::string_view replacement,
                       std::string_view section = "model");
  EditList& StripPrefix(std::string_view prefix, std::string_view section = "model");
  EditList& AddPrefix(std::string_view prefix, std::string_view section = "model");
  EditList& DropKeys(const std::vector<std::string>& patterns,
                     std::string_view section = "model");
  EditList& DropSection(std::string_view section);

  // All floating-point tensors of the section, or those that a pattern matches.
  EditList& Cast(DType dtype, const std::vector<std::string>& patterns = {},
                 std::string_view section = "model");
  // All parameters, or those that a pattern matches.
  EditList& SetRequiresGrad(bool requires_grad,
                            const std::vector<std::string>& patterns = {});
  // A module or tensor of another checkpoint; `target` empty: under the same name.
  EditList& TakeFrom(std::string_view checkpoint, std::string_view source,
                     std::string_view target = "");
  // Equal shares without coefficients, which must sum to 1.
  EditList& Average(const std::vector<std::string>& checkpoints,
                    const std::vector<double>& coefficients = {},
                    const std::vector<std::string>& patterns = {});
  // `checkpoint` empty: the adapters are in the model itself.
  EditList& MergeLora(double alpha, std::string_view checkpoint = "");

  // The edit before changes only the tensors that it names, and these are tied no
  // longer. Nothing on an empty list.
  EditList& Untie();

  size_t size() const { return encoded_.size(); }
  // Each a serialized modelstore.v1.Edit.
  const std::vector<std::string>& encoded() const { return encoded_; }

 private:
  std::vector<std::string> encoded_;
};

// How far a modification is; read from any thread while it runs.
struct ModifyProgress {
  std::atomic<int> edit_index{0};
  std::atomic<int64_t> done_bytes{0};
  std::atomic<int64_t> total_bytes{0};
};

enum class OptimizerPolicy : uint8_t {
  kKeep = 1,  // the state of what did not change
  kReset,     // groups and options; all state begins anew
  kDrop,      // removes the section
};

struct ModifyOptions {
  // Of the new version; absent: the old version's.
  std::optional<int64_t> epoch;
  std::optional<int64_t> step;
  std::optional<double> loss;
  std::map<std::string, double> metrics;
  std::map<std::string, std::string> labels;
  std::string description;
  OptimizerPolicy optimizer_policy = OptimizerPolicy::kKeep;
  // See SaveOptions.
  std::string request_id;
  std::optional<int64_t> expected_latest_version;
  // Everything but the commit.
  bool validate_only = false;
  // Filled while it runs; may be null.
  std::shared_ptr<ModifyProgress> progress;
};

// modelstore/v1/operations.proto tells each field.
struct ModifyResult {
  struct Warning {
    std::string kind;     // for programs, such as `NOT_IN_FORWARD`
    int edit_index = -1;  // -1: about the whole
    std::string path;     // of a module, or a key
    std::string message;
  };
  struct Parameter {
    std::string key;
    std::string old_key;         // empty: the same
    std::string fate;            // `KEPT`, `RENAMED`, `CHANGED`, `ADDED`, `REMOVED`
    std::string optimizer_fate;  // `NO_STATE`, `STATE_KEPT`, `STATE_SLICED`, ...
    std::optional<int> optimizer_group;
  };
  // Without name and version where it was only validated.
  CheckpointInfo checkpoint;
  // As print(model) shows it; empty where it is not known.
  std::string architecture_before;
  std::string architecture_after;
  int64_t new_tensor_bytes = 0;
  int64_t stored_bytes = 0;
  // Both empty if the answer got lost and was asked for again.
  std::vector<Warning> warnings;
  std::vector<Parameter> parameters;
};

// Returns when the new version is durable. Repeated under its request_id while the
// server is away, so that it makes one version. Errors name the edit:
// `edits[2].cast.keys[0]: ...`. A deadline that passes cancels it: nothing is left.
absl::StatusOr<ModifyResult> ModifyCheckpoint(
    const Client& client, std::string_view name, const EditList& edits,
    const ModifyOptions& options = {},
    Deadline deadline = After(std::chrono::hours(1)));

// One version of a line of modifications and saves.
struct HistoryEntry {
  CheckpointInfo checkpoint;
  // `SAVED`, `MODIFIED`, `IMPORTED`, `COPIED`.
  std::string origin;
  // What made it, where it was modified: each in the JSON that grpcurl takes, with
  // the versions and seeds that were meant.
  std::vector<std::string> edits;
};

// A version and those that it comes from, newest first, as far as they still exist;
// at most `limit`.
absl::StatusOr<std::vector<HistoryEntry>> History(
    const Client& client, std::string_view name, int limit = 100,
    Deadline deadline = After(std::chrono::minutes(1)));

}  // namespace modelstore
