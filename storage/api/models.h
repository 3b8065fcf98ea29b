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

// Creates, lists, changes and deletes models. Thread-safe.
class Models {
 public:
  virtual ~Models() = default;
  // Creates a model. The caller sets model_id, digest_algorithm (0: XXH3-128),
  // description, labels and extra; storage fills in the rest. ALREADY_EXISTS if the name
  // is taken.
  virtual absl::StatusOr<records::ModelRecord> Create(
      const records::ModelRecord& model) = 0;
  // NOT_FOUND.
  virtual absl::StatusOr<records::ModelRecord> Get(absl::string_view model_id) = 0;
  // Lists models whose id starts with `prefix`, by id, from behind the model id `after`
  // on.
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
  // Deletes a model. FAILED_PRECONDITION if it has checkpoints and `force` is not set, or
  // if an alias, a pin or a lease holds one of them, which the error names. The name is
  // free when this returns; the bytes of its versions may be freed later.
  virtual absl::StatusOr<Freed> Delete(absl::string_view model_id, bool force,
                                       const ChangeOptions& options) = 0;

  // Returns the events of a model after this generation, oldest first, at most `limit`.
  // Each change is one generation. The last 1024 are kept: OUT_OF_RANGE if earlier ones
  // would be needed.
  struct Event {
    uint64_t generation = 0;
    records::EventRecord record;
  };
  virtual absl::StatusOr<std::vector<Event>> Events(const records::ModelRecord& model,
                                                    uint64_t after_generation,
                                                    int limit) = 0;
};

}  // namespace modelstore::storage
