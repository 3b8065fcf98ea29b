// Finds the parameters of a model that an optimizer's numbers stand for: by names, or
// by what number and shapes leave open.
#pragma once

#include <string>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/container/flat_hash_set.h"
#include "absl/status/status.h"
#include "absl/strings/string_view.h"
#include "server/modify/optimizer_index.h"
#include "storage/api/reads.h"

namespace modelstore::server::modify {

// INVALID_ARGUMENT at `optimizer_param_names[section]`.
absl::Status RefuseNames(absl::string_view section, absl::string_view what);

// Used once. All arguments outlive it.
class OptimizerResolver {
 public:
  // `optimizer` is laid out as it should be.
  OptimizerResolver(const storage::Read& base, const v1::Value& optimizer,
                    OptimizerIndex& index);

  // Fills the index's parameters. INVALID_ARGUMENT if the request's names do not fit.
  absl::Status Run(const OptimizerIndex::Names& names);

 private:
  using Shape = std::vector<int64_t>;

  // A parameter of the model: what is tied together is one.
  struct Place {
    std::vector<int> origins;
    Shape shape;
    bool taken = false;
    bool may_be_trained = false;
  };

  void ReadModel();
  void ReadGroups();
  absl::Status TakeRequestNames(const OptimizerIndex::Names& names);
  // Returns why they cannot be told; empty if they can.
  std::string ByNames();
  std::string ByShapes();
  void Assign(OptimizerIndex::Parameter& parameter, Place& place);
  // Of a state that is element by element; null if there is none.
  const Shape* ShapeOfState(int64_t id) const;

  const storage::Read& base_;
  const v1::Value& optimizer_;
  OptimizerIndex& index_;
  std::vector<Place> places_;
  // By each key of a parameter.
  absl::flat_hash_map<std::string, size_t> place_of_;
  absl::flat_hash_map<int64_t, Shape> state_shapes_;
  absl::flat_hash_set<int64_t> with_state_;
  // Which of the index's parameters have a name, that of no parameter included.
  std::vector<bool> named_;
};

}  // namespace modelstore::server::modify
