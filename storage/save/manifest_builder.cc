#include "storage/save/manifest_builder.h"

#include <algorithm>
#include <tuple>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "proto/contract/dtype.h"
#include "proto/contract/errors.h"
#include "proto/contract/limits.h"
#include "proto/contract/names.h"
#include "proto/contract/numeric.h"
#include "storage/record_codec.h"
#include "storage/save/manifest_check.h"
#include "storage/status_macros.h"

namespace modelstore::storage {
namespace {

// Size at which a page ends; a larger record has a page of its own. Tensors and chunks
// that an error names.
constexpr size_t kPageBytes = size_t{1} << 20;
constexpr size_t kNamedProblems = 10;

// Pieces are ranges of the first dimension. A 0-dim tensor counts as one row.
int64_t FirstRow(const v1::PieceRecord& piece) {
  return piece.offset_size() == 0 ? 0 : piece.offset(0);
}
int64_t Rows(const v1::PieceRecord& piece) {
  return piece.size_size() == 0 ? 1 : piece.size(0);
}

int64_t BytesOf(const v1::TensorRecord& tensor) {
  int64_t bytes = ElementSize(static_cast<DType>(tensor.dtype()));
  for (int64_t size : tensor.shape()) bytes *= size;
  return bytes;
}

// Whether dtype and shape are equal.
bool SameKind(const v1::TensorRecord& a, const v1::TensorRecord& b) {
  return a.dtype() == b.dtype() && std::equal(a.shape().begin(), a.shape().end(),
                                              b.shape().begin(), b.shape().end());
}

// FAILED_PRECONDITION that names the first of `names`.
absl::Status Incomplete(absl::string_view what, const std::vector<std::string>& names) {
  const size_t shown = std::min(names.size(), kNamedProblems);
  std::string message =
      absl::StrCat(what, ": ", absl::StrJoin(names.begin(), names.begin() + shown, ", "));
  if (shown < names.size()) {
    absl::StrAppend(&message, " and ", names.size() - shown, " more");
  }
  return MakeError(ERROR_REASON_INCOMPLETE, message,
                   {{"missing_count", absl::StrCat(names.size())}});
}

}  // namespace

absl::Status ManifestBuilder::AddTensor(v1::TensorRecord tensor) {
  std::string name = TensorNameOf(tensor.section(), tensor.key());
  auto it = tensors_.find(name);
  if (it == tensors_.end()) {
    // A tie names an untied tensor, so that no reader has to follow a chain.
    if (!tensor.tied_to().empty()) {
      auto target = tensors_.find(tensor.tied_to());
      if (target == tensors_.end() ||
          !manifest_.tensors(target->second).tied_to().empty() ||
          !SameKind(manifest_.tensors(target->second), tensor)) {
        return InvalidField(
            absl::StrCat("tensor ", name, ".tied_to"),
            "must name an earlier, untied tensor of equal dtype and shape");
      }
    }
    tensors_.emplace(std::move(name), manifest_.tensors_size());
    *manifest_.add_tensors() = std::move(tensor);
    return absl::OkStatus();
  }
  v1::TensorRecord& known = *manifest_.mutable_tensors(it->second);
  if (!SameKind(known, tensor) || known.tied_to() != tensor.tied_to()) {
    return InvalidField(absl::StrCat("tensor ", name),
                        "the key is given twice, with another dtype, shape or tie");
  }
  // Another worker's share of the tensor, or the same share once more: Tile() decides.
  for (v1::PieceRecord& piece : *tensor.mutable_pieces()) {
    known.add_pieces()->Swap(&piece);
  }
  return absl::OkStatus();
}

absl::Status ManifestBuilder::AddSection(v1::SectionRecord section) {
  auto [it, added] = sections_.try_emplace(section.name(), manifest_.sections_size());
  if (added) {
    *manifest_.add_sections() = std::move(section);
    return absl::OkStatus();
  }
  v1::SectionRecord& known = *manifest_.mutable_sections(it->second);
  // Workers may send a section without its value, for its tensors alone.
  if (known.value().empty()) {
    known.set_value(section.value());
    known.mutable_named_tensors()->Swap(section.mutable_named_tensors());
  }
  if (!section.value().empty() && known.value() != section.value()) {
    return InvalidField(absl::StrCat("section ", section.name()),
                        "is given twice with other values");
  }
  return absl::OkStatus();
}

absl::Status ManifestBuilder::AddAttachment(v1::AttachmentRecord attachment) {
  auto [it, added] =
      attachments_.try_emplace(attachment.name(), manifest_.attachments_size());
  if (added) {
    const Digest digest = ComputeDigest(algorithm_, attachment.data());
    attachment.set_digest(std::string(digest.bytes()));
    *manifest_.add_attachments() = std::move(attachment);
    return absl::OkStatus();
  }
  const v1::AttachmentRecord& known = manifest_.attachments(it->second);
  if (known.data() != attachment.data() ||
      known.media_type() != attachment.media_type()) {
    return InvalidField(absl::StrCat("attachment ", attachment.name()),
                        "is given twice with other content");
  }
  return absl::OkStatus();
}

absl::Status ManifestBuilder::Add(v1::ManifestPage part) {
  for (auto& tensor : *part.mutable_tensors()) {
    RETURN_IF_ERROR(AddTensor(std::move(tensor)));
  }
  for (auto& section : *part.mutable_sections()) {
    RETURN_IF_ERROR(AddSection(std::move(section)));
  }
  for (auto& attachment : *part.mutable_attachments()) {
    RETURN_IF_ERROR(AddAttachment(std::move(attachment)));
  }
  return CheckCounts();
}

absl::Status ManifestBuilder::CheckCounts() const {
  if (manifest_.sections_size() > kMaxSections) {
    return InvalidField("manifest.sections",
                        absl::StrCat(manifest_.sections_size(),
                                     " sections so far, those that tensors name "
                                     "included; a checkpoint holds at most ",
                                     kMaxSections));
  }
  if (manifest_.attachments_size() > kMaxAttachments) {
    return InvalidField("manifest.attachments",
                        absl::StrCat(manifest_.attachments_size(),
                                     " attachments so far; a checkpoint holds at most ",
                                     kMaxAttachments));
  }
  return absl::OkStatus();
}

// Also clears named_tensors, which serves this check only and is not content.
absl::Status ManifestBuilder::CheckNamedTensors() {
  for (v1::SectionRecord& section : *manifest_.mutable_sections()) {
    for (const v1::TensorReference& named : section.named_tensors()) {
      if (tensors_.contains(TensorNameOf(section.name(), named.key()))) continue;
      return InvalidField(
          "manifest.sections",
          absl::StrCat("section \"", section.name(), "\", value ",
                       named.place().empty() ? named.key() : named.place(),
                       ": no tensor of the section has the key \"", named.key(),
                       "\"; save it too, or do not name it"));
    }
    section.clear_named_tensors();
  }
  return absl::OkStatus();
}

// Sorts the pieces by first row and passes over them once, with `next_row` the first row
// not covered yet: a piece that starts later leaves a gap, one that starts earlier
// overlaps. Several workers may send the same piece: equal ones are dropped.
absl::Status ManifestBuilder::Tile(v1::TensorRecord& tensor,
                                   std::vector<std::string>& gaps) const {
  if (!tensor.tied_to().empty() || BytesOf(tensor) == 0) return absl::OkStatus();
  auto& pieces = *tensor.mutable_pieces();
  std::stable_sort(pieces.pointer_begin(), pieces.pointer_end(),
                   [](const v1::PieceRecord* a, const v1::PieceRecord* b) {
                     return std::make_tuple(FirstRow(*a), Rows(*a)) <
                            std::make_tuple(FirstRow(*b), Rows(*b));
                   });
  const int64_t rows = tensor.shape_size() == 0 ? 1 : tensor.shape(0);
  const std::string name = TensorNameOf(tensor.section(), tensor.key());
  int64_t next_row = 0;
  int kept = 0;
  for (int p = 0; p < pieces.size(); ++p) {
    v1::PieceRecord& piece = pieces[p];
    if (kept > 0) {
      const v1::PieceRecord& last = pieces[kept - 1];
      if (FirstRow(last) == FirstRow(piece) && Rows(last) == Rows(piece) &&
          last.chunk_size_bytes() == piece.chunk_size_bytes() &&
          last.digests() == piece.digests()) {
        continue;
      }
    }
    if (FirstRow(piece) < next_row) {
      const bool same_box = kept > 0 && FirstRow(pieces[kept - 1]) == FirstRow(piece) &&
                            Rows(pieces[kept - 1]) == Rows(piece);
      return InvalidField(
          absl::StrCat("tensor ", name),
          same_box ? absl::StrCat("the key is given twice with other bytes or chunks for "
                                  "rows [",
                                  FirstRow(piece), ", ", next_row,
                                  "): keys are unique in a section")
                   : absl::StrCat("has boxes that overlap with other bytes at row ",
                                  FirstRow(piece)));
    }
    if (FirstRow(piece) > next_row) {
      gaps.push_back(absl::StrCat(name, " rows [", next_row, ", ", FirstRow(piece), ")"));
    }
    next_row = FirstRow(piece) + Rows(piece);
    if (kept != p) pieces.SwapElements(kept, p);
    ++kept;
  }
  while (pieces.size() > kept) pieces.RemoveLast();
  if (next_row < rows) {
    gaps.push_back(absl::StrCat(name, " rows [", next_row, ", ", rows, ")"));
  }
  return absl::OkStatus();
}

// Checks that a chunk of a bool tensor holds only 0 and 1: reading other bytes as bools
// is undefined behaviour. A chunk received since startup was checked on arrival; a chunk
// of a base is read here unless it belonged to a bool tensor there.
absl::Status ManifestBuilder::CheckBools(const v1::TensorRecord& tensor, int64_t index,
                                         const HeldChunk& chunk, const Digest& digest,
                                         ReadChunk read) {
  const std::pair<uint64_t, uint32_t> place(chunk.id.pack, chunk.id.sequence);
  bool only = chunk.bools == HeldChunk::Bools::kOnly || bools_.contains(place);
  if (!only && chunk.bools == HeldChunk::Bools::kUnknown) {
    const absl::StatusOr<PinnedBytes> bytes = read(chunk.id, digest);
    if (absl::IsDataLoss(bytes.status())) {
      return Unavailable(
          absl::StrCat("tensor ", TensorNameOf(tensor.section(), tensor.key()),
                       ": the stored chunk ", index, " is damaged; send it again"),
          1000);
    }
    RETURN_IF_ERROR(bytes.status());
    only = HoldsOnlyBools(bytes->view());
    if (only) bools_.insert(place);
  }
  if (only) return absl::OkStatus();
  return InvalidField(
      absl::StrCat("tensor ", TensorNameOf(tensor.section(), tensor.key())),
      absl::StrCat("is of bools, and chunk ", index,
                   " holds a byte that is neither 0 nor 1"));
}

absl::Status ManifestBuilder::Locate(v1::TensorRecord& tensor, FindChunk find,
                                     ReadChunk read, std::vector<std::string>& missing,
                                     BuiltManifest& built) {
  const bool bools = tensor.dtype() == static_cast<uint32_t>(DType::kBool);
  const size_t length = DigestLength(algorithm_);
  int64_t absent = 0;
  for (v1::PieceRecord& piece : *tensor.mutable_pieces()) {
    const int64_t piece_bytes = PieceBytes(tensor, piece);
    const int64_t count = ChunkCount(piece_bytes, piece.chunk_size_bytes());
    const absl::string_view digests = piece.digests();
    for (int64_t i = 0; i < count; ++i) {
      if (digests.size() < static_cast<size_t>(i + 1) * length) {
        absent += count - i;
        break;
      }
      ASSIGN_OR_RETURN(const Digest digest,
                       Digest::FromBytes(algorithm_, digests.substr(i * length, length)));
      const std::optional<HeldChunk> chunk = find(digest);
      if (!chunk.has_value()) {
        ++absent;
        continue;
      }
      const int64_t expected = ChunkBytes(piece_bytes, piece.chunk_size_bytes(), i);
      if (chunk->size_bytes != expected) {
        return InvalidField(
            absl::StrCat("tensor ", TensorNameOf(tensor.section(), tensor.key())),
            absl::StrCat("chunk ", i, " has ", chunk->size_bytes, " bytes where ",
                         expected, " belong"));
      }
      if (bools) {
        RETURN_IF_ERROR(CheckBools(tensor, i, *chunk, digest, read));
      }
      piece.add_packs(chunk->id.pack);
      piece.add_sequences(chunk->id.sequence);
      // Adds the pack; CountPackUses() counts its bytes.
      built.packs[chunk->id.pack];
    }
  }
  if (absent > 0) {
    missing.push_back(absl::StrCat(TensorNameOf(tensor.section(), tensor.key()), " (",
                                   absent, absent == 1 ? " chunk)" : " chunks)"));
  }
  return absl::OkStatus();
}

void ManifestBuilder::CountSections(BuiltManifest& built) {
  for (const v1::TensorRecord& tensor : manifest_.tensors()) {
    // A plain state dict has tensors and no section of its own.
    auto [it, added] = sections_.try_emplace(tensor.section(), manifest_.sections_size());
    if (added) manifest_.add_sections()->set_name(tensor.section());
  }
  for (v1::SectionRecord& section : *manifest_.mutable_sections()) {
    section.clear_tensor_count();
    section.clear_logical_bytes();
  }
  built.tensor_count = manifest_.tensors_size();
  for (const v1::TensorRecord& tensor : manifest_.tensors()) {
    v1::SectionRecord& section =
        *manifest_.mutable_sections(sections_.at(tensor.section()));
    section.set_tensor_count(section.tensor_count() + 1);
    if (!tensor.tied_to().empty()) continue;
    section.set_logical_bytes(section.logical_bytes() + BytesOf(tensor));
    built.logical_bytes += BytesOf(tensor);
  }
  for (const v1::SectionRecord& section : manifest_.sections()) {
    v1::SectionRecord summary = section;
    summary.clear_value();
    built.sections.push_back(std::move(summary));
  }
  for (const v1::AttachmentRecord& attachment : manifest_.attachments()) {
    v1::AttachmentSummary summary;
    summary.set_name(attachment.name());
    summary.set_media_type(attachment.media_type());
    summary.set_size_bytes(static_cast<int64_t>(attachment.data().size()));
    summary.set_digest(attachment.digest());
    built.attachments.push_back(std::move(summary));
  }
}

// A chunk that is named several times counts once.
void ManifestBuilder::CountPackUses(BuiltManifest& built) const {
  for (const v1::TensorRecord& tensor : manifest_.tensors()) {
    for (const v1::PieceRecord& piece : tensor.pieces()) {
      const int64_t piece_bytes = PieceBytes(tensor, piece);
      for (int i = 0; i < piece.packs_size(); ++i) {
        if (!built.chunks.emplace(piece.packs(i), piece.sequences(i)).second) continue;
        built.packs[piece.packs(i)].used_bytes +=
            ChunkBytes(piece_bytes, piece.chunk_size_bytes(), i);
      }
    }
  }
}

// Each record is preceded by its type and length, so that different sequences of records
// never give the same input to the digest.
std::string ManifestBuilder::ContentDigest() const {
  Digester digester(algorithm_);
  auto add = [&digester](const auto& record) {
    const std::string bytes = Encode(record);
    digester.Update(
        absl::StrCat(record.GetDescriptor()->name(), " ", bytes.size(), "\n"));
    digester.Update(bytes);
  };
  for (const auto& tensor : manifest_.tensors()) add(tensor);
  for (const auto& section : manifest_.sections()) add(section);
  for (const auto& attachment : manifest_.attachments()) add(attachment);
  return std::string(digester.Finish().bytes());
}

void ManifestBuilder::Paginate(BuiltManifest& built) {
  v1::ManifestPage page;
  size_t bytes = 0;
  auto flush = [&](bool last) {
    if (bytes == 0 && !(last && built.pages.empty())) return;
    built.pages.push_back(Encode(page));
    built.page_bytes += static_cast<int64_t>(built.pages.back().size());
    page.Clear();
    bytes = 0;
  };
  auto move = [&](auto* records, auto add) {
    for (auto& record : *records) {
      // 8 bytes more than enough for the record's tag and length.
      const size_t size = record.ByteSizeLong() + 8;
      if (bytes + size > kPageBytes) flush(false);
      bytes += size;
      add()->Swap(&record);
    }
  };
  move(manifest_.mutable_tensors(), [&] { return page.add_tensors(); });
  move(manifest_.mutable_sections(), [&] { return page.add_sections(); });
  move(manifest_.mutable_attachments(), [&] { return page.add_attachments(); });
  flush(true);
}

absl::StatusOr<BuiltManifest> ManifestBuilder::Build(FindChunk find, ReadChunk read) {
  BuiltManifest built;
  std::vector<std::string> gaps, missing;
  RETURN_IF_ERROR(CheckNamedTensors());
  for (v1::TensorRecord& tensor : *manifest_.mutable_tensors()) {
    RETURN_IF_ERROR(Tile(tensor, gaps));
  }
  if (!gaps.empty()) return Incomplete("boxes leave gaps", gaps);
  CountSections(built);
  RETURN_IF_ERROR(CheckCounts());
  // Before Locate(), which writes the places of chunks into the records: the digest must
  // not cover them.
  built.digest = ContentDigest();
  for (v1::TensorRecord& tensor : *manifest_.mutable_tensors()) {
    RETURN_IF_ERROR(Locate(tensor, find, read, missing, built));
  }
  if (!missing.empty()) return Incomplete("chunks are missing of", missing);
  CountPackUses(built);
  Paginate(built);
  return built;
}

}  // namespace modelstore::storage
