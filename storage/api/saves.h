// Saves: what every save is told, and those that take one stream or no stream at all.
// Saves that can be resumed are uploads (storage/api/uploads.h).
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/types/span.h"
#include "modelstore/storage/v1/records.pb.h"
#include "proto/contract/digest.h"
#include "storage/api/reads.h"
#include "storage/api/types.h"

namespace modelstore::storage {

// Target, metadata and identity of a save.
struct SaveRequest {
  std::string model_id;
  bool create_model = false;
  records::CheckpointMetadata metadata;
  // Absent: the model's latest at this moment. `no_base`: none.
  std::optional<std::string> base_model_id;
  std::optional<VersionName> base_version;
  bool no_base = false;
  std::string request_id;
  // Digest of the request's canonical bytes, computed by the caller.
  std::string request_digest;
};

// One part of a manifest as a client sent it: pieces carry digests, and no
// packs. A piece without digests is allowed in a OneShotSave alone.
using ManifestPart = records::ManifestPage;

// A save in one stream that cannot be resumed: SaveCheckpoint. A small one stays in
// memory until Commit() and costs one sync; a larger one writes packs as chunks
// arrive. Used by one thread at a time. If it is destroyed before its commit, nothing
// remains.
class OneShotSave {
 public:
  virtual ~OneShotSave() = default;
  virtual absl::Status AddManifest(const ManifestPart& part) = 0;
  // See ChunkSink. Chunks without digest fill the manifest's pieces in order.
  virtual absl::Status Put(const std::optional<Digest>& digest,
                           absl::Span<const absl::string_view> fragments) = 0;
  // INVALID_ARGUMENT without tensors, sections, attachments and architecture, unless
  // `allow_empty`.
  virtual absl::StatusOr<records::CheckpointRecord> Commit(
      std::optional<int64_t> expected_latest_version, bool allow_empty = false) = 0;
};

// A version made of chunks of existing checkpoints, which are not copied, and of new
// chunks: the commit of a copy or a modification. Its sources are held while it lives
// and may be deleted before or after its commit. If it is destroyed before its commit,
// nothing remains.
class DerivedSave {
 public:
  virtual ~DerivedSave() = default;
  // A new chunk, at most kMaxChunkBytes; dropped where a source has it already.
  // Thread-safe. RESOURCE_EXHAUSTED when the disk is full.
  virtual absl::StatusOr<Digest> Put(absl::string_view bytes) = 0;
  // Once no Put() runs. The whole manifest; each digest is a source's or was put:
  // FAILED_PRECONDITION, naming the tensors, otherwise.
  virtual absl::StatusOr<records::CheckpointRecord> Commit(
      ManifestPart manifest, std::optional<int64_t> expected_latest_version) = 0;
};

class Saves {
 public:
  virtual ~Saves() = default;
  virtual absl::StatusOr<std::unique_ptr<OneShotSave>> StartOneShot(
      const SaveRequest& request) = 0;
  // The first source becomes base_checkpoint and replaces the one of the request. A
  // repeated request with the same id and request_digest returns the first's version.
  // INVALID_ARGUMENT if a source's model has another digest algorithm.
  virtual absl::StatusOr<std::unique_ptr<DerivedSave>> StartDerived(
      const SaveRequest& request, std::vector<std::shared_ptr<Read>> sources) = 0;
  // The version that an earlier request with this id has committed; absent if there
  // is none or it was deleted. INVALID_ARGUMENT if request_digest differs.
  virtual absl::StatusOr<std::optional<records::CheckpointRecord>> FindRequested(
      absl::string_view model_id, absl::string_view request_id,
      absl::string_view request_digest) = 0;
  // Positions in `digests` (concatenated) of those that a save with this base would
  // have to send: the checkpoint does not hold them, or only damaged ones.
  virtual absl::StatusOr<std::vector<uint32_t>> FindMissing(
      const records::CheckpointRecord& base, absl::string_view digests) = 0;
};

}  // namespace modelstore::storage
