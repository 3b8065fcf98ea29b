// Leases: prevent the deletion of versions for a time.
#pragma once

#include <cstdint>
#include <optional>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/time/time.h"
#include "modelstore/storage/v1/records.pb.h"
#include "storage/api/types.h"

namespace modelstore::storage {

// Prevents deletion of versions for a time. Thread-safe.
class Leases {
 public:
  virtual ~Leases() = default;
  // A lease as callers see it: times are by the wall clock.
  struct Lease {
    int64_t version = 0;
    std::string holder;
    records::LeaseRecord record;
  };
  // Acquires a lease on a version, or renews that of the same holder: it expires
  // `time_to_live` from now. NOT_FOUND for the model or version; RESOURCE_EXHAUSTED if
  // the version has 1000 leases. `model_uid`: see ChangeOptions.
  virtual absl::StatusOr<Lease> Acquire(absl::string_view model_id, VersionName version,
                                        absl::string_view holder,
                                        absl::Duration time_to_live,
                                        absl::string_view model_uid = {}) = 0;
  // Ends a lease before it expires. NOT_FOUND if the holder has none, or it has expired.
  // Works on a full disk.
  virtual absl::Status Release(absl::string_view model_id, int64_t version,
                               absl::string_view holder,
                               absl::string_view model_uid = {}) = 0;
  // Lists the leases that have not expired, by version and holder; of one version if
  // given.
  virtual absl::StatusOr<Page<Lease>> List(absl::string_view model_id,
                                           std::optional<VersionName> version,
                                           absl::string_view after, int limit) = 0;
};

}  // namespace modelstore::storage
