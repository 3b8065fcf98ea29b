// Reads: checkpoints opened for reading.
#pragma once

#include <cstdint>
#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "modelstore/storage/v1/records.pb.h"
#include "storage/api/pinned_bytes.h"
#include "storage/api/types.h"

namespace modelstore::storage {

// A checkpoint opened for reading. Its bytes stay readable. Thread-safe.
class Read {
 public:
  virtual ~Read() = default;
  virtual const records::CheckpointRecord& checkpoint() const = 0;
  virtual const records::ModelRecord& model() const = 0;
  // The whole table, in manifest order, sections and attachments after it. Which packs
  // hold its chunks is for storage alone; ChunkCursor::stored_id() tells shared chunks.
  virtual const records::ManifestPage& manifest() const = 0;
  // Reads chunk `index` of a piece of tensor `tensor` of manifest(), and checks
  // its digest: DATA_LOSS naming the tensor if it differs or is gone.
  virtual absl::StatusOr<PinnedBytes> ReadChunk(int tensor, int piece, int64_t index) = 0;
};

class Reads {
 public:
  virtual ~Reads() = default;
  virtual absl::StatusOr<std::shared_ptr<Read>> Open(absl::string_view model_id,
                                                     VersionName version) = 0;
  // A token for Reopen(). Valid until the grace time after the last Read of the
  // checkpoint is destroyed, and not after a restart.
  virtual std::string Token(const Read& read) = 0;
  // FAILED_PRECONDITION if the token has expired.
  virtual absl::StatusOr<std::shared_ptr<Read>> Reopen(absl::string_view token) = 0;
};

}  // namespace modelstore::storage
