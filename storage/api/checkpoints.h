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

// Committed versions. Thread-safe.
class Checkpoints {
 public:
  virtual ~Checkpoints() = default;
  // NOT_FOUND naming the model, alias or checkpoint.
  virtual absl::StatusOr<records::CheckpointRecord> Get(absl::string_view model_id,
                                                        VersionName version) = 0;
  // Lists versions by number. Records have no architecture and edits: Get() returns
  // these.
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
  // Returns the changed record. NOT_FOUND, or ABORTED as ChangeOptions says.
  virtual absl::StatusOr<records::CheckpointRecord> Change(
      absl::string_view model_id, VersionName version, const Update& update,
      const ChangeOptions& options) = 0;
  // Deletes one version. FAILED_PRECONDITION, naming the holders, if an alias, a pin or a
  // lease holds it. Idle uploads that use it as base are deleted too; likewise in
  // DeleteEach() and Models::Delete(). The version is gone when this returns; its bytes
  // may be freed later.
  virtual absl::StatusOr<Freed> Delete(absl::string_view model_id, int64_t version,
                                       const ChangeOptions& options) = 0;
  // What became of the versions given to DeleteEach(). Versions that did not exist any
  // more are in none of the lists.
  struct Deletions {
    std::vector<int64_t> deleted;
    // Kept by an alias, a pin or a lease.
    std::vector<int64_t> held;
    // Kept because they have changed since they were seen.
    std::vector<int64_t> changed;
    Freed freed;
  };
  // A version with the generation that the caller has seen.
  struct SeenVersion {
    int64_t version = 0;
    uint64_t generation = 0;
  };
  // Deletes those of `versions` that nothing holds and that have not changed since they
  // were seen, each in its own batch. NOT_FOUND once the model with this uid is deleted.
  // `keep_going` is called before each; if it returns false: CANCELLED. An error's
  // message says how many versions are already deleted and names the first ten.
  virtual absl::StatusOr<Deletions> DeleteEach(
      const records::ModelRecord& model, absl::Span<const SeenVersion> versions,
      bool validate_only, const std::function<bool()>& keep_going) = 0;
  // Reads one page of the manifest, numbered from 0. The tensor table continues from page
  // to page. NOT_FOUND beyond the last page, or if the checkpoint was deleted; DATA_LOSS
  // if the page is damaged.
  virtual absl::StatusOr<records::ManifestPage> ReadManifestPage(
      const records::CheckpointRecord& checkpoint, uint32_t page) = 0;
};

}  // namespace modelstore::storage
