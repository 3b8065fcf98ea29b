#include "server/core/tensor_stream.h"

#include <algorithm>
#include <utility>

#include "proto/contract/errors.h"
#include "proto/contract/names.h"
#include "server/core/convert.h"

namespace modelstore::server {

std::string FullTensorName(const storage::records::TensorRecord& tensor) {
  return TensorNameOf(tensor.section(), tensor.key());
}

std::string FullCheckpointName(const storage::Read& read) {
  return CheckpointNameOf(read.model().model_id(), read.checkpoint().version());
}

absl::StatusOr<std::vector<PieceSpan>> TensorSpans(const storage::Read& read,
                                                   int tensor) {
  const storage::records::TensorRecord& record = read.manifest().tensors(tensor);
  const int64_t bytes = StoredTensorBytes(record);
  const int64_t row_bytes =
      record.shape_size() == 0 || record.shape(0) == 0 ? bytes : bytes / record.shape(0);
  std::vector<PieceSpan> spans;
  for (int p = 0; p < record.pieces_size(); ++p) {
    const auto& piece = record.pieces(p);
    if (piece.size_size() == 0 || record.shape_size() == 0) {
      spans.push_back({p, 0, bytes});
      continue;
    }
    const int64_t first = piece.offset_size() == 0 ? 0 : piece.offset(0);
    spans.push_back({p, first * row_bytes, (first + piece.size(0)) * row_bytes});
  }
  std::sort(spans.begin(), spans.end(),
            [](const auto& a, const auto& b) { return a.begin < b.begin; });
  int64_t reached = 0;
  for (const PieceSpan& span : spans) {
    if (span.begin != reached) break;
    reached = span.end;
  }
  if (reached != bytes) {
    return TensorDataLoss(FullCheckpointName(read), FullTensorName(record),
                          "its pieces do not tile it");
  }
  return spans;
}

ChunkSpan ChunkAt(const storage::records::TensorRecord& tensor,
                  const std::vector<PieceSpan>& spans, int64_t position) {
  const auto span =
      std::upper_bound(spans.begin(), spans.end(), position,
                       [](int64_t p, const PieceSpan& s) { return p < s.end; });
  int64_t chunk_bytes = tensor.pieces(span->piece).chunk_size_bytes();
  if (chunk_bytes <= 0) chunk_bytes = span->end - span->begin;
  ChunkSpan chunk;
  chunk.piece = span->piece;
  chunk.index = (position - span->begin) / chunk_bytes;
  chunk.begin = span->begin + chunk.index * chunk_bytes;
  chunk.end = std::min(chunk.begin + chunk_bytes, span->end);
  return chunk;
}

absl::StatusOr<TensorStream> TensorStream::Open(std::shared_ptr<storage::Read> read,
                                                int tensor) {
  auto spans = TensorSpans(*read, tensor);
  if (!spans.ok()) return spans.status();
  return TensorStream(std::move(read), tensor,
                      std::make_shared<const std::vector<PieceSpan>>(*std::move(spans)));
}

TensorStream::TensorStream(std::shared_ptr<storage::Read> read, int tensor,
                           std::shared_ptr<const std::vector<PieceSpan>> spans)
    : read_(std::move(read)),
      tensor_(tensor),
      spans_(std::move(spans)),
      size_bytes_(spans_->empty() ? 0 : spans_->back().end) {}

TensorStream TensorStream::From(int64_t position) const {
  TensorStream stream(read_, tensor_, spans_);
  stream.position_ = position;
  return stream;
}

ChunkSpan TensorStream::Chunk(int64_t position) const {
  return ChunkAt(read_->manifest().tensors(tensor_), *spans_, position);
}

absl::string_view TensorStream::ChunkDigest(const ChunkSpan& chunk) const {
  const auto& piece = read_->manifest().tensors(tensor_).pieces(chunk.piece);
  const size_t length = piece.digests().size() / static_cast<size_t>(piece.packs_size());
  return absl::string_view(piece.digests())
      .substr(static_cast<size_t>(chunk.index) * length, length);
}

absl::StatusOr<absl::string_view> TensorStream::Peek() {
  if (position_ < current_.begin || position_ >= current_.end) {
    const ChunkSpan chunk = Chunk(position_);
    auto bytes = read_->ReadChunk(tensor_, chunk.piece, chunk.index);
    if (!bytes.ok()) return bytes.status();
    current_ = chunk;
    bytes_ = *std::move(bytes);
  }
  return bytes_.view().substr(static_cast<size_t>(position_ - current_.begin));
}

}  // namespace modelstore::server
