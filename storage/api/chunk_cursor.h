// The chunks of one tensor of an opened checkpoint in the order of the tensor's bytes,
// whatever pieces it is cut into.
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

// Moving reads nothing. Used by one thread at a time; copies are cheap and independent,
// so several threads can read chunks of a tensor through a copy each.
class ChunkCursor {
 public:
  // At the first byte. DATA_LOSS naming the tensor if its pieces do not tile it, as those
  // of a tensor that is tied to another do not.
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

  // Of the chunk at position(), which is less than size_bytes(), by its place in the
  // bytes of the tensor.
  int64_t chunk_begin() const { return chunk_begin_; }
  int64_t chunk_end() const { return chunk_end_; }
  int64_t chunk_bytes() const { return chunk_end_ - chunk_begin_; }
  // Empty if the manifest has none.
  absl::string_view digest() const;
  // Opaque; equal for chunks of one store that are the same stored bytes.
  absl::uint128 stored_id() const;

  // Reads the whole chunk at position() and checks its digest. DATA_LOSS naming the
  // tensor.
  absl::StatusOr<PinnedBytes> ReadChunk() const;
  // The same, read once for as long as the cursor stays within the chunk.
  absl::StatusOr<std::shared_ptr<PinnedBytes>> HoldChunk();
  // The held chunk's bytes from position() on: whole elements, if position() is one's
  // begin. They live until the cursor leaves the chunk.
  absl::StatusOr<absl::string_view> Peek();
  // Frees the held chunk.
  void Release() { held_.reset(); }

 private:
  // A piece by the bytes of the tensor that it holds. Pieces are ranges of rows, so that
  // these are contiguous.
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
  // In the order of their bytes; none for an empty tensor.
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
