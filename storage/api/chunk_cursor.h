// Iterates over the chunks of one tensor of an opened checkpoint, in the order of the
// tensor's bytes, whatever pieces it is cut into.
//
//   auto cursor = ChunkCursor::Open(read, 3);
//   while (!cursor->done()) {
//     auto bytes = cursor->Peek();
//     if (!bytes.ok()) return bytes.status();
//     ... use *bytes ...
//     cursor->Advance(bytes->size());
//   }
#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include "absl/numeric/int128.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "storage/api/pinned_bytes.h"
#include "storage/api/reads.h"

namespace modelstore::storage {

// Moving the cursor reads nothing. Used by one thread at a time. Copies are cheap and
// independent, so several threads can read chunks of a tensor through a copy each.
// Positions and sizes are in bytes of the tensor.
class ChunkCursor {
 public:
  // Returns a cursor at the first byte. `tensor` is a position in the manifest's table.
  // DATA_LOSS, naming the tensor, if its pieces do not tile it; that is also so for a
  // tensor that is tied to another, which has no pieces.
  static absl::StatusOr<ChunkCursor> Open(std::shared_ptr<Read> read, int tensor);

  // Position of the tensor in the manifest.
  int tensor() const { return tensor_; }
  int64_t size_bytes() const { return size_bytes_; }
  int64_t position() const { return position_; }
  bool done() const { return position_ >= size_bytes_; }
  // Skipped chunks are not read.
  void Seek(int64_t position);
  void Advance(int64_t bytes) { Seek(position_ + bytes); }
  void NextChunk() { Seek(chunk_end_); }

  // Bounds of the chunk at position(), which must be less than size_bytes(), as offsets
  // in the tensor.
  int64_t chunk_begin() const { return chunk_begin_; }
  int64_t chunk_end() const { return chunk_end_; }
  int64_t chunk_bytes() const { return chunk_end_ - chunk_begin_; }
  // Digest of the chunk, as stored in the manifest; empty if the manifest has none.
  absl::string_view digest() const;
  // Identifies the stored bytes of the chunk: equal for chunks that share them. Opaque.
  absl::uint128 stored_id() const;

  // Reads the whole chunk at position() and checks its digest. DATA_LOSS, naming the
  // tensor, if it is gone or damaged.
  absl::StatusOr<PinnedBytes> ReadChunk() const;
  // As ReadChunk(), but reads the chunk only once while the cursor stays within it.
  absl::StatusOr<std::shared_ptr<PinnedBytes>> HoldChunk();
  // Returns the bytes from position() to the end of the chunk, which HoldChunk() keeps:
  // whole elements, if position() is the begin of one. Valid until the cursor leaves the
  // chunk.
  absl::StatusOr<absl::string_view> Peek();
  // Releases the held chunk.
  void Release() { held_.reset(); }

 private:
  // The range of the tensor's bytes that a piece holds. It is contiguous, because pieces
  // are ranges of rows.
  struct Span {
    int piece = 0;
    int64_t begin = 0;
    int64_t end = 0;
  };

  ChunkCursor(std::shared_ptr<Read> read, int tensor,
              std::shared_ptr<const std::vector<Span>> spans);
  const records::PieceRecord& piece() const;

  std::shared_ptr<Read> read_;
  int tensor_ = 0;
  // Sorted by begin; empty for a tensor without bytes. Shared by copies of the cursor.
  std::shared_ptr<const std::vector<Span>> spans_;
  int64_t size_bytes_ = 0;
  int64_t position_ = 0;
  int piece_ = 0;
  int64_t index_ = 0;  // of the chunk, in its piece
  int64_t chunk_begin_ = 0;
  int64_t chunk_end_ = 0;
  std::shared_ptr<PinnedBytes> held_;
};

}  // namespace modelstore::storage
