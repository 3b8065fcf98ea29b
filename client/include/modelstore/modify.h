// Modifies a stored version on the server. The result is a new version, which shares all
// unchanged data with the old one.
//
//   auto made = modelstore::ModifyCheckpoint(
//       *client, "models/vgg16/checkpoints/latest",
//       modelstore::EditList()
//           .ReplaceModule("classifier.6", "Linear(4096, 10)")
//           .SetRequiresGrad(false, {"features\\..*"}));
//   if (made.ok()) std::cout << made->checkpoint.name << made->architecture_after;
//
// edit_list.h has the edits. Does not need torch: the server does all the work.
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

// Progress of a modification. Any thread may read it while the call runs.
struct ModifyProgress {
  // Index of the edit in progress.
  std::atomic<int> edit_index{0};
  // Bytes of tensors to read and write; the total grows while edits are planned. Edits
  // that only rename or share have none.
  std::atomic<int64_t> done_bytes{0};
  std::atomic<int64_t> total_bytes{0};
};

// What the new version has of the optimizers' sections. Applies to every optimizer.
enum class OptimizerPolicy : uint8_t {
  kKeep = 1,  // the state of unchanged parameters
  kReset,     // groups and options only; no state
  kDrop,      // nothing: the sections are removed
};

struct ModifyOptions {
  // Metadata of the new version. Epoch, step, loss and metrics are copied from the old
  // version where absent here; labels and description are not copied.
  CheckpointMetadata metadata = {};
  OptimizerPolicy optimizer_policy = OptimizerPolicy::kKeep;
  // Parameter names of stored optimizers that have none, such as those saved by Python.
  // Section, such as `optimizer`, to names, in the order of the groups and of `params`
  // within each group.
  std::map<std::string, std::vector<std::string>> optimizer_param_names = {};
  // See SaveOptions.
  std::string request_id = {};
  std::optional<int64_t> expected_latest_version = {};
  // Validates and reports without committing.
  bool validate_only = false;
  // Updated while the call runs; may be null.
  std::shared_ptr<ModifyProgress> progress = {};
  // Once it has passed, the modification is cancelled and leaves nothing behind.
  std::optional<Deadline> deadline = {};
};

// The new version and a report of what the edits did.
struct ModifyResult {
  // A result that PyTorch allows but the caller may not have intended.
  struct Warning {
    enum class Kind : uint8_t {
      kUnknown,                 // a kind that this library does not know: see message
      kNotInForward,            // a module was added that no forward reaches
      kShapesDoNotFit,          // sizes do not match those of a neighbour
      kStatisticsAveraged,      // running statistics of a normalization were averaged
      kTensorMissing,           // a module lacks a tensor of its type
      kTensorWithoutModule,     // a tensor belongs to no module of the architecture
      kArchitectureIncomplete,  // the architecture is unknown, dropped or incomplete
      kUntied,                  // EditList::Untie() separated tied tensors
      kOptimizerStateReset,     // parameters changed, so their optimizer state was reset
      kOptimizerNotFollowed,    // not an optimizer's state dict: the section is unchanged
      kTensorsNotTaken,         // tensors of the other checkpoint were not used
    };
    Kind kind = Kind::kUnknown;
    std::optional<int> edit_index;  // absent: not about a single edit
    std::string path;               // module path, or key
    std::string message;            // for people
  };
  // What happened to one parameter and to its state in an optimizer. A parameter of
  // several optimizers is listed once for each.
  struct Parameter {
    // kRenamed: same bytes, other key. kChanged: other bytes, shape or dtype.
    enum class Fate : uint8_t { kUnknown, kKept, kRenamed, kChanged, kAdded, kRemoved };
    enum class OptimizerFate : uint8_t {
      kUnknown,       // the optimizer's parameters have no names
      kNoState,       // had no state and has none
      kStateKept,     // bit for bit
      kStateSliced,   // rows kept as those of the parameter
      kStateReset,    // removed: the optimizer starts without it
      kStateDropped,  // removed with the parameter or with the section
    };
    std::string key;      // after all edits; of a removed parameter, the old key
    std::string old_key;  // empty: equal to `key`
    Fate fate = Fate::kUnknown;
    OptimizerFate optimizer_fate = OptimizerFate::kUnknown;
    std::optional<int> optimizer_group;  // absent: in none
    std::string optimizer;               // its section; empty: none, or unknown
  };
  // The new version. Without name and version if validate_only.
  CheckpointInfo checkpoint;
  // The model as print(model) shows it; empty if the architecture is unknown.
  std::string architecture_before;
  std::string architecture_after;
  // Bytes of tensors that the old version does not have.
  int64_t new_tensor_bytes = 0;
  // Of new_tensor_bytes: bytes that were not in the store yet.
  int64_t stored_bytes = 0;
  // Fields that the server omitted because the response would exceed 4 MiB, such as
  // `architecture_before`. Use Client::ListTensors and PrintArchitecture() for the
  // content.
  std::vector<std::string> omitted;
  // Both are empty if the response was lost and the call was repeated.
  std::vector<Warning> warnings;
  std::vector<Parameter> parameters;
};

std::string_view ToString(ModifyResult::Warning::Kind kind);
std::string_view ToString(ModifyResult::Parameter::Fate fate);
std::string_view ToString(ModifyResult::Parameter::OptimizerFate fate);

// Applies `edits` to version `name` (a version, an alias or `latest`). Returns when the
// new version is durable. Retried with the same request_id, so that it creates one
// version only. Errors name the edit: `edits[2].cast.keys[0]: ...`.
[[nodiscard]] absl::StatusOr<ModifyResult> ModifyCheckpoint(
    const Client& client, std::string_view name, const EditList& edits,
    const ModifyOptions& options = {});

// One version in the history of a checkpoint.
struct HistoryEntry {
  CheckpointInfo checkpoint;
  // The edits that created it; empty if it was not modified. Each is JSON as grpcurl
  // accepts it, with the versions and seeds that were used.
  std::vector<std::string> edits;
};

struct HistoryOptions {
  // Maximum number of entries. Each costs one call to the server.
  int limit = 100;
  std::optional<Deadline> deadline = {};
};

// Returns version `name` and its ancestors, newest first, as long as they exist.
Listing<HistoryEntry> History(const Client& client, std::string_view name,
                              const HistoryOptions& options = {});

}  // namespace modelstore
