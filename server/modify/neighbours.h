// Whether each module takes what the one before it gives.
#pragma once

#include <string>
#include <vector>

#include "proto/contract/architecture/types.h"

namespace modelstore::server::modify {

// Two modules that run one after the other and whose sizes do not fit.
struct Mismatch {
  // Path of the one that takes.
  std::string path;
  // `takes 1000 features, classifier.6 before it gives 10`.
  std::string message;

  bool operator==(const Mismatch& other) const {
    return path == other.path && message == other.message;
  }
};

// In order of the forward, as far as sizes follow from arguments: features of linear
// layers and embeddings, channels of convolutions, and what keeps them as they are.
// What reshapes (Flatten, a step that is no module, an unknown type) begins anew, so
// that nothing is reported that might fit.
std::vector<Mismatch> FindMismatches(const ModuleTree& root);

}  // namespace modelstore::server::modify
