// Checkpoints: the committed versions of a model.
#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/types/span.h"
#include "modelstore/storage/v1/records.pb.h"
#include "storage/api/types.h"

namespace modelstore::storage {

// Committed versions.
class Checkpoints {
 public:
  virtual ~Checkpoints() = default;
  virtual absl::StatusOr<records::CheckpointRecord> Get(absl::string_view model_id,
                                                        VersionName version) = 0;
  // Without architecture and edits, which Get() has.
  virtual absl::StatusOr<Page<records::CheckpointRecord>> List(absl::string_view model_id,
                                                               bool newest_first,
                                                               absl::string_view after,
                                                               int limit) = 0;
  // Changes the fields that are set; the content never changes.
  struct Update {
    std::optional<std::string> description;
    std::optional<google::protobuf::Map<std::string, std::string>> labels;
    std::optional<bool> pinned;
    std::optional<int64_t> expire_time_us;  // 0: never
  };
  virtual absl::StatusOr<records::CheckpointRecord> Change(
      absl::string_view model_id, VersionName version, const Update& update,
      const ChangeOptions& options) = 0;
  // FAILED_PRECONDITION, naming it, if an alias, a pin or a lease holds it. Idle uploads
  // that build on it are deleted too; likewise in DeleteEach() and Models::Delete().
  virtual absl::StatusOr<Freed> Delete(absl::string_view model_id, int64_t version,
                                       const ChangeOptions& options) = 0;
  struct Deletions {
    std::vector<int64_t> deleted;
    // Kept by an alias, a pin or a lease.
    std::vector<int64_t> held;
    // Kept because they are not as they were seen.
    std::vector<int64_t> changed;
    Freed freed;
  };
  // A version as the caller has seen it.
  struct SeenVersion {
    int64_t version = 0;
    uint64_t generation = 0;
  };
  // Deletes those of `versions` that nothing holds and that have not changed since,
  // each in its own batch. NOT_FOUND once the model of this uid is gone. `keep_going` is
  // called before each; if it returns false: CANCELLED. An error's message says how
  // many versions are already deleted and names the first ten.
  virtual absl::StatusOr<Deletions> DeleteEach(
      const records::ModelRecord& model, absl::Span<const SeenVersion> versions,
      bool validate_only, const std::function<bool()>& keep_going) = 0;
  // Pages of the manifest in order; the tensor table goes on from page to page.
  // NOT_FOUND beyond the last.
  virtual absl::StatusOr<records::ManifestPage> ReadManifestPage(
      const records::CheckpointRecord& checkpoint, uint32_t page) = 0;
};

}  // namespace modelstore::storage
