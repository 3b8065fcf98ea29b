#include "server/modify/write_out.h"

#include <algorithm>
#include <cstring>
#include <utility>

#include "absl/container/flat_hash_map.h"
#include "absl/strings/str_cat.h"
#include "proto/contract/errors.h"
#include "proto/contract/limits.h"
#include "proto/contract/names.h"
#include "proto/contract/steady_time.h"
#include "server/core/convert.h"

namespace modelstore::server::modify {
namespace {

// Size of the chunks that the client makes: large enough for the disk, and small enough
// for the data of a computation to fit in a core's cache. A multiple of every element
// size, so that no element is divided between chunks.
constexpr int64_t kChunkBytes = int64_t{512} << 10;
// About an hour of work for a few cores.
constexpr int64_t kMaxWorkBytes = int64_t{4} << 40;

// Bytes of one row, which is an element of the first dimension. A tensor without
// dimensions is one row.
int64_t RowBytes(const WorkingTensor& tensor) {
  int64_t bytes = ElementSize(tensor.dtype);
  for (size_t d = 1; d < tensor.shape.size(); ++d) bytes *= tensor.shape[d];
  return bytes;
}

// Whether the source is a whole stored tensor whose dimensions, except the first, are
// those of `tensor`. Its pieces are then valid pieces of `tensor` once their rows are
// shifted.
bool HasRowsOf(const WorkingTensor& tensor, const TensorSource& source) {
  const TensorSource::Stored* stored = source.stored();
  if (stored == nullptr) return false;
  const auto& record = stored->read->manifest().tensors(stored->tensor);
  return record.shape_size() == static_cast<int>(tensor.shape.size()) &&
         std::equal(record.shape().begin() + std::min(record.shape_size(), 1),
                    record.shape().end(),
                    tensor.shape.begin() + std::min<size_t>(tensor.shape.size(), 1),
                    tensor.shape.end());
}

}  // namespace

WriteOut::WriteOut(const WorkingCheckpoint* checkpoint)
    : checkpoint_(*checkpoint),
      algorithm_(
          static_cast<DigestAlgorithm>(checkpoint->base()->model().digest_algorithm())) {
  const auto& tensors = checkpoint_.tensors();
  pieces_.resize(tensors.size());
  tied_to_.resize(tensors.size());
  // The first tensor of each tied group has the pieces; the others only name it.
  absl::flat_hash_map<int, size_t> owners;
  for (size_t t = 0; t < tensors.size(); ++t) {
    if (tensors[t].tied_group != 0) {
      auto [owner, first] = owners.try_emplace(tensors[t].tied_group, t);
      if (!first) {
        const WorkingTensor& other = tensors[owner->second];
        tied_to_[t] = TensorNameOf(other.section, other.key);
        continue;
      }
    }
    PlanTensor(t);
  }
  for (const Computed& computed : computed_) {
    total_bytes_ += computed.source->read_bytes() + computed.source->size_bytes();
    digest_bytes_ +=
        computed.chunk_count * static_cast<int64_t>(DigestLength(algorithm_));
    working_bytes_ =
        std::max(working_bytes_, computed.chunk_size + computed.source->working_bytes());
  }
}

absl::Status WriteOut::CheckPlan() const {
  for (const WorkingTensor& tensor : checkpoint_.tensors()) {
    auto bytes = TensorBytes(tensor.dtype, tensor.shape);
    if (!bytes.ok()) return InvalidField("edits", bytes.status().message());
    if (*bytes == tensor.source->size_bytes()) continue;
    return absl::InternalError(absl::StrCat(
        TensorNameOf(tensor.section, tensor.key), " has ", tensor.source->size_bytes(),
        " bytes, and by its shape ", *bytes, ": nothing was stored"));
  }
  if (total_bytes_ > kMaxWorkBytes) {
    return InvalidField(
        "edits", absl::StrCat("read and write ", total_bytes_, " bytes, of at most ",
                              kMaxWorkBytes, ": give some to another call"));
  }
  if (digest_bytes_ > kMaxManifestBytes) {
    return InvalidField(
        "edits",
        absl::StrCat("make new tensors of ", new_bytes_, " bytes, whose digests take ",
                     digest_bytes_, ", of at most ", kMaxManifestBytes));
  }
  return absl::OkStatus();
}

void WriteOut::Begin(storage::DerivedSave* save) {
  save_ = save;
  for (Computed& computed : computed_) {
    computed.digests.resize(computed.chunk_count * DigestLength(algorithm_));
  }
}

void WriteOut::PlanTensor(size_t t) {
  const WorkingTensor& tensor = checkpoint_.tensors()[t];
  if (tensor.source->size_bytes() == 0) return;
  const int64_t rows = tensor.shape.empty() ? 1 : tensor.shape[0];
  const int64_t row_bytes = RowBytes(tensor);
  const auto parts = tensor.source->parts();
  // Pieces are boxes, so only parts that are whole rows can be pieces of their own.
  const bool by_rows =
      row_bytes > 0 && std::all_of(parts.begin(), parts.end(), [&](const auto& part) {
        return part->size_bytes() % row_bytes == 0;
      });
  if (parts.empty() || !by_rows) {
    PlanPiece(tensor, tensor.source, 0, rows, pieces_[t]);
    return;
  }
  int64_t row = 0;
  for (const SourcePtr& part : parts) {
    const int64_t part_rows = part->size_bytes() / row_bytes;
    if (part_rows > 0) PlanPiece(tensor, part, row, part_rows, pieces_[t]);
    row += part_rows;
  }
}

void WriteOut::PlanPiece(const WorkingTensor& tensor, SourcePtr source, int64_t first_row,
                         int64_t rows, std::vector<Piece>& pieces) {
  const TensorSource::Stored* stored = source->stored();
  if (stored == nullptr || stored->read != checkpoint_.base()) {
    new_bytes_ += source->size_bytes();
  }
  if (HasRowsOf(tensor, *source)) {
    pieces.push_back({first_row, rows, std::move(source), -1});
    return;
  }
  pieces.push_back({first_row, rows, nullptr, static_cast<int>(computed_.size())});
  Computed computed;
  const int64_t bytes = source->size_bytes();
  computed.chunk_size = std::min(kChunkBytes, bytes);
  computed.chunk_count = (bytes + computed.chunk_size - 1) / computed.chunk_size;
  computed.source = std::move(source);
  computed_.push_back(std::move(computed));
}

std::vector<std::shared_ptr<storage::Read>> WriteOut::sources() const {
  std::vector<std::shared_ptr<storage::Read>> reads = {checkpoint_.base()};
  for (const auto& pieces : pieces_) {
    for (const Piece& piece : pieces) {
      if (piece.shared == nullptr) continue;
      const auto& read = piece.shared->stored()->read;
      if (std::find(reads.begin(), reads.end(), read) == reads.end()) {
        reads.push_back(read);
      }
    }
  }
  return reads;
}

void WriteOut::Work(absl::Time until) {
  std::string buffer;
  MutexLock lock(mutex_);
  // Claims chunks in order under the lock and computes them without it. Because of the
  // order, weights are computed one after another, which the cache of LoRA factors relies
  // on.
  while (status_.ok() && next_ < computed_.size() && SteadyNow() < until) {
    Computed& computed = computed_[next_];
    const int64_t chunk = next_chunk_++;
    if (next_chunk_ == computed.chunk_count) {
      ++next_;
      next_chunk_ = 0;
    }
    ++running_;
    lock.Unlock();
    const absl::Status status = Compute(computed, chunk, buffer);
    lock.Lock();
    --running_;
    if (status_.ok()) status_ = status;
  }
}

absl::Status WriteOut::Compute(Computed& computed, int64_t chunk, std::string& buffer) {
  const TensorSource& source = *computed.source;
  const int64_t begin = chunk * computed.chunk_size;
  const int64_t end = std::min(begin + computed.chunk_size, source.size_bytes());
  buffer.resize(end - begin);
  char* next = buffer.data();
  auto status = source.Visit(begin, end, [&](absl::string_view bytes) {
    std::memcpy(next, bytes.data(), bytes.size());
    next += bytes.size();
    return absl::OkStatus();
  });
  if (!status.ok()) return status;
  Digest digest;
  if (save_ == nullptr) {
    digest = ComputeDigest(algorithm_, buffer);
  } else {
    auto put = save_->Put(buffer);
    if (!put.ok()) return put.status();
    digest = *put;
  }
  const size_t length = DigestLength(algorithm_);
  std::memcpy(computed.digests.data() + chunk * length, digest.bytes().data(), length);
  // Counts an equal part of the reads for each chunk.
  done_bytes_ += end - begin + source.read_bytes() / computed.chunk_count;
  return absl::OkStatus();
}

bool WriteOut::done() {
  MutexLock lock(mutex_);
  return running_ == 0 && (next_ == computed_.size() || !status_.ok());
}

absl::Status WriteOut::status() {
  MutexLock lock(mutex_);
  return status_;
}

void WriteOut::AddPiece(const WorkingTensor& tensor, const Piece& piece,
                        storage::records::TensorRecord& record) const {
  if (piece.shared != nullptr) {
    // Shares all pieces of the stored tensor; only their first rows change.
    const TensorSource::Stored& stored = *piece.shared->stored();
    for (const auto& old : stored.read->manifest().tensors(stored.tensor).pieces()) {
      auto* copy = record.add_pieces();
      *copy->mutable_offset() = old.offset();
      *copy->mutable_size() = old.size();
      if (copy->offset_size() > 0) copy->set_offset(0, old.offset(0) + piece.first_row);
      copy->set_chunk_size_bytes(old.chunk_size_bytes());
      copy->set_digests(old.digests());
    }
    return;
  }
  const Computed& computed = computed_[piece.computed];
  auto* made = record.add_pieces();
  for (size_t d = 0; d < tensor.shape.size(); ++d) {
    made->add_offset(d == 0 ? piece.first_row : 0);
    made->add_size(d == 0 ? piece.rows : tensor.shape[d]);
  }
  made->set_chunk_size_bytes(computed.chunk_size);
  made->set_digests(computed.digests);
}

storage::ManifestPart WriteOut::Manifest() const {
  storage::ManifestPart part;
  const auto& tensors = checkpoint_.tensors();
  for (size_t t = 0; t < tensors.size(); ++t) {
    const WorkingTensor& tensor = tensors[t];
    auto& record = *part.add_tensors();
    record.set_section(tensor.section);
    record.set_key(tensor.key);
    record.set_dtype(static_cast<uint32_t>(tensor.dtype));
    record.mutable_shape()->Add(tensor.shape.begin(), tensor.shape.end());
    record.set_requires_grad(tensor.requires_grad);
    record.set_role(static_cast<uint32_t>(tensor.role));
    record.set_tied_to(tied_to_[t]);
    for (const Piece& piece : pieces_[t]) AddPiece(tensor, piece, record);
  }
  for (const WorkingCheckpoint::StoredSection& section : checkpoint_.sections()) {
    auto& record = *part.add_sections();
    record.set_name(section.record.name());
    // A section that no edit has decoded keeps its stored bytes.
    record.set_value(section.section.has_value() ? EncodeSection(*section.section)
                                                 : section.record.value());
  }
  *part.mutable_attachments() = checkpoint_.base()->manifest().attachments();
  return part;
}

}  // namespace modelstore::server::modify
