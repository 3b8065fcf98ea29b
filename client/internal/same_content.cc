#include "client/internal/same_content.h"

#include <algorithm>
#include <utility>

#include "absl/container/flat_hash_set.h"
#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"
#include "client/internal/fetch_plan.h"
#include "client/internal/rpc.h"
#include "modelstore/v1/model_store.pb.h"
#include "proto/contract/digest.h"
#include "proto/contract/dtype.h"
#include "proto/contract/limits.h"
#include "proto/contract/message_codec.h"
#include "proto/contract/names.h"

namespace modelstore::internal {
namespace {

std::string SectionOf(const v1::Tensor& tensor) {
  return tensor.section().empty() ? "model" : tensor.section();
}

std::string NameOf(const v1::Tensor& tensor) {
  return TensorNameOf(SectionOf(tensor), tensor.key());
}

std::string FullTarget(const v1::Tensor& tensor) {
  if (tensor.tied_to().empty()) return "";
  const TensorName target = ParseTensorName(tensor.tied_to());
  return TensorNameOf(target.section, target.key);
}

// A piece in normal form: explicit box and digests, and a chunk size no larger than the
// piece. The server omits a box that covers the tensor and stores the smaller chunk size.
struct PlainPiece {
  std::vector<int64_t> offset;
  std::vector<int64_t> size;
  int64_t chunk_size_bytes = 0;
  std::string digests;

  auto operator<=>(const PlainPiece&) const = default;
};

PlainPiece ToPlain(const v1::Tensor& tensor, const v1::Piece& piece) {
  PlainPiece plain;
  plain.offset.assign(piece.offset().begin(), piece.offset().end());
  plain.size.assign(piece.size().begin(), piece.size().end());
  if (plain.offset.empty()) plain.offset.assign(tensor.shape_size(), 0);
  if (plain.size.empty()) plain.size.assign(tensor.shape().begin(), tensor.shape().end());
  const absl::StatusOr<DType> dtype = DTypeFromNumber(tensor.dtype());
  const int64_t bytes = dtype.ok() ? TensorBytes(*dtype, plain.size).value_or(0) : 0;
  const int64_t chunk = piece.chunk_size_bytes();
  plain.chunk_size_bytes = chunk == 0 ? bytes : std::min(chunk, bytes);
  plain.digests = piece.chunk_digests();
  for (const std::string& hex : piece.chunk_digests_hex()) {
    plain.digests += absl::HexStringToBytes(hex);
  }
  return plain;
}

// The nonempty pieces, sorted and without duplicates.
std::vector<PlainPiece> PiecesOf(const v1::Tensor& tensor) {
  std::vector<PlainPiece> pieces;
  for (const v1::Piece& piece : tensor.pieces()) {
    pieces.push_back(ToPlain(tensor, piece));
    if (pieces.back().chunk_size_bytes == 0) pieces.pop_back();
  }
  std::sort(pieces.begin(), pieces.end());
  pieces.erase(std::unique(pieces.begin(), pieces.end()), pieces.end());
  return pieces;
}

bool SameKind(const v1::Tensor& a, const v1::Tensor& b) {
  return a.dtype() == b.dtype() &&
         std::equal(a.shape().begin(), a.shape().end(), b.shape().begin(),
                    b.shape().end()) &&
         FullTarget(a) == FullTarget(b);
}

// The first difference between `ours` and `stored`; empty if there is none.
std::string CompareTensors(const v1::Tensor& ours, const v1::Tensor& stored, bool whole) {
  if (!SameKind(ours, stored)) return "has another dtype, shape or tie";
  if (whole &&
      (ours.requires_grad() != stored.requires_grad() || ours.role() != stored.role())) {
    return "has another role or requires_grad";
  }
  const std::vector<PlainPiece> have = PiecesOf(stored);
  const std::vector<PlainPiece> want = PiecesOf(ours);
  const bool same =
      whole ? have == want
            : std::includes(have.begin(), have.end(), want.begin(), want.end());
  if (!same) return "has other bytes";
  return "";
}

std::string ValuesOf(const v1::Section& section) {
  v1::Section values;
  if (section.has_value()) *values.mutable_value() = section.value();
  if (section.has_metadata()) *values.mutable_metadata() = section.metadata();
  return SerializeDeterministic(values);
}

// Removes the digests from the manifest and returns them as one string, as
// FindMissingChunks expects.
std::string TakeDigests(std::vector<v1::ManifestPart>& parts) {
  std::string digests;
  for (v1::ManifestPart& part : parts) {
    for (v1::Tensor& tensor : *part.mutable_tensors()) {
      for (v1::Piece& piece : *tensor.mutable_pieces()) {
        digests += piece.chunk_digests();
        piece.clear_chunk_digests();
      }
    }
  }
  return digests;
}

absl::Status ListManifest(SameContent& same, Connection& connection,
                          const std::string& checkpoint, bool with_digests,
                          Deadline deadline, const Sleeper& sleeper) {
  v1::ListTensorsRequest request;
  request.set_parent(checkpoint);
  request.set_page_size(10'000);
  request.set_with_digests(with_digests);
  do {
    auto page =
        CallRpc<v1::ListTensorsResponse>(connection, kModelStore, "ListTensors", request,
                                         Idempotency::kIdempotent, deadline, sleeper);
    if (!page.ok()) return page.status();
    for (const v1::Tensor& tensor : page->tensors()) same.AddTensor(tensor);
    request.set_page_token(page->next_page_token());
  } while (!request.page_token().empty());
  return absl::OkStatus();
}

absl::StatusOr<bool> HasAll(Connection& connection, const std::string& checkpoint,
                            absl::string_view digests, Deadline deadline,
                            const Sleeper& sleeper) {
  const size_t most = kMaxDigestsPerCall * DigestLength(DigestAlgorithm::kXxh3_128);
  v1::FindMissingChunksRequest request;
  request.set_name(checkpoint);
  for (size_t at = 0; at < digests.size(); at += most) {
    request.set_digests(std::string(digests.substr(at, most)));
    auto answer = CallRpc<v1::FindMissingChunksResponse>(
        connection, kTransfer, "FindMissingChunks", request, Idempotency::kIdempotent,
        deadline, sleeper);
    if (!answer.ok()) return answer.status();
    if (answer->missing_size() > 0) return false;
  }
  return true;
}

}  // namespace

SameContent::SameContent(std::vector<v1::ManifestPart> ours, bool whole) : whole_(whole) {
  for (v1::ManifestPart& part : ours) {
    for (v1::Tensor& tensor : *part.mutable_tensors()) {
      const auto [it, added] = by_name_.try_emplace(NameOf(tensor), tensors_.size());
      if (added) {
        tensors_.push_back(std::move(tensor));
      } else {
        tensors_[it->second].mutable_pieces()->MergeFrom(tensor.pieces());
      }
    }
    for (v1::Section& section : *part.mutable_sections()) {
      sections_.push_back(std::move(section));
    }
    for (const v1::Attachment& attachment : part.attachments()) {
      const Digest digest = ComputeDigest(DigestAlgorithm::kXxh3_128, attachment.data());
      attachments_[attachment.name()] = {attachment.media_type(),
                                         absl::BytesToHexString(digest.bytes())};
    }
  }
}

void SameContent::AddTensor(const v1::Tensor& stored) {
  const std::string name = NameOf(stored);
  const size_t position = stored_tensors_++;
  const auto found = by_name_.find(name);
  if (found == by_name_.end()) {
    if (whole_) Note(absl::StrCat("tensor ", name, " is not in this save"));
    return;
  }
  ++found_;
  if (whole_ && found->second != position) {
    return Note(absl::StrCat("tensor ", name, " is in another place of the order"));
  }
  const std::string other = CompareTensors(tensors_[found->second], stored, whole_);
  if (!other.empty()) Note(absl::StrCat("tensor ", name, " ", other));
}

void SameContent::AddSections(const std::vector<v1::Section>& stored) {
  if (found_ < by_name_.size()) Note("it lacks tensors of this save");
  absl::flat_hash_map<std::string, std::string> values;
  for (const v1::Section& section : stored) values[section.name()] = ValuesOf(section);
  absl::flat_hash_set<std::string> ours;
  for (const v1::Tensor& tensor : tensors_) ours.insert(SectionOf(tensor));
  absl::flat_hash_set<std::string> with_value;
  for (const v1::Section& section : sections_) {
    ours.insert(section.name());
    const std::string value = ValuesOf(section);
    // In a distributed save another worker may provide the value.
    if (value.empty() && !whole_) continue;
    with_value.insert(section.name());
    const auto it = values.find(section.name());
    if (it == values.end() || it->second != value) {
      Note(absl::StrCat("section ", section.name(), " has another value"));
    }
  }
  if (!whole_) return;
  for (const auto& [name, value] : values) {
    if (!ours.contains(name) || (!value.empty() && !with_value.contains(name))) {
      Note(absl::StrCat("section ", name, " has another value"));
    }
  }
}

void SameContent::AddAttachments(
    const google::protobuf::RepeatedPtrField<v1::AttachmentInfo>& stored) {
  size_t found = 0;
  for (const v1::AttachmentInfo& attachment : stored) {
    const auto ours = attachments_.find(attachment.name());
    if (ours == attachments_.end()) {
      if (whole_)
        Note(absl::StrCat("attachment ", attachment.name(), " is not in this save"));
      continue;
    }
    ++found;
    if (ours->second != std::pair(attachment.media_type(), attachment.digest())) {
      Note(absl::StrCat("attachment ", attachment.name(),
                        " has other bytes or another type"));
    }
  }
  if (found < attachments_.size()) Note("it lacks attachments of this save");
}

absl::StatusOr<std::string> DifferenceFrom(Connection& connection,
                                           const std::string& checkpoint,
                                           std::vector<v1::ManifestPart> ours, bool whole,
                                           Deadline deadline, const Sleeper& sleeper) {
  SameContent same(ours, whole);
  absl::Status listed = ListManifest(same, connection, checkpoint, /*with_digests=*/true,
                                     deadline, sleeper);
  // The digests do not fit in an answer: compares the layout, and asks only whether every
  // chunk is present.
  if (absl::IsOutOfRange(listed) || absl::IsUnimplemented(listed)) {
    const std::string digests = TakeDigests(ours);
    same = SameContent(std::move(ours), whole);
    listed = ListManifest(same, connection, checkpoint, /*with_digests=*/false, deadline,
                          sleeper);
    if (!listed.ok()) return listed;
    const absl::StatusOr<bool> all =
        HasAll(connection, checkpoint, digests, deadline, sleeper);
    if (!all.ok()) return all.status();
    if (!*all) return "it lacks chunks of this save";
  }
  if (!listed.ok()) return listed;
  // The plan of a load contains section values of any size.
  absl::StatusOr<FetchedPlan> plan =
      Retry(RetryPolicy::Of(connection.options()), Idempotency::kIdempotent, deadline,
            sleeper, [&](Deadline attempt) {
              return FetchPlan(connection, checkpoint, LoadOptions(), attempt);
            });
  if (!plan.ok()) return plan.status();
  same.AddSections(plan->sections);
  same.AddAttachments(plan->checkpoint.attachments());
  return same.difference();
}

}  // namespace modelstore::internal
