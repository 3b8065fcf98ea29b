// Uploads: saves that outlive their connections and are resumed.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/time/time.h"
#include "absl/types/span.h"
#include "modelstore/storage/v1/records.pb.h"
#include "proto/contract/digest.h"
#include "storage/api/saves.h"
#include "storage/api/types.h"

namespace modelstore::storage {

// Receives the chunks of one stream of an upload. Used by one thread at a time. The
// destructor calls Close() and ignores its status.
class ChunkSink {
 public:
  virtual ~ChunkSink() = default;

  // Takes a chunk whose bytes are the concatenation of `fragments`. Checks the
  // digest (INVALID_ARGUMENT if it differs); an absent one is computed. A chunk
  // that the upload or its base already holds is dropped.
  // RESOURCE_EXHAUSTED when the disk is full: what was taken before stays.
  virtual absl::StatusOr<Digest> Put(const std::optional<Digest>& digest,
                                     absl::Span<const absl::string_view> fragments) = 0;

  // Seals what this sink wrote. Afterwards it outlives a restart.
  virtual absl::Status Close() = 0;

  struct Counts {
    int64_t chunks = 0;
    int64_t bytes = 0;
    int64_t duplicate_bytes = 0;
  };
  virtual Counts counts() const = 0;
};

struct UploadState {
  records::UploadRecord record;
  struct Contribution {
    uint32_t index = 0;
    bool complete = false;
    int64_t tensor_count = 0;
  };
  std::vector<Contribution> contributions;
  int64_t sealed_bytes = 0;
  int64_t received_bytes = 0;
  // See StoreOptions::upload_min_idle.
  bool idle = false;
};

// One upload. Each call prolongs its life and is NOT_FOUND once the upload is deleted or
// has expired. Once it is committed, through this object or another, State(), Commit()
// and Delete() go on, and the other calls are FAILED_PRECONDITION, until its time to
// live has passed without a call. Thread-safe.
class Upload {
 public:
  virtual ~Upload() = default;
  virtual absl::StatusOr<UploadState> State() = 0;
  // Positions in `digests` (concatenated) of those that neither the upload nor
  // its base holds.
  virtual absl::StatusOr<std::vector<uint32_t>> FindMissing(
      absl::string_view digests) = 0;
  // `begin` drops what the contribution had; `complete` ends it.
  virtual absl::Status AddManifest(uint32_t contribution, const ManifestPart& part,
                                   bool begin, bool complete) = 0;
  virtual absl::StatusOr<std::unique_ptr<ChunkSink>> OpenSink() = 0;
  // See OneShotSave::Commit(). Once committed: the version, or NOT_FOUND if that is
  // deleted.
  virtual absl::StatusOr<records::CheckpointRecord> Commit(
      std::optional<int64_t> expected_latest_version, bool allow_empty = false) = 0;
  // The version of a committed one stays.
  virtual absl::Status Delete() = 0;
};

class Uploads {
 public:
  virtual ~Uploads() = default;
  // The same request_id returns the same upload (or one with committed_version
  // set, if the version exists already); INVALID_ARGUMENT if request_digest
  // differs. At a limit, of the model or in all, deletes the upload that was idle for
  // longest; overloaded if none is idle.
  virtual absl::StatusOr<records::UploadRecord> Create(const SaveRequest& request,
                                                       uint32_t contribution_count,
                                                       absl::Duration time_to_live) = 0;
  // The upload with this name, open or committed; prolongs its life. NOT_FOUND.
  virtual absl::StatusOr<std::shared_ptr<Upload>> Open(absl::string_view model_id,
                                                       absl::string_view upload_id) = 0;
  // The open ones, whose lives it does not prolong. An empty model_id lists those of
  // all models.
  virtual absl::StatusOr<Page<UploadState>> List(absl::string_view model_id,
                                                 absl::string_view after, int limit) = 0;
};

}  // namespace modelstore::storage
