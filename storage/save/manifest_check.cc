#include "storage/save/manifest_check.h"

#include "absl/strings/str_cat.h"
#include "absl/types/span.h"
#include "proto/contract/dtype.h"
#include "proto/contract/errors.h"
#include "proto/contract/limits.h"
#include "proto/contract/names.h"
#include "storage/manifest_cache.h"
#include "storage/status_macros.h"

namespace modelstore::storage {
namespace {

// Approximate bytes of a chunk's location, stored with each digest.
constexpr int64_t kLocationBytes = 13;
// The largest value of TensorRole.
constexpr uint32_t kMaxRole = 2;

// Fills in absent offsets and sizes and checks that the box lies in the tensor and is a
// range of rows.
absl::Status CheckBox(const std::string& field, const v1::TensorRecord& tensor,
                      v1::PieceRecord& piece) {
  const int dimensions = tensor.shape_size();
  if (piece.offset_size() == 0) piece.mutable_offset()->Resize(dimensions, 0);
  if (piece.size_size() == 0) *piece.mutable_size() = tensor.shape();
  if (piece.offset_size() != dimensions || piece.size_size() != dimensions) {
    return InvalidField(field, "has not as many dimensions as its tensor");
  }
  bool rows_only = true;
  for (int d = 0; d < dimensions; ++d) {
    const int64_t offset = piece.offset(d), size = piece.size(d), whole = tensor.shape(d);
    if (offset < 0 || size < 0 || offset > whole || size > whole - offset) {
      return InvalidField(field, absl::StrCat("leaves the tensor in dimension ", d));
    }
    if (d > 0 && size != whole) rows_only = false;
  }
  if (!rows_only) {
    return absl::UnimplementedError(absl::StrCat(
        field, ": only boxes that are ranges of the first dimension are supported"));
  }
  return absl::OkStatus();
}

// Checks the chunk size and the number of digests, and adds the bytes that digests and
// places take to `bytes`.
absl::Status CheckChunks(const std::string& field, DigestAlgorithm algorithm,
                         DigestsWanted wanted, const v1::TensorRecord& tensor,
                         v1::PieceRecord& piece, int64_t& bytes) {
  const int64_t piece_bytes = PieceBytes(tensor, piece);
  if (piece.chunk_size_bytes() == 0) piece.set_chunk_size_bytes(piece_bytes);
  const int64_t chunk_size = piece.chunk_size_bytes();
  if (chunk_size < 0 || chunk_size > kMaxChunkBytes) {
    return InvalidField(
        absl::StrCat(field, ".chunk_size_bytes"),
        absl::StrCat("is ", chunk_size, ", must be at most ", kMaxChunkBytes));
  }
  if (chunk_size % ElementSize(static_cast<DType>(tensor.dtype())) != 0) {
    return InvalidField(absl::StrCat(field, ".chunk_size_bytes"),
                        "must be a multiple of the element's size");
  }
  const int64_t length = static_cast<int64_t>(DigestLength(algorithm));
  const int64_t count = ChunkCount(piece_bytes, chunk_size);
  // A count beyond the limit is clamped: the product could overflow.
  bytes +=
      count > kMaxManifestBytes ? kMaxManifestBytes : count * (length + kLocationBytes);
  const int64_t given = static_cast<int64_t>(piece.digests().size());
  if (given == 0 && wanted == DigestsWanted::kAllOrNone) return absl::OkStatus();
  if (given % length != 0 || given / length != count) {
    return InvalidField(absl::StrCat(field, ".chunk_digests"),
                        absl::StrCat("must hold ", count, " digests of ", length,
                                     " bytes, has ", given, " bytes"));
  }
  return absl::OkStatus();
}

// Checks one tensor, without its relation to others, and brings it into stored form.
absl::Status CheckTensor(const std::string& field, DigestAlgorithm algorithm,
                         DigestsWanted wanted, v1::TensorRecord& tensor,
                         int64_t& location_bytes) {
  if (tensor.section().empty()) tensor.set_section("model");
  RETURN_IF_ERROR(ValidateSectionId(absl::StrCat(field, ".section"), tensor.section()));
  RETURN_IF_ERROR(ValidateKey(absl::StrCat(field, ".key"), tensor.key()));
  absl::StatusOr<DType> dtype = DTypeFromNumber(static_cast<int>(tensor.dtype()));
  if (!dtype.ok()) {
    return InvalidField(absl::StrCat(field, ".dtype"), dtype.status().message());
  }
  absl::StatusOr<int64_t> bytes = TensorBytes(*dtype, tensor.shape());
  if (!bytes.ok()) {
    return InvalidField(absl::StrCat(field, ".shape"), bytes.status().message());
  }
  if (tensor.role() > kMaxRole) {
    return InvalidField(absl::StrCat(field, ".role"), "is unknown");
  }
  if (!tensor.tied_to().empty()) {
    if (tensor.pieces_size() != 0) {
      return InvalidField(absl::StrCat(field, ".pieces"),
                          "must be empty: the tensor is tied to another");
    }
    const TensorName target = ParseTensorName(tensor.tied_to());
    tensor.set_tied_to(TensorNameOf(target.section, target.key));
    return absl::OkStatus();
  }
  if (*bytes == 0) tensor.clear_pieces();
  int kept = 0;
  for (int p = 0; p < tensor.pieces_size(); ++p) {
    v1::PieceRecord& piece = *tensor.mutable_pieces(p);
    // Clients do not choose places.
    piece.clear_packs();
    piece.clear_sequences();
    const std::string piece_field = absl::StrCat(field, ".pieces[", p, "]");
    RETURN_IF_ERROR(CheckBox(piece_field, tensor, piece));
    if (PieceBytes(tensor, piece) == 0) continue;  // a worker's empty share
    RETURN_IF_ERROR(
        CheckChunks(piece_field, algorithm, wanted, tensor, piece, location_bytes));
    if (kept != p) tensor.mutable_pieces()->SwapElements(kept, p);
    ++kept;
  }
  while (tensor.pieces_size() > kept) tensor.mutable_pieces()->RemoveLast();
  return absl::OkStatus();
}

absl::Status CheckAttachment(const std::string& field,
                             const v1::AttachmentRecord& attachment) {
  // The grammar of attachment names is that of model ids.
  RETURN_IF_ERROR(ValidateModelId(absl::StrCat(field, ".name"), attachment.name()));
  if (attachment.media_type().size() > 256) {
    return InvalidField(absl::StrCat(field, ".media_type"),
                        absl::StrCat("has ", attachment.media_type().size(),
                                     " bytes, at most 256 are allowed"));
  }
  return absl::OkStatus();
}

}  // namespace

int64_t ChunkCount(int64_t piece_bytes, int64_t chunk_size_bytes) {
  if (piece_bytes == 0) return 0;
  // Rounds up without overflow.
  return 1 + (piece_bytes - 1) / chunk_size_bytes;
}

absl::Status CheckManifestPart(DigestAlgorithm algorithm, DigestsWanted wanted,
                               v1::ManifestPage& part, ManifestTotals& totals) {
  ManifestTotals added;
  for (int t = 0; t < part.tensors_size(); ++t) {
    v1::TensorRecord& tensor = *part.mutable_tensors(t);
    RETURN_IF_ERROR(CheckTensor(absl::StrCat("manifest.tensors[", t, "]"), algorithm,
                                wanted, tensor, added.bytes));
    // Stops early: the part is refused below, and a hostile one may be large.
    if (added.bytes > kMaxManifestBytes) break;
  }
  for (int s = 0; s < part.sections_size(); ++s) {
    RETURN_IF_ERROR(ValidateSectionId(absl::StrCat("manifest.sections[", s, "].name"),
                                      part.sections(s).name()));
  }
  for (int a = 0; a < part.attachments_size(); ++a) {
    v1::AttachmentRecord& attachment = *part.mutable_attachments(a);
    RETURN_IF_ERROR(
        CheckAttachment(absl::StrCat("manifest.attachments[", a, "]"), attachment));
    added.attachment_bytes += static_cast<int64_t>(attachment.data().size());
  }
  added.tensors = part.tensors_size();
  // Attachments have a limit of their own.
  added.bytes += static_cast<int64_t>(part.ByteSizeLong()) - added.attachment_bytes;
  // References to tensors are not stored with the version.
  for (const v1::SectionRecord& section : part.sections()) {
    for (const v1::TensorReference& named : section.named_tensors()) {
      added.bytes -= static_cast<int64_t>(named.ByteSizeLong());
    }
  }
  totals += added;
  return CheckManifestTotals(totals);
}

absl::Status CheckManifestTotals(const ManifestTotals& totals) {
  if (totals.tensors > kMaxTensors) {
    return InvalidField("manifest.tensors",
                        absl::StrCat(totals.tensors,
                                     " tensors so far; a checkpoint holds "
                                     "at most ",
                                     kMaxTensors));
  }
  if (totals.attachment_bytes > kMaxTotalAttachmentBytes) {
    return InvalidField("manifest.attachments", absl::StrCat(totals.attachment_bytes,
                                                             " bytes of attachments; a "
                                                             "checkpoint holds at most ",
                                                             kMaxTotalAttachmentBytes));
  }
  if (totals.bytes > kMaxManifestBytes) {
    return InvalidField(
        "manifest",
        absl::StrCat("takes at least ", totals.bytes, " bytes so far, at most ",
                     kMaxManifestBytes, " are allowed: use larger chunks"));
  }
  return absl::OkStatus();
}

}  // namespace modelstore::storage
