#include "server/core/validation.h"

#include <algorithm>
#include <vector>

#include "absl/strings/str_cat.h"
#include "proto/contract/architecture/architecture.h"
#include "proto/contract/digest.h"
#include "proto/contract/dtype.h"
#include "proto/contract/errors.h"
#include "proto/contract/limits.h"
#include "proto/contract/names.h"
#include "proto/contract/value_check.h"
#include "server/core/convert.h"

namespace modelstore::server {
namespace {

constexpr size_t kMaxDescriptionBytes = 4096;
// Of serialized messages. They are stored with unknown fields, which only the total size
// bounds.
constexpr size_t kMaxPolicyBytes = 4096;
constexpr size_t kMaxProducerBytes = size_t{20} << 10;
constexpr int kMaxLabels = 64;
// Of a key or value of labels, a name of a metric, and a media type.
constexpr size_t kMaxLabelBytes = 256;
constexpr int kMaxMetrics = 1024;
constexpr int64_t kDigestBytes = 16;

// Returns the path of a child field, or of an element of a repeated child field.
std::string At(absl::string_view field, absl::string_view child) {
  return field.empty() ? std::string(child) : absl::StrCat(field, ".", child);
}

std::string At(absl::string_view field, absl::string_view child, int index) {
  return absl::StrCat(At(field, child), "[", index, "]");
}

// Returns the error for a field that exceeds its limit, with both figures.
absl::Status FieldOverLimit(absl::string_view field, size_t given, size_t limit,
                            absl::string_view unit) {
  return InvalidField(
      field, absl::StrCat("has ", given, " ", unit, ", at most ", limit, " are allowed"));
}

absl::Status ValidateSize(absl::string_view field,
                          const google::protobuf::Message& message, size_t limit) {
  const size_t size = message.ByteSizeLong();
  return size <= limit ? absl::OkStatus() : FieldOverLimit(field, size, limit, "bytes");
}

absl::Status ValidateDescription(absl::string_view field, absl::string_view text) {
  if (text.size() <= kMaxDescriptionBytes) return absl::OkStatus();
  return FieldOverLimit(At(field, "description"), text.size(), kMaxDescriptionBytes,
                        "bytes");
}

// Returns the path of a map entry, such as `model.labels["team"]`.
std::string Entry(absl::string_view field, absl::string_view map, absl::string_view key) {
  return absl::StrCat(At(field, map), "[\"", key, "\"]");
}

// Checks a key of labels or metrics.
absl::Status ValidateMapKey(absl::string_view field, absl::string_view map,
                            absl::string_view key) {
  if (key.empty()) return InvalidField(At(field, map), "has an empty key");
  if (key.size() <= kMaxLabelBytes) return absl::OkStatus();
  return FieldOverLimit(At(field, map), key.size(), kMaxLabelBytes, "bytes in a key");
}

absl::Status ValidateLabels(
    absl::string_view field,
    const google::protobuf::Map<std::string, std::string>& labels) {
  if (static_cast<int>(labels.size()) > kMaxLabels) {
    return FieldOverLimit(At(field, "labels"), labels.size(), kMaxLabels, "pairs");
  }
  for (const auto& [key, value] : labels) {
    if (auto s = ValidateMapKey(field, "labels", key); !s.ok()) return s;
    if (value.size() <= kMaxLabelBytes) continue;
    return FieldOverLimit(Entry(field, "labels", key), value.size(), kMaxLabelBytes,
                          "bytes");
  }
  return absl::OkStatus();
}

// Returns the size in bytes of a piece's box, after checking that the box lies within the
// shape and is a range of rows.
absl::StatusOr<int64_t> BoxBytes(absl::string_view field, const v1::Tensor& tensor,
                                 const v1::Piece& piece) {
  const int rank = tensor.shape_size();
  if (piece.offset_size() != 0 && piece.offset_size() != rank) {
    return InvalidField(At(field, "offset"), "one entry per dimension, or none");
  }
  if (piece.size_size() != 0 && piece.size_size() != rank) {
    return InvalidField(At(field, "size"), "one entry per dimension, or none");
  }
  std::vector<int64_t> box;
  for (int d = 0; d < rank; ++d) {
    const int64_t extent = tensor.shape(d);
    const int64_t offset = piece.offset_size() == 0 ? 0 : piece.offset(d);
    const int64_t size = piece.size_size() == 0 ? extent : piece.size(d);
    // As a difference: offset + size could overflow.
    if (offset < 0 || size < 0 || offset > extent || size > extent - offset) {
      return InvalidField(field,
                          absl::StrCat("the box leaves the shape in dimension ", d));
    }
    if (d > 0 && (offset != 0 || size != extent)) {
      return absl::UnimplementedError(
          absl::StrCat(field,
                       ": a piece is a range of the first dimension and whole in "
                       "the others; other boxes are not built"));
    }
    box.push_back(size);
  }
  return TensorBytes(static_cast<DType>(tensor.dtype()), box);
}

absl::Status ValidatePiece(absl::string_view field, const v1::Tensor& tensor,
                           const v1::Piece& piece, Digests digests) {
  const int64_t element_bytes = ElementSize(static_cast<DType>(tensor.dtype()));
  auto bytes = BoxBytes(field, tensor, piece);
  if (!bytes.ok()) return bytes.status();
  const int64_t chunk = piece.chunk_size_bytes();
  if (chunk < 0 || chunk > kMaxChunkBytes || chunk % element_bytes != 0) {
    return InvalidField(At(field, "chunk_size_bytes"),
                        absl::StrCat("is ", chunk,
                                     ", must be a multiple of the element "
                                     "size (",
                                     element_bytes, "), at most ", kMaxChunkBytes));
  }
  // Without a chunk size the piece is one chunk.
  if (chunk == 0 && *bytes > kMaxChunkBytes) {
    return InvalidField(At(field, "chunk_size_bytes"),
                        absl::StrCat("required for a piece of ", *bytes,
                                     " bytes: without it a piece "
                                     "has at most ",
                                     kMaxChunkBytes));
  }
  // Digests are concatenated, one for each chunk. The last chunk may be shorter; an empty
  // piece has none.
  const int64_t given = static_cast<int64_t>(piece.chunk_digests().size());
  if (given == 0 && digests == Digests::kOptional) return absl::OkStatus();
  const int64_t step = chunk == 0 ? std::max<int64_t>(*bytes, 1) : chunk;
  const int64_t chunks = *bytes / step + (*bytes % step != 0 ? 1 : 0);
  if (given % kDigestBytes != 0 || given / kDigestBytes != chunks) {
    return InvalidField(
        At(field, "chunk_digests"),
        absl::StrCat(chunks, " digests of ", kDigestBytes, " bytes expected for ", *bytes,
                     " bytes in chunks of ", step, ", got ", given, " bytes"));
  }
  return absl::OkStatus();
}

// Checks the arguments of all modules of a tree. Recursive: ValidateArchitecture() must
// have checked the depth of the tree.
absl::Status ValidateArguments(absl::string_view field, const ModuleTree& module) {
  for (const auto& argument : module.arguments()) {
    auto status = CheckValue(absl::StrCat(field, ": argument ", argument.name()), "value",
                             argument.value(), kMaxArgumentDepth, nullptr);
    if (!status.ok()) return status;
  }
  for (const ModuleTree& child : module.children()) {
    if (auto status = ValidateArguments(field, child); !status.ok()) return status;
  }
  return absl::OkStatus();
}

}  // namespace

absl::Status ValidateRetention(absl::string_view field,
                               const v1::RetentionPolicy& policy) {
  const std::pair<absl::string_view, int64_t> numbers[] = {
      {"keep_latest", policy.keep_latest()},
      {"keep_best", policy.keep_best()},
      {"keep_every_steps", policy.keep_every_steps()}};
  for (const auto& [name, number] : numbers) {
    if (number < 0) return InvalidField(At(field, name), "must not be negative");
  }
  const auto& age = policy.keep_younger_than();
  if (age.seconds() < 0 || age.nanos() < 0 || age.seconds() > kMaxDurationSeconds ||
      age.nanos() > 999'999'999) {
    return InvalidField(At(field, "keep_younger_than"), "from 0 s to 10,000 years");
  }
  if (policy.keep_best() > 0 && policy.metric().empty()) {
    return InvalidField(At(field, "metric"), "required with keep_best");
  }
  if (policy.metric().size() > kMaxLabelBytes) {
    return FieldOverLimit(At(field, "metric"), policy.metric().size(), kMaxLabelBytes,
                          "bytes");
  }
  return ValidateSize(field, policy, kMaxPolicyBytes);
}

absl::Status ValidateNote(absl::string_view field, absl::string_view note) {
  if (note.size() <= kMaxDescriptionBytes) return absl::OkStatus();
  return FieldOverLimit(field, note.size(), kMaxDescriptionBytes, "bytes");
}

absl::Status EmptyMask() {
  return InvalidField("update_mask", "names no field: there is nothing to change");
}

absl::Status UnknownMaskPath(absl::string_view path, absl::string_view known) {
  return InvalidField("update_mask",
                      absl::StrCat("`", path, "` cannot be changed; these can: ", known));
}

absl::StatusOr<int64_t> ExpiryMicros(absl::string_view field,
                                     const v1::Checkpoint& checkpoint) {
  if (!checkpoint.has_expire_time()) return 0;
  const auto& time = checkpoint.expire_time();
  // The range of google.protobuf.Timestamp ends with the year 9999.
  if (time.seconds() <= 0 || time.seconds() > 253'402'300'799 || time.nanos() < 0 ||
      time.nanos() > 999'999'999) {
    return InvalidField(field, "is not a time after 1970 and before the year 10000");
  }
  return time.seconds() * 1'000'000 + time.nanos() / 1000;
}

absl::Status ValidateModel(absl::string_view field, const v1::Model& model) {
  if (auto status = ValidateDescription(field, model.description()); !status.ok()) {
    return status;
  }
  if (auto status = ValidateLabels(field, model.labels()); !status.ok()) return status;
  const std::string path = At(field, "retention_policy");
  if (auto s = ValidateRetention(path, model.retention_policy()); !s.ok()) return s;
  if (model.digest_algorithm() == v1::DIGEST_ALGORITHM_SHA256) {
    return absl::UnimplementedError(
        absl::StrCat(At(field, "digest_algorithm"),
                     ": DIGEST_ALGORITHM_SHA256 is not built: use "
                     "DIGEST_ALGORITHM_XXH3_128"));
  }
  if (!v1::DigestAlgorithm_IsValid(model.digest_algorithm())) {
    return InvalidField(At(field, "digest_algorithm"), "unknown");
  }
  return absl::OkStatus();
}

absl::Status ValidateCheckpoint(absl::string_view field,
                                const v1::Checkpoint& checkpoint) {
  if (auto status = ValidateDescription(field, checkpoint.description()); !status.ok()) {
    return status;
  }
  if (auto status = ValidateLabels(field, checkpoint.labels()); !status.ok()) {
    return status;
  }
  if (static_cast<int>(checkpoint.metrics().size()) > kMaxMetrics) {
    return FieldOverLimit(At(field, "metrics"), checkpoint.metrics().size(), kMaxMetrics,
                          "entries");
  }
  for (const auto& [name, unused] : checkpoint.metrics()) {
    if (auto s = ValidateMapKey(field, "metrics", name); !s.ok()) return s;
  }
  const auto& producer = checkpoint.producer();
  for (const std::string* text : {&producer.library(), &producer.framework(),
                                  &producer.code_commit(), &producer.host()}) {
    if (text->size() > kMaxDescriptionBytes) {
      return FieldOverLimit(At(field, "producer"), text->size(), kMaxDescriptionBytes,
                            "bytes in a field");
    }
  }
  if (auto s = ValidateSize(At(field, "producer"), producer, kMaxProducerBytes);
      !s.ok()) {
    return s;
  }
  if (!checkpoint.has_architecture()) return absl::OkStatus();
  const std::string at = At(field, "architecture");
  auto status = ValidateArchitecture(at, checkpoint.architecture());
  return status.ok() ? ValidateArguments(at, checkpoint.architecture().root()) : status;
}

absl::Status ValidateTensor(absl::string_view field, const v1::Tensor& tensor,
                            Digests digests) {
  if (!tensor.section().empty()) {
    if (auto s = ValidateSectionId(At(field, "section"), tensor.section()); !s.ok()) {
      return s;
    }
  }
  if (auto s = ValidateKey(At(field, "key"), tensor.key()); !s.ok()) return s;
  auto dtype = DTypeFromNumber(tensor.dtype());
  if (!dtype.ok()) {
    return InvalidField(At(field, "dtype"),
                        tensor.dtype() == 0 ? "required" : "not a type that is known");
  }
  const std::vector<int64_t> shape(tensor.shape().begin(), tensor.shape().end());
  if (auto bytes = TensorBytes(*dtype, shape); !bytes.ok()) {
    return InvalidField(At(field, "shape"), bytes.status().message());
  }
  if (!v1::TensorRole_IsValid(tensor.role())) {
    return InvalidField(At(field, "role"), "unknown");
  }
  if (!tensor.tied_to().empty()) {
    const TensorName target = ParseTensorName(tensor.tied_to());
    if (auto s = ValidateKey(At(field, "tied_to"), target.key); !s.ok()) return s;
    if (tensor.pieces_size() != 0) {
      return InvalidField(At(field, "pieces"), "a tied tensor has none of its own");
    }
  }
  // A SaveCheckpoint stream has the whole manifest, so every tensor needs pieces. In an
  // upload another contribution may provide them.
  if (digests == Digests::kOptional && tensor.pieces_size() == 0 &&
      tensor.tied_to().empty() && TensorBytes(*dtype, shape).value_or(0) > 0) {
    return InvalidField(At(field, "pieces"),
                        "required: one empty piece stands for the whole tensor");
  }
  for (int i = 0; i < tensor.pieces_size(); ++i) {
    auto s = ValidatePiece(At(field, "pieces", i), tensor, tensor.pieces(i), digests);
    if (!s.ok()) return s;
  }
  return absl::OkStatus();
}

absl::Status ValidateSection(absl::string_view field, const v1::Section& section,
                             std::vector<NamedTensor>& named) {
  if (auto s = ValidateSectionId(At(field, "name"), section.name()); !s.ok()) return s;
  const std::string name = absl::StrCat("section \"", section.name(), "\"");
  if (section.has_value()) {
    auto s = CheckValue(At(field, "value"), absl::StrCat(name, ", value"),
                        section.value(), kMaxValueDepth, &named);
    if (!s.ok()) return s;
  }
  if (!section.has_metadata()) return absl::OkStatus();
  // Metadata describes modules and must not refer to tensors.
  return CheckValue(At(field, "metadata"), absl::StrCat(name, ", metadata"),
                    section.metadata(), kMaxValueDepth, nullptr);
}

absl::Status ValidateAttachment(absl::string_view field,
                                const v1::Attachment& attachment) {
  if (!ValidateModelId("", attachment.name()).ok()) {
    return InvalidField(At(field, "name"), "must be [a-zA-Z0-9][a-zA-Z0-9._-]{0,127}");
  }
  if (attachment.media_type().size() > kMaxLabelBytes) {
    return FieldOverLimit(At(field, "media_type"), attachment.media_type().size(),
                          kMaxLabelBytes, "bytes");
  }
  if (static_cast<int64_t>(attachment.data().size()) > kMaxAttachmentBytes) {
    return FieldOverLimit(At(field, "data"), attachment.data().size(),
                          kMaxAttachmentBytes, "bytes");
  }
  return absl::OkStatus();
}

absl::Status ValidateManifestPart(absl::string_view field, const v1::ManifestPart& part,
                                  Digests digests,
                                  std::vector<std::vector<NamedTensor>>& named) {
  named.resize(part.sections_size());
  for (int i = 0; i < part.tensors_size(); ++i) {
    auto s = ValidateTensor(At(field, "tensors", i), part.tensors(i), digests);
    if (!s.ok()) return s;
  }
  for (int i = 0; i < part.sections_size(); ++i) {
    auto s = ValidateSection(At(field, "sections", i), part.sections(i), named[i]);
    if (!s.ok()) return s;
  }
  for (int i = 0; i < part.attachments_size(); ++i) {
    auto s = ValidateAttachment(At(field, "attachments", i), part.attachments(i));
    if (!s.ok()) return s;
  }
  return absl::OkStatus();
}

}  // namespace modelstore::server
