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
// edit_list.h has the edits. Torch-free: all of it happens on the server.
#pragma once

#include <atomic>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"
#include "modelstore/client.h"
#include "modelstore/edit_list.h"
#include "modelstore/options.h"

namespace modelstore {

// How far a modification is; read from any thread while it runs.
struct ModifyProgress {
  std::atomic<int> edit_index{0};
  std::atomic<int64_t> done_bytes{0};
  std::atomic<int64_t> total_bytes{0};
};

// For every optimizer of the checkpoint.
enum class OptimizerPolicy : uint8_t {
  kKeep = 1,  // the state of what did not change
  kReset,     // groups and options; all state begins anew
  kDrop,      // removes the sections
};

struct ModifyOptions {
  // Of the new version. Epoch, step, loss and metrics that are absent are the old
  // version's; labels and description never are.
  CheckpointMetadata metadata = {};
  OptimizerPolicy optimizer_policy = OptimizerPolicy::kKeep;
  // By section, such as `optimizer`, names of a stored optimizer's parameters where it
  // has none, as one that Python saved: in the order of its groups and of `params` in
  // each.
  std::map<std::string, std::vector<std::string>> optimizer_param_names = {};
  // See SaveOptions.
  std::string request_id = {};
  std::optional<int64_t> expected_latest_version = {};
  // Everything but the commit.
  bool validate_only = false;
  // Filled while it runs; may be null.
  std::shared_ptr<ModifyProgress> progress = {};
  // Once it has passed, the modification is cancelled, and nothing is left of it.
  std::optional<Deadline> deadline = {};
};

// modelstore/v1/operations.proto tells each field.
struct ModifyResult {
  // Something that PyTorch allows and that a caller may not have meant.
  struct Warning {
    enum class Kind : uint8_t {
      kUnknown,  // one that this library does not know: see message
      kNotInForward,
      kShapesDoNotFit,
      kStatisticsAveraged,
      kTensorMissing,
      kTensorWithoutModule,
      kArchitectureIncomplete,
      kUntied,
      kOptimizerStateReset,
      kOptimizerNotFollowed,
      kTensorsNotTaken,
    };
    Kind kind = Kind::kUnknown;
    std::optional<int> edit_index;  // absent: about the whole
    std::string path;               // of a module, or a key
    std::string message;
  };
  // What became of one parameter, and of its state in an optimizer. One that several
  // optimizers hold is listed once for each.
  struct Parameter {
    enum class Fate : uint8_t { kUnknown, kKept, kRenamed, kChanged, kAdded, kRemoved };
    enum class OptimizerFate : uint8_t {
      kUnknown,  // the optimizer does not tell which parameters it holds
      kNoState,
      kStateKept,
      kStateSliced,
      kStateReset,
      kStateDropped,
    };
    std::string key;
    std::string old_key;  // empty: the same
    Fate fate = Fate::kUnknown;
    OptimizerFate optimizer_fate = OptimizerFate::kUnknown;
    std::optional<int> optimizer_group;
    std::string optimizer;  // its section; empty: none, or not known
  };
  // Without name and version where it was only validated.
  CheckpointInfo checkpoint;
  // As print(model) shows it; empty where it is not known.
  std::string architecture_before;
  std::string architecture_after;
  int64_t new_tensor_bytes = 0;
  int64_t stored_bytes = 0;
  // Fields of the answer that the server left out because it would exceed 4 MiB, such as
  // `architecture_before`. Client::ListTensors and LoadModel give the content.
  std::vector<std::string> omitted;
  // Both empty if the answer got lost and was asked for again.
  std::vector<Warning> warnings;
  std::vector<Parameter> parameters;
};

std::string_view ToString(ModifyResult::Warning::Kind kind);
std::string_view ToString(ModifyResult::Parameter::Fate fate);
std::string_view ToString(ModifyResult::Parameter::OptimizerFate fate);

// Returns when the new version is durable. Repeated under its request_id while the
// server is away, so that it makes one version. Errors name the edit:
// `edits[2].cast.keys[0]: ...`.
[[nodiscard]] absl::StatusOr<ModifyResult> ModifyCheckpoint(
    const Client& client, std::string_view name, const EditList& edits,
    const ModifyOptions& options = {});

// One version of a line of modifications and saves.
struct HistoryEntry {
  CheckpointInfo checkpoint;
  // What made it, where it was modified: each in the JSON that grpcurl takes, with
  // the versions and seeds that were meant.
  std::vector<std::string> edits;
};

struct HistoryOptions {
  // At most so many, each of which is one call to the server.
  int limit = 100;
  std::optional<Deadline> deadline = {};
};

// A version and those that it comes from, newest first, as far as they still exist.
Listing<HistoryEntry> History(const Client& client, std::string_view name,
                              const HistoryOptions& options = {});

}  // namespace modelstore
