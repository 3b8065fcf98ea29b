#include "storage/api/chunk_cursor.h"

#include <algorithm>
#include <utility>

#include "proto/contract/digest.h"
#include "proto/contract/dtype.h"
#include "proto/contract/errors.h"
#include "proto/contract/names.h"
#include "storage/resolve.h"

namespace modelstore::storage {
namespace {

// DATA_LOSS naming the tensor.
absl::Status Loss(const Read& read, const records::TensorRecord& tensor,
                  absl::string_view what) {
  return TensorDataLoss(
      CheckpointNameOf(read.model().model_id(), read.checkpoint().version()),
      TensorNameOf(tensor.section(), tensor.key()), what);
}

}  // namespace

absl::StatusOr<ChunkCursor> ChunkCursor::Open(std::shared_ptr<Read> read, int tensor) {
  const records::TensorRecord& record = read->manifest().tensors(tensor);
  const std::vector<int64_t> shape(record.shape().begin(), record.shape().end());
  const int64_t bytes =
      TensorBytes(static_cast<DType>(record.dtype()), shape).value_or(0);
  // Pieces are ranges of the first dimension, so a piece's bytes begin at its first row.
  const int64_t row_bytes = shape.empty() || shape[0] == 0 ? bytes : bytes / shape[0];
  std::vector<Span> spans;
  spans.reserve(record.pieces_size());
  for (int p = 0; p < record.pieces_size(); ++p) {
    const records::PieceRecord& piece = record.pieces(p);
    if (piece.size_size() == 0 || shape.empty()) {
      spans.push_back({p, 0, bytes});
      continue;
    }
    const int64_t first = piece.offset_size() == 0 ? 0 : piece.offset(0);
    spans.push_back({p, first * row_bytes, (first + piece.size(0)) * row_bytes});
  }
  std::sort(spans.begin(), spans.end(),
            [](const Span& a, const Span& b) { return a.begin < b.begin; });
  // Sorted spans tile the tensor if each begins where the one before it ends.
  int64_t reached = 0;
  for (const Span& span : spans) {
    if (span.begin != reached) break;
    reached = span.end;
  }
  if (reached != bytes) return Loss(*read, record, "its pieces do not tile it");
  return ChunkCursor(std::move(read), tensor,
                     std::make_shared<const std::vector<Span>>(std::move(spans)));
}

ChunkCursor::ChunkCursor(std::shared_ptr<Read> read, int tensor,
                         std::shared_ptr<const std::vector<Span>> spans)
    : read_(std::move(read)),
      tensor_(tensor),
      spans_(std::move(spans)),
      size_bytes_(spans_->empty() ? 0 : spans_->back().end) {
  Seek(0);
}

void ChunkCursor::Seek(int64_t position) {
  position_ = position;
  // Within the same chunk: keeps what HoldChunk() read.
  if (position >= chunk_begin_ && position < chunk_end_) return;
  held_.reset();
  if (done()) {
    chunk_begin_ = chunk_end_ = size_bytes_;
    return;
  }
  const auto span = std::upper_bound(spans_->begin(), spans_->end(), position,
                                     [](int64_t p, const Span& s) { return p < s.end; });
  piece_ = span->piece;
  // 0 means that the piece is one chunk.
  int64_t chunk_bytes = piece().chunk_size_bytes();
  if (chunk_bytes <= 0) chunk_bytes = span->end - span->begin;
  index_ = (position - span->begin) / chunk_bytes;
  chunk_begin_ = span->begin + index_ * chunk_bytes;
  chunk_end_ = std::min(chunk_begin_ + chunk_bytes, span->end);
}

const records::PieceRecord& ChunkCursor::piece() const {
  return read_->manifest().tensors(tensor_).pieces(piece_);
}

absl::string_view ChunkCursor::digest() const {
  const size_t length = DigestLength(AlgorithmOf(read_->model()));
  const absl::string_view digests = piece().digests();
  const size_t begin = static_cast<size_t>(index_) * length;
  return begin + length <= digests.size() ? digests.substr(begin, length)
                                          : absl::string_view();
}

absl::uint128 ChunkCursor::stored_id() const {
  const records::PieceRecord& place = piece();
  if (index_ >= place.packs_size() || index_ >= place.sequences_size()) return 0;
  const int i = static_cast<int>(index_);
  return absl::MakeUint128(place.packs(i), place.sequences(i));
}

absl::StatusOr<PinnedBytes> ChunkCursor::ReadChunk() const {
  absl::StatusOr<PinnedBytes> bytes = read_->ReadChunk(tensor_, piece_, index_);
  if (bytes.ok() && static_cast<int64_t>(bytes->view().size()) != chunk_bytes()) {
    return Loss(*read_, read_->manifest().tensors(tensor_),
                "a chunk is not as long as its piece says");
  }
  return bytes;
}

absl::StatusOr<std::shared_ptr<PinnedBytes>> ChunkCursor::HoldChunk() {
  if (held_ == nullptr) {
    absl::StatusOr<PinnedBytes> bytes = ReadChunk();
    if (!bytes.ok()) return bytes.status();
    held_ = std::make_shared<PinnedBytes>(*std::move(bytes));
  }
  return held_;
}

absl::StatusOr<absl::string_view> ChunkCursor::Peek() {
  const absl::StatusOr<std::shared_ptr<PinnedBytes>> chunk = HoldChunk();
  if (!chunk.ok()) return chunk.status();
  return (*chunk)->view().substr(static_cast<size_t>(position_ - chunk_begin_));
}

}  // namespace modelstore::storage
