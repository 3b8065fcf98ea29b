// Saves: the request of every save, saves in one stream, and versions derived from stored
// checkpoints. Saves that can be resumed are uploads (storage/api/uploads.h).
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
  // Creates the model, at the commit or with the upload, if it does not exist.
  bool create_model = false;
  records::CheckpointMetadata metadata;
  // The checkpoint that the save continues and whose chunks it may share. Both absent:
  // the latest version of the model at this moment, if any. `no_base`: none.
  std::optional<std::string> base_model_id;
  std::optional<VersionName> base_version;
  bool no_base = false;
  // Identifies the request when it is repeated; may be empty.
  std::string request_id;
  // Digest of the request's canonical bytes, computed by the caller: distinguishes a
  // repeated request from another one with the same id.
  std::string request_digest;
};

// One part of a manifest as a client sent it: pieces have the digests of their chunks,
// but not their places. Only a OneShotSave accepts a piece without digests.
using ManifestPart = records::ManifestPage;

// A save in one stream that cannot be resumed: SaveCheckpoint. A save under 1 MiB stays
// in memory until Commit() and costs one sync; a larger one writes packs as chunks
// arrive. Used by one thread at a time. If it is destroyed before its commit, nothing of
// it remains.
class OneShotSave {
 public:
  virtual ~OneShotSave() = default;
  // Adds a part of the manifest; all parts must come before the first chunk
  // (FAILED_PRECONDITION). INVALID_ARGUMENT naming the field.
  virtual absl::Status AddManifest(const ManifestPart& part) = 0;
  // Takes a chunk; see ChunkSink::Put(). Chunks without a digest fill the pieces that
  // have no digests, in manifest order.
  virtual absl::Status Put(const std::optional<Digest>& digest,
                           absl::Span<const absl::string_view> fragments) = 0;
  // Commits the save as the next version, durably, and returns its record. ABORTED unless
  // the model's latest version is `expected_latest_version` (0: unless it has none).
  // FAILED_PRECONDITION, naming tensors, if chunks are missing. INVALID_ARGUMENT for a
  // save without tensors, sections, attachments and architecture, unless `allow_empty`.
  // UNAVAILABLE, with IsUndecided(), if the outcome is unknown: repeat the save with its
  // request_id.
  virtual absl::StatusOr<records::CheckpointRecord> Commit(
      std::optional<int64_t> expected_latest_version, bool allow_empty = false) = 0;
};

// A new version made of chunks of existing checkpoints, which are shared, and of new
// chunks: the commit of a copy or a modification. The sources are held while this lives;
// deleting them, before or after the commit, does not affect the new version. If it is
// destroyed before its commit, nothing of it remains.
class DerivedSave {
 public:
  virtual ~DerivedSave() = default;
  // Adds a new chunk of 1 to kMaxChunkBytes bytes and returns its digest. The chunk is
  // dropped if a source already has it. Thread-safe. RESOURCE_EXHAUSTED when the disk is
  // full.
  virtual absl::StatusOr<Digest> Put(absl::string_view bytes) = 0;
  // Commits the version with the whole manifest. Must not run together with Put().
  // FAILED_PRECONDITION, naming the tensors, if a digest is neither in a source nor was
  // put; DATA_LOSS, naming them, if a needed chunk is known to be damaged. ABORTED as
  // OneShotSave::Commit().
  virtual absl::StatusOr<records::CheckpointRecord> Commit(
      ManifestPart manifest, std::optional<int64_t> expected_latest_version) = 0;
};

// Starts saves. Thread-safe. `StartOneShot()` and `StartDerived()`: NOT_FOUND for the
// model, unless create_model, or the base; RESOURCE_EXHAUSTED when the disk is full.
class Saves {
 public:
  virtual ~Saves() = default;
  virtual absl::StatusOr<std::unique_ptr<OneShotSave>> StartOneShot(
      const SaveRequest& request) = 0;
  // The first source becomes the base, whatever the request says. If a request with the
  // same id and request_digest was committed before, Commit() returns that version.
  // INVALID_ARGUMENT if a source's model has another digest algorithm.
  virtual absl::StatusOr<std::unique_ptr<DerivedSave>> StartDerived(
      const SaveRequest& request, std::vector<std::shared_ptr<Read>> sources) = 0;
  // Returns the version that an earlier request with this id committed; absent if there
  // is none or it was deleted. INVALID_ARGUMENT if request_digest differs.
  virtual absl::StatusOr<std::optional<records::CheckpointRecord>> FindRequested(
      absl::string_view model_id, absl::string_view request_id,
      absl::string_view request_digest) = 0;
  // Returns the positions in `digests`, concatenated, of those that a save with this base
  // has to send: the base does not have the chunk, or only damaged.
  virtual absl::StatusOr<std::vector<uint32_t>> FindMissing(
      const records::CheckpointRecord& base, absl::string_view digests) = 0;
};

}  // namespace modelstore::storage
