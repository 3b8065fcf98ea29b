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

// A checkpoint opened for reading. Its bytes stay readable while this lives, even if the
// checkpoint is deleted. Thread-safe.
class Read {
 public:
  virtual ~Read() = default;
  virtual const records::CheckpointRecord& checkpoint() const = 0;
  virtual const records::ModelRecord& model() const = 0;
  // The whole manifest: tensors in table order, sections and attachments. The fields that
  // say where chunks are stored are for storage alone; use ChunkCursor::stored_id() to
  // detect shared chunks.
  virtual const records::ManifestPage& manifest() const = 0;
  // Reads chunk `index` of piece `piece` of tensor `tensor`, all positions in manifest(),
  // and checks its digest. DATA_LOSS, naming the tensor, if the chunk is gone or does not
  // match. UNAVAILABLE if the disk cannot read it now.
  virtual absl::StatusOr<PinnedBytes> ReadChunk(int tensor, int piece, int64_t index) = 0;
};

// Opens checkpoints for reading. Thread-safe.
class Reads {
 public:
  virtual ~Reads() = default;
  // NOT_FOUND naming the model, alias or checkpoint; DATA_LOSS if the manifest is
  // damaged.
  virtual absl::StatusOr<std::shared_ptr<Read>> Open(absl::string_view model_id,
                                                     VersionName version) = 0;
  // Returns a token for Reopen(). It is valid until StoreOptions::grace after the last
  // Read of the checkpoint was destroyed, and not after a restart. `read` must come from
  // this object.
  virtual std::string Token(const Read& read) = 0;
  // Opens the checkpoint of a token, even if it was deleted meanwhile.
  // FAILED_PRECONDITION if the token is unknown or has expired.
  virtual absl::StatusOr<std::shared_ptr<Read>> Reopen(absl::string_view token) = 0;
};

}  // namespace modelstore::storage
