// Checks that each module accepts the output of the module before it.
#pragma once

#include <string>
#include <vector>

#include "proto/contract/architecture/types.h"

namespace modelstore::server::modify {

// Two consecutive modules whose sizes differ.
struct Mismatch {
  // Path of the second one.
  std::string path;
  // `takes 1000 features, classifier.6 before it gives 10`.
  std::string message;

  bool operator==(const Mismatch& other) const {
    return path == other.path && message == other.message;
  }
};

// Returns the mismatches in the order of execution. Sizes are known only as far as they
// follow from arguments: features of linear layers and embeddings, channels of
// convolutions, and modules that preserve them, such as activations. The size is unknown
// after anything that may reshape (Flatten, a step that is not a module, an unknown
// type), so nothing that may be valid is reported.
std::vector<Mismatch> FindMismatches(const ModuleTree& root);

}  // namespace modelstore::server::modify
