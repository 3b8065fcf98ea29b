// The bytes of one stored tensor in order, whatever pieces and chunks it is cut
// into, with one chunk in memory at a time.
//
//   auto stream = TensorStream::Open(read, 3);
//   while (stream->position() < stream->size_bytes()) {
//     auto bytes = stream->Peek();
//     if (!bytes.ok()) return bytes.status();
//     ... use *bytes ...
//     stream->Advance(bytes->size());
//   }
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "storage/checkpoint_store.h"

namespace modelstore::server {

// `section:key`; `models/m/checkpoints/3`.
std::string FullTensorName(const storage::records::TensorRecord& tensor);
std::string FullCheckpointName(const storage::Read& read);

// A piece of a stored tensor, by the bytes of the tensor that it holds. Pieces
// are ranges of rows, so that these are contiguous.
struct PieceSpan {
  int piece = 0;
  int64_t begin = 0;
  int64_t end = 0;
};

// The pieces of tensor `tensor` of the manifest in order of their bytes: none for
// an empty tensor. DATA_LOSS naming the tensor if they do not tile it, as those of
// a tensor that is tied to another do not.
absl::StatusOr<std::vector<PieceSpan>> TensorSpans(const storage::Read& read, int tensor);

// A chunk by its place in the bytes of its tensor.
struct ChunkSpan {
  int piece = 0;
  int64_t index = 0;
  int64_t begin = 0;
  int64_t end = 0;
};
// The chunk that holds the byte at `position`, which lies within `spans`.
ChunkSpan ChunkAt(const storage::records::TensorRecord& tensor,
                  const std::vector<PieceSpan>& spans, int64_t position);

// Used by one thread at a time.
class TensorStream {
 public:
  // As TensorSpans(): `tensor` holds its bytes itself.
  static absl::StatusOr<TensorStream> Open(std::shared_ptr<storage::Read> read,
                                           int tensor);

  int64_t size_bytes() const { return size_bytes_; }
  int64_t position() const { return position_; }
  // Another stream over the same tensor, which begins at `position`.
  TensorStream From(int64_t position) const;
  // The chunk at `position`, which is less than size_bytes(); its digest, which
  // speaks for its bytes as long as both are cut alike.
  ChunkSpan Chunk(int64_t position) const;
  absl::string_view ChunkDigest(const ChunkSpan& chunk) const;

  // The bytes from position() to the end of its chunk, checked against its digest;
  // whole elements, since chunks are. They live until the next Advance() past
  // them. DATA_LOSS names the tensor. position() is less than size_bytes().
  absl::StatusOr<absl::string_view> Peek();
  // Skipped chunks are not read.
  void Advance(int64_t bytes) { position_ += bytes; }

 private:
  TensorStream(std::shared_ptr<storage::Read> read, int tensor,
               std::shared_ptr<const std::vector<PieceSpan>> spans);

  std::shared_ptr<storage::Read> read_;
  int tensor_ = 0;
  std::shared_ptr<const std::vector<PieceSpan>> spans_;
  int64_t size_bytes_ = 0;
  int64_t position_ = 0;
  // Read last; empty before the first.
  ChunkSpan current_;
  storage::PinnedBytes bytes_;
};

}  // namespace modelstore::server
