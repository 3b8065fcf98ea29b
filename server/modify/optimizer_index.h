// Which parameter is where in an optimizer: section `optimizer`, or `optimizer.NAME` of
// several, laid out as Python's Optimizer.state_dict() is, with names beside the numbers:
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

// `optimizer`, `optimizer.NAME`.
bool IsOptimizerSection(absl::string_view section);

// The value under a string key of a dict; null if it is no dict or has none.
v1::Value* FindEntry(v1::Value& dict, absl::string_view key);
const v1::Value* FindEntry(const v1::Value& dict, absl::string_view key);
// The elements of a list or tuple; null if it is neither.
const google::protobuf::RepeatedPtrField<v1::Value>* ElementsOf(const v1::Value* value);

// Whether a tensor may be a parameter that an optimizer holds: one of `model` that is no
// buffer, of a type that has gradients. Plain state dicts have no roles.
bool CanBeTrained(absl::string_view section, v1::TensorRole role, DType dtype);
bool CanBeTrained(const storage::records::TensorRecord& record);

// State of the shape of its parameter, element by element, in PyTorch's optimizers.
bool IsElementwise(absl::string_view field);

// FAILED_PRECONDITION, saying why, unless `optimizer` is laid out as above: `state` a
// dict, each group a dict whose `params` are integers that no other has. Values that
// PyTorch's step() would reject are not checked.
absl::Status CheckOptimizerLayout(const v1::Value& optimizer);

// As the base was saved: edits move tensors, not what an optimizer calls them.
class OptimizerIndex {
 public:
  struct Parameter {
    int group = 0;
    // Its number in `params` and `state`.
    int64_t id = 0;
    // What `param_names` calls it; empty where there are no names.
    std::string name;
    // Positions in the base's manifest of the tensors that it is: several if tied.
    // Empty if it is none of the model's, or the optimizer does not tell.
    std::vector<int> origins;
    bool has_state = false;
  };
  using Names = google::protobuf::RepeatedPtrField<std::string>;

  // Of a section of the base. `position` tells it from the other optimizers of the
  // checkpoint. `names` are those of the request, for an optimizer that has none:
  // INVALID_ARGUMENT at `optimizer_param_names` if they do not fit it.
  static absl::StatusOr<OptimizerIndex> Of(const WorkingCheckpoint& checkpoint,
                                           absl::string_view section, int position,
                                           const Names& names);

  const std::string& section() const { return section_; }
  int position() const { return position_; }
  // There is a list of groups. Otherwise the section is no optimizer's, or missing.
  bool is_optimizer() const { return is_optimizer_; }
  // In order of the groups.
  const std::vector<Parameter>& parameters() const { return parameters_; }
  int group_count() const { return group_count_; }
  // Each parameter's origins are known: by names, or because the number of parameters
  // and the shapes of their state allow no other. Otherwise why() says what lacks.
  bool resolved() const { return why_.empty(); }
  const std::string& why() const { return why_; }
  // It is not laid out as an optimizer's section is, as why() says.
  bool malformed() const { return malformed_; }
  // Names came with the request and are to be written down.
  bool named_by_request() const { return named_by_request_; }

  // The group of what a tensor was, or of one that is new what it was given.
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
  // By position in the base's manifest.
  absl::flat_hash_map<int, int> group_of_;
  int group_count_ = 0;
};

// Several optimizers of one checkpoint, in their order.
using OptimizerIndexes = std::vector<const OptimizerIndex*>;

// The tensor's groups in these optimizers.
OptimizerGroups GroupsOf(const OptimizerIndexes& optimizers, const WorkingTensor& tensor);

// The groups that parameters are in, by the modules above them. A view of a checkpoint
// that does not change meanwhile.
class NearGroups {
 public:
  NearGroups(const OptimizerIndexes& optimizers, const WorkingCheckpoint& checkpoint);

  // The groups that new parameters under the module at `path` join: those of its
  // nearest relatives, beginning with its siblings. Two sets where these differ; none if
  // no relative is in any group.
  std::vector<OptimizerGroups> Of(absl::string_view path) const;

 private:
  // Positions in sets_: the first below a path, and another one if there is one.
  struct Near {
    int first = 0;
    std::optional<int> other;
  };
  std::vector<OptimizerGroups> sets_;
  absl::flat_hash_map<absl::string_view, Near> near_;
};

}  // namespace modelstore::server::modify
