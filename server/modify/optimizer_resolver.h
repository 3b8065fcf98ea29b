// Finds the tensor of the model for each numbered parameter of an optimizer: by name, or
// by shape if that leaves only one choice.
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

// Returns INVALID_ARGUMENT at field `optimizer_param_names[section]`.
absl::Status RefuseNames(absl::string_view section, absl::string_view what);

// Resolves one optimizer: made for one call of Run(). All arguments must outlive it.
class OptimizerResolver {
 public:
  // `optimizer` must pass CheckOptimizerLayout(). `index` is filled by Run().
  OptimizerResolver(const storage::Read& base, const v1::Value& optimizer,
                    OptimizerIndex& index);

  // Fills the parameters of the index and their origins. If these cannot be determined,
  // sets the index's reason instead. INVALID_ARGUMENT if `names` is not empty and does
  // not fit.
  absl::Status Run(const OptimizerIndex::Names& names);

 private:
  using Shape = std::vector<int64_t>;

  // A parameter of the model. Tied tensors are one parameter with several origins.
  struct Place {
    std::vector<int> origins;
    Shape shape;
    // Assigned to a parameter of the optimizer.
    bool taken = false;
    // One of the tensors requires gradients, or has no role that tells. Only such a
    // parameter is assigned by shape.
    bool may_be_trained = false;
  };

  // Fills `places_` and `place_of_`.
  void ReadModel();
  // Adds the parameters to the index, with their names if there are any.
  void ReadGroups();
  // Sets the names of the request, after checking them against the model and the state.
  absl::Status TakeRequestNames(const OptimizerIndex::Names& names);
  // Each assigns what it can and returns why a parameter cannot be identified; empty if
  // there is no such reason.
  std::string ByNames();
  std::string ByShapes();
  void Assign(OptimizerIndex::Parameter& parameter, Place& place);
  // Shape of the parameter's elementwise state; null if it has none.
  const Shape* ShapeOfState(int64_t id) const;

  const storage::Read& base_;
  const v1::Value& optimizer_;
  OptimizerIndex& index_;
  std::vector<Place> places_;
  // Position in `places_`, by key.
  absl::flat_hash_map<std::string, size_t> place_of_;
  // By number: shape of the elementwise state.
  absl::flat_hash_map<int64_t, Shape> state_shapes_;
  // Numbers with a state that is not empty.
  absl::flat_hash_set<int64_t> with_state_;
  // Whether a name is given, for each parameter of the index. A name may be one that no
  // parameter of the model has: that parameter belongs to something else.
  std::vector<bool> named_;
};

}  // namespace modelstore::server::modify
