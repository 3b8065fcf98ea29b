// Which parameter is where in the optimizer: the section `optimizer`, laid out as
// Python's Optimizer.state_dict() is, with names beside the numbers:
//
//   {"state": {0: {"momentum_buffer": <state/0/momentum_buffer>}},
//    "param_groups": [{"lr": 0.1, "params": [0, 1],
//                      "param_names": ["fc.weight", "fc.bias"]}]}
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "server/modify/working_checkpoint.h"

namespace modelstore::server::modify {

inline constexpr absl::string_view kOptimizer = "optimizer";

// The value under a string key of a dict; null if it is no dict or has none.
v1::Value* FindEntry(v1::Value& dict, absl::string_view key);
const v1::Value* FindEntry(const v1::Value& dict, absl::string_view key);
// The elements of a list or tuple; null if it is neither.
const google::protobuf::RepeatedPtrField<v1::Value>* ElementsOf(const v1::Value* value);

// As the base was saved: edits move tensors, not what the optimizer calls them.
class OptimizerIndex {
 public:
  struct Parameter {
    int group = 0;
    // Its number in `params` and `state`.
    int64_t id = 0;
    // Positions in the base's manifest of the tensors that it is: several if tied.
    // Empty if the optimizer does not tell.
    std::vector<int> origins;
    bool has_state = false;
  };

  // Of what the base holds; without parameters if that is no optimizer.
  static absl::StatusOr<OptimizerIndex> Of(const WorkingCheckpoint& checkpoint);

  // In order of the groups.
  const std::vector<Parameter>& parameters() const { return parameters_; }
  int group_count() const { return group_count_; }
  // Each parameter's origins are known: by their names, or, where groups have no
  // names, because there are as many as the model has.
  bool resolved() const { return resolved_; }

  // The group of what a tensor was, or of one that is new what it was given.
  std::optional<int> GroupOf(const WorkingTensor& tensor) const;
  // The group that new parameters under the module at `path` join: the one of its
  // nearest relatives, beginning with its siblings. Several where these are in
  // several; none if there is no group at all.
  std::vector<int> GroupsNear(absl::string_view path,
                              const WorkingCheckpoint& checkpoint) const;

 private:
  void Resolve(const v1::Value& groups, const WorkingCheckpoint& checkpoint);

  std::vector<Parameter> parameters_;
  // By position in the base's manifest; -1: none.
  std::vector<int> group_of_;
  int group_count_ = 0;
  bool resolved_ = true;
};

}  // namespace modelstore::server::modify
