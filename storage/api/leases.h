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

// Prevents deletion of versions for a time.
class Leases {
 public:
  virtual ~Leases() = default;
  struct Lease {
    int64_t version = 0;
    std::string holder;
    records::LeaseRecord record;
  };
  // By the same holder: renews. RESOURCE_EXHAUSTED where too many hold it.
  virtual absl::StatusOr<Lease> Acquire(absl::string_view model_id, VersionName version,
                                        absl::string_view holder,
                                        absl::Duration time_to_live,
                                        absl::string_view model_uid = {}) = 0;
  // NOT_FOUND if the holder has none, or it has expired.
  virtual absl::Status Release(absl::string_view model_id, int64_t version,
                               absl::string_view holder,
                               absl::string_view model_uid = {}) = 0;
  // Those that have not expired, by version and holder; of one version if given.
  virtual absl::StatusOr<Page<Lease>> List(absl::string_view model_id,
                                           std::optional<VersionName> version,
                                           absl::string_view after, int limit) = 0;
};

}  // namespace modelstore::storage
