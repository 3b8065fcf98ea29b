// Maps the parameters of an optimizer to the tensors of the model. An optimizer is
// section `optimizer`, or `optimizer.NAME` for one of several. Its layout is that of
// Python's Optimizer.state_dict(), optionally with `param_names` beside the numbers in
// `params`:
//
//   {"state": {0: {"momentum_buffer": <state/0/momentum_buffer>}},
//    "param_groups": [{"lr": 0.1, "params": [0, 1],
//                      "param_names": ["fc.weight", "fc.bias"]}]}
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "server/modify/working_checkpoint.h"
#include "storage/api/types.h"

namespace modelstore::server::modify {

// Whether the section name is `optimizer` or `optimizer.NAME`.
bool IsOptimizerSection(absl::string_view section);

// The value at a string key of a dict. Null if `dict` is not a dict or has no such key.
v1::Value* FindEntry(v1::Value& dict, absl::string_view key);
const v1::Value* FindEntry(const v1::Value& dict, absl::string_view key);
// The elements of a list or tuple. Null if `value` is null or of another kind.
const google::protobuf::RepeatedPtrField<v1::Value>* ElementsOf(const v1::Value* value);

// Whether an optimizer may hold this tensor as a parameter: it is in section `model`, of
// a floating-point or complex type, and not marked as a buffer. A plain state dict has no
// roles, so its buffers count too.
bool CanBeTrained(absl::string_view section, v1::TensorRole role, DType dtype);
bool CanBeTrained(const storage::records::TensorRecord& record);

// Whether PyTorch's optimizers use this state field for a tensor with one element per
// element of the parameter, such as `exp_avg`.
bool IsElementwise(absl::string_view field);

// Checks the layout described above: `state` is a dict, and each group is a dict whose
// `params` are integers that occur only once in the optimizer. FAILED_PRECONDITION with
// the reason otherwise. Does not check values that PyTorch's step() would reject.
absl::Status CheckOptimizerLayout(const v1::Value& optimizer);

// Describes an optimizer as it is stored in the base. Edits do not change it: they move
// tensors, and an index refers to tensors by their origin. Immutable once made.
class OptimizerIndex {
 public:
  struct Parameter {
    int group = 0;
    // Its number in `params`, and its key in `state`.
    int64_t id = 0;
    // Its name in `param_names` or in the request; empty if it has none.
    std::string name;
    // Positions of its tensors in the base's manifest: several if they are tied. Empty if
    // it is not a parameter of the model, or if the optimizer is not resolved.
    std::vector<int> origins;
    bool has_state = false;
  };
  using Names = google::protobuf::RepeatedPtrField<std::string>;

  // Reads the section from the base. `position` is the index of this optimizer among
  // those of the checkpoint. `names` are the names in the request, in the order of
  // `parameters()`, for an optimizer without names: INVALID_ARGUMENT at
  // `optimizer_param_names` if they do not fit it. A section with another layout is no
  // error: see is_optimizer() and malformed().
  static absl::StatusOr<OptimizerIndex> Of(const WorkingCheckpoint& checkpoint,
                                           absl::string_view section, int position,
                                           const Names& names);

  const std::string& section() const { return section_; }
  int position() const { return position_; }
  // Whether the section has a list of groups. If not, it does not hold an optimizer, or
  // there is no such section.
  bool is_optimizer() const { return is_optimizer_; }
  // In the order of the groups, and of `params` in each.
  const std::vector<Parameter>& parameters() const { return parameters_; }
  int group_count() const { return group_count_; }
  // Whether the origins of all parameters are known: by their names, or because the
  // number of parameters and the shapes of their state leave only one choice. If not,
  // why() gives the reason.
  bool resolved() const { return why_.empty(); }
  const std::string& why() const { return why_; }
  // Whether the section has groups but fails CheckOptimizerLayout(). why() gives the
  // reason.
  bool malformed() const { return malformed_; }
  // Whether the names came with the request, so that they must be stored.
  bool named_by_request() const { return named_by_request_; }

  // The group of the tensor's origin, or, for a new tensor, the group that an edit chose.
  std::optional<int> GroupOf(const WorkingTensor& tensor) const;

 private:
  friend class OptimizerResolver;

  std::string section_;
  int position_ = 0;
  bool is_optimizer_ = false;
  bool malformed_ = false;
  bool named_by_request_ = false;
  std::string why_;
  std::vector<Parameter> parameters_;
  // Group of each tensor that is a parameter, by its position in the base's manifest.
  absl::flat_hash_map<int, int> group_of_;
  int group_count_ = 0;
};

// Several optimizers of one checkpoint, ascending by position().
using OptimizerIndexes = std::vector<const OptimizerIndex*>;

// The tensor's groups in these optimizers.
OptimizerGroups GroupsOf(const OptimizerIndexes& optimizers, const WorkingTensor& tensor);

// Finds the groups of the parameters that are nearest to a module in the module tree.
// Holds views of the checkpoint's keys, so the table of tensors must not change
// meanwhile. Construction takes time and memory proportional to the number of module
// paths above all keys; see WorkingCheckpoint::PathBytes().
class NearGroups {
 public:
  NearGroups(const OptimizerIndexes& optimizers, const WorkingCheckpoint& checkpoint);

  // The groups for new parameters at `path`, a key or a module path: the groups of the
  // parameters below the nearest enclosing module that has any. Returns one set if all
  // these agree, two different ones as examples if they do not, and none if no parameter
  // is in a group.
  std::vector<OptimizerGroups> Of(absl::string_view path) const;

 private:
  // Positions in `sets_`: the first set found below a path, and one that differs from it.
  struct Near {
    int first = 0;
    std::optional<int> other;
  };
  // The distinct sets of groups that parameters are in.
  std::vector<OptimizerGroups> sets_;
  absl::flat_hash_map<absl::string_view, Near> near_;
};

}  // namespace modelstore::server::modify
