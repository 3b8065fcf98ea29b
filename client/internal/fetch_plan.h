// Fetches the plan of a load from the server.
#pragma once

#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "modelstore/connection.h"
#include "modelstore/options.h"
#include "modelstore/v1/checkpoint_transfer.pb.h"

namespace modelstore::internal {

struct FetchedPlan {
  v1::Checkpoint checkpoint;
  std::string resume_token;
  int64_t total_bytes = 0;
  std::vector<v1::Tensor> tensors;
  std::vector<v1::Section> sections;
  // Received slices of the last section.
  std::string section_bytes;
  bool complete = false;
};

// One attempt, without retries. A plan that ends early is UNAVAILABLE.
absl::StatusOr<FetchedPlan> FetchPlan(Connection& connection, const std::string& name,
                                      const LoadOptions& options, Deadline deadline);

}  // namespace modelstore::internal
