// Models: named lines of versions.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "modelstore/storage/v1/records.pb.h"
#include "storage/api/types.h"

namespace modelstore::storage {

// Named lines of versions.
class Models {
 public:
  virtual ~Models() = default;
  // `model` gives model_id, digest_algorithm (0: XXH3-128), description, labels
  // and extra; the rest is filled in. ALREADY_EXISTS.
  virtual absl::StatusOr<records::ModelRecord> Create(
      const records::ModelRecord& model) = 0;
  virtual absl::StatusOr<records::ModelRecord> Get(absl::string_view model_id) = 0;
  virtual absl::StatusOr<Page<records::ModelRecord>> List(absl::string_view prefix,
                                                          absl::string_view after,
                                                          int limit) = 0;
  // Changes the fields that are set.
  struct Update {
    std::optional<std::string> description;
    std::optional<google::protobuf::Map<std::string, std::string>> labels;
    std::optional<std::string> extra;
  };
  virtual absl::StatusOr<records::ModelRecord> Change(absl::string_view model_id,
                                                      const Update& update,
                                                      const ChangeOptions& options) = 0;
  // FAILED_PRECONDITION if it has checkpoints, unless `force`; or, `force` or not,
  // if something holds one of them (names it).
  virtual absl::StatusOr<Freed> Delete(absl::string_view model_id, bool force,
                                       const ChangeOptions& options) = 0;

  // Events of a model after this generation, oldest first, at most `limit`. Each
  // change is one generation. OUT_OF_RANGE if those events have been trimmed.
  struct Event {
    uint64_t generation = 0;
    records::EventRecord record;
  };
  virtual absl::StatusOr<std::vector<Event>> Events(const records::ModelRecord& model,
                                                    uint64_t after_generation,
                                                    int limit) = 0;
};

}  // namespace modelstore::storage
