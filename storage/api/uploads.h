// Uploads: saves that outlive their connections and the server's restarts, and can be
// resumed.
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

// Receives the chunks of one stream of an upload. Used by one thread at a time. Keeps the
// Upload object alive. The destructor calls Close() and ignores its status.
class ChunkSink {
 public:
  virtual ~ChunkSink() = default;

  // Takes a chunk whose bytes are the concatenation of `fragments`, which are not used
  // after the call, and returns its digest. INVALID_ARGUMENT if the digest differs from
  // `digest`, if given. A chunk that the upload or its base already holds is dropped.
  // RESOURCE_EXHAUSTED when the disk is full: chunks taken before stay.
  virtual absl::StatusOr<Digest> Put(const std::optional<Digest>& digest,
                                     absl::Span<const absl::string_view> fragments) = 0;

  // Seals the packs that this sink wrote to: afterwards its chunks outlive a restart.
  // Returns the first failure since the last Close(): those chunks must be sent again.
  virtual absl::Status Close() = 0;

  // Chunks and bytes that this sink took, and the bytes of them that were dropped as
  // duplicates.
  struct Counts {
    int64_t chunks = 0;
    int64_t bytes = 0;
    int64_t duplicate_bytes = 0;
  };
  virtual Counts counts() const = 0;
};

// State of an upload.
struct UploadState {
  records::UploadRecord record;
  // A contribution of which at least one part has arrived.
  struct Contribution {
    uint32_t index = 0;
    bool complete = false;
    int64_t tensor_count = 0;
  };
  std::vector<Contribution> contributions;
  // Bytes of chunks that a restart keeps, and of all chunks received; duplicates count in
  // neither.
  int64_t sealed_bytes = 0;
  int64_t received_bytes = 0;
  // True if it may be deleted to make room: see StoreOptions::upload_min_idle.
  bool idle = false;
};

// One upload. Thread-safe. Each call extends its expiry to its time to live from now, and
// returns NOT_FOUND once the upload is deleted or has expired. After its commit, through
// this object or another, State(), Commit() and Delete() still work until its time to
// live has passed without a call; the other calls return FAILED_PRECONDITION.
class Upload {
 public:
  virtual ~Upload() = default;
  virtual absl::StatusOr<UploadState> State() = 0;
  // Returns the positions in `digests`, concatenated, of the chunks that neither the
  // upload nor its base holds intact.
  virtual absl::StatusOr<std::vector<uint32_t>> FindMissing(
      absl::string_view digests) = 0;
  // Adds a part to a contribution's manifest. `begin`: it is the first, and replaces
  // parts sent before. `complete`: it is the last, and all parts are durable when the
  // call returns. UNAVAILABLE if earlier parts were lost by a fault: send the
  // contribution again.
  virtual absl::Status AddManifest(uint32_t contribution, const ManifestPart& part,
                                   bool begin, bool complete) = 0;
  // Opens a sink for one stream. An upload with an open sink does not expire.
  virtual absl::StatusOr<std::unique_ptr<ChunkSink>> OpenSink() = 0;
  // See OneShotSave::Commit(). If the upload is already committed, returns its version,
  // or NOT_FOUND if that was deleted. Waits for a commit that runs.
  virtual absl::StatusOr<records::CheckpointRecord> Commit(
      std::optional<int64_t> expected_latest_version, bool allow_empty = false) = 0;
  // Deletes the upload and its chunks. If it is committed, its version stays.
  virtual absl::Status Delete() = 0;
};

// The uploads of all models. Thread-safe.
class Uploads {
 public:
  virtual ~Uploads() = default;
  // Creates an upload. `time_to_live` of 0 means StoreOptions::default_upload_ttl. A
  // request_id that was used before returns the same upload, with committed_version set
  // if it has become a version; INVALID_ARGUMENT if request_digest differs. At a limit,
  // of the model or in all, deletes the upload that has been idle for longest;
  // UNAVAILABLE if none is idle.
  virtual absl::StatusOr<records::UploadRecord> Create(const SaveRequest& request,
                                                       uint32_t contribution_count,
                                                       absl::Duration time_to_live) = 0;
  // Opens the upload with this name, open or committed, and prolongs its life. NOT_FOUND.
  virtual absl::StatusOr<std::shared_ptr<Upload>> Open(absl::string_view model_id,
                                                       absl::string_view upload_id) = 0;
  // Lists open uploads, by model and id, without prolonging their lives; those of all
  // models if `model_id` is empty.
  virtual absl::StatusOr<Page<UploadState>> List(absl::string_view model_id,
                                                 absl::string_view after, int limit) = 0;
};

}  // namespace modelstore::storage
