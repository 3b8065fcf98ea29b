#include "server/core/convert.h"

#include <algorithm>
#include <vector>

#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"
#include "google/protobuf/unknown_field_set.h"
#include "proto/contract/architecture/types.h"
#include "proto/contract/dtype.h"
#include "proto/contract/errors.h"
#include "proto/contract/message_codec.h"
#include "proto/contract/names.h"
#include "proto/contract/value_check.h"

namespace modelstore::server {
namespace {

// First byte of every opaque value on disk: the version of its encoding. 1: the rest is a
// message of the API, serialized.
constexpr char kEncodingVersion = 1;

std::string EncodeOpaque(const google::protobuf::Message& message) {
  return absl::StrCat(std::string(1, kEncodingVersion), SerializeDeterministic(message));
}

// Decodes an opaque value; empty bytes leave `message` unchanged. `type` and `name` are
// of the resource that the value belongs to, for errors: UNIMPLEMENTED for a later
// encoding, DATA_LOSS for bytes that cannot be parsed.
absl::Status DecodeOpaque(absl::string_view bytes, absl::string_view type,
                          absl::string_view name, google::protobuf::Message* message) {
  if (bytes.empty()) return absl::OkStatus();
  const std::string& what = message->GetDescriptor()->name();
  if (bytes[0] != kEncodingVersion) {
    return absl::UnimplementedError(
        absl::StrCat(type, " ", name, ": a stored ", what, " has encoding ",
                     static_cast<int>(bytes[0]), ", written by a newer server"));
  }
  if (ParseMessage(bytes.substr(1), message)) return absl::OkStatus();
  return DataDamaged(type, name, absl::StrCat("its stored ", what, " cannot be read"));
}

void SetTime(int64_t micros, google::protobuf::Timestamp* time) {
  time->set_seconds(micros / 1'000'000);
  time->set_nanos(static_cast<int32_t>(micros % 1'000'000) * 1000);
}

// Converts a policy stored by an earlier version, which had keep_younger_than as a number
// of seconds in field 6. It is now an unknown field.
void ReadWholeSeconds(v1::RetentionPolicy& policy) {
  constexpr int kField = 6;
  constexpr auto kMaxSeconds = static_cast<uint64_t>(kMaxDurationSeconds);
  auto* unknown = policy.GetReflection()->MutableUnknownFields(&policy);
  for (int i = 0; i < unknown->field_count(); ++i) {
    const auto& field = unknown->field(i);
    if (field.number() != kField ||
        field.type() != google::protobuf::UnknownField::TYPE_VARINT ||
        field.varint() == 0) {
      continue;
    }
    policy.mutable_keep_younger_than()->set_seconds(
        static_cast<int64_t>(std::min(field.varint(), kMaxSeconds)));
  }
  unknown->DeleteByNumber(kField);
}

// The record is canonical although the API allows omissions: it always has a box, and a
// chunk size that does not exceed the piece. Moves the digests out of `piece`.
records::PieceRecord PieceToRecord(const records::TensorRecord& tensor,
                                   v1::Piece* piece) {
  records::PieceRecord record;
  const int rank = tensor.shape_size();
  std::vector<int64_t> box;
  for (int d = 0; d < rank; ++d) {
    record.add_offset(piece->offset_size() == 0 ? 0 : piece->offset(d));
    box.push_back(piece->size_size() == 0 ? tensor.shape(d) : piece->size(d));
    record.add_size(box.back());
  }
  const int64_t bytes = TensorBytes(static_cast<DType>(tensor.dtype()), box).value_or(0);
  const int64_t chunk = piece->chunk_size_bytes();
  record.set_chunk_size_bytes(chunk == 0 ? bytes : std::min(chunk, bytes));
  record.set_allocated_digests(piece->release_chunk_digests());
  return record;
}

// Moves key, shape and digests out of `tensor`.
void TensorToRecord(v1::Tensor* tensor, records::TensorRecord* record) {
  record->set_section(tensor->section().empty() ? "model" : tensor->section());
  record->set_allocated_key(tensor->release_key());
  record->set_dtype(tensor->dtype());
  record->mutable_shape()->Swap(tensor->mutable_shape());
  record->set_requires_grad(tensor->requires_grad());
  record->set_role(tensor->role());
  if (!tensor->tied_to().empty()) {
    const TensorName target = ParseTensorName(tensor->tied_to());
    record->set_tied_to(TensorNameOf(target.section, target.key));
  }
  for (v1::Piece& piece : *tensor->mutable_pieces()) {
    *record->add_pieces() = PieceToRecord(*record, &piece);
  }
}

void AddNamedTensors(std::vector<NamedTensor> tensors, records::SectionRecord& record) {
  for (NamedTensor& tensor : tensors) {
    records::TensorReference* reference = record.add_named_tensors();
    if (tensor.place != tensor.key) reference->set_place(std::move(tensor.place));
    reference->set_key(std::move(tensor.key));
  }
}

// Converts the metadata that checkpoints and uploads have in common.
void MetadataFromRecord(const records::CheckpointMetadata& metadata,
                        v1::Checkpoint* out) {
  if (metadata.has_epoch()) out->set_epoch(metadata.epoch());
  if (metadata.has_step()) out->set_step(metadata.step());
  if (metadata.has_loss()) out->set_loss(metadata.loss());
  *out->mutable_metrics() = metadata.metrics();
  *out->mutable_labels() = metadata.labels();
  out->set_description(metadata.description());
  if (!metadata.producer().empty()) {
    // The producer is informational: if it cannot be decoded, it is left out rather than
    // making the checkpoint unreadable.
    auto s = DecodeOpaque(metadata.producer(), "producer", "", out->mutable_producer());
    if (!s.ok()) out->clear_producer();
  }
  out->set_origin(static_cast<v1::Origin>(metadata.origin()));
}

void SetBase(const std::string& model_id, const std::string& uid, int64_t version,
             v1::Checkpoint* out) {
  if (version == 0) return;
  out->set_base_checkpoint(CheckpointNameOf(model_id, version));
  out->set_base_model_uid(uid);
}

}  // namespace

records::ModelRecord ModelToRecord(absl::string_view model_id, const v1::Model& model) {
  records::ModelRecord record;
  record.set_model_id(std::string(model_id));
  record.set_digest_algorithm(v1::DIGEST_ALGORITHM_XXH3_128);
  record.set_description(model.description());
  *record.mutable_labels() = model.labels();
  record.set_extra(EncodeModelExtra(model));
  return record;
}

std::string EncodeModelExtra(const v1::Model& model) {
  if (!model.has_retention_policy()) return "";
  v1::Model extra;
  *extra.mutable_retention_policy() = model.retention_policy();
  return EncodeOpaque(extra);
}

records::CheckpointMetadata MetadataToRecord(const v1::Checkpoint& checkpoint) {
  records::CheckpointMetadata metadata;
  if (checkpoint.has_epoch()) metadata.set_epoch(checkpoint.epoch());
  if (checkpoint.has_step()) metadata.set_step(checkpoint.step());
  if (checkpoint.has_loss()) metadata.set_loss(checkpoint.loss());
  *metadata.mutable_metrics() = checkpoint.metrics();
  *metadata.mutable_labels() = checkpoint.labels();
  metadata.set_description(checkpoint.description());
  if (checkpoint.has_producer()) {
    metadata.set_producer(EncodeOpaque(checkpoint.producer()));
  }
  if (checkpoint.has_architecture()) {
    v1::Architecture architecture = checkpoint.architecture();
    MarkIncomplete(*architecture.mutable_root());
    metadata.set_architecture(EncodeArchitecture(architecture));
  }
  metadata.set_origin(v1::ORIGIN_SAVED);
  return metadata;
}

std::string EncodeSection(v1::Section section) {
  section.clear_name();
  section.clear_tensor_count();
  section.clear_logical_bytes();
  return EncodeOpaque(section);
}

std::string EncodeArchitecture(const v1::Architecture& architecture) {
  return EncodeOpaque(architecture);
}

std::string EncodeEdit(const v1::Edit& edit) { return EncodeOpaque(edit); }

storage::ManifestPart ManifestPartToRecord(v1::ManifestPart part,
                                           std::vector<std::vector<NamedTensor>> named) {
  storage::ManifestPart record;
  for (v1::Tensor& tensor : *part.mutable_tensors()) {
    TensorToRecord(&tensor, record.add_tensors());
  }
  for (int s = 0; s < part.sections_size(); ++s) {
    v1::Section& section = *part.mutable_sections(s);
    records::SectionRecord* out = record.add_sections();
    out->set_name(section.name());
    AddNamedTensors(std::move(named[s]), *out);
    out->set_value(EncodeSection(std::move(section)));
  }
  for (v1::Attachment& attachment : *part.mutable_attachments()) {
    records::AttachmentRecord* out = record.add_attachments();
    out->set_name(attachment.name());
    out->set_media_type(attachment.media_type());
    const Digest digest = ComputeDigest(DigestAlgorithm::kXxh3_128, attachment.data());
    out->set_digest(std::string(digest.bytes()));
    out->set_allocated_data(attachment.release_data());
  }
  return record;
}

absl::Duration ToDuration(const google::protobuf::Duration& duration) {
  return absl::Seconds(duration.seconds()) + absl::Nanoseconds(duration.nanos());
}

v1::Model ModelFromRecord(const records::ModelRecord& record) {
  v1::Model model;
  v1::Model extra;
  const std::string name = ModelName(record.model_id());
  // A policy that cannot be decoded is left out, so that the model stays usable.
  if (DecodeOpaque(record.extra(), "model", name, &extra).ok() &&
      extra.has_retention_policy()) {
    ReadWholeSeconds(*extra.mutable_retention_policy());
    *model.mutable_retention_policy() = extra.retention_policy();
  }
  model.set_name(name);
  model.set_uid(record.uid());
  model.set_description(record.description());
  *model.mutable_labels() = record.labels();
  *model.mutable_aliases() = record.aliases();
  // A record without an algorithm (0) uses XXH3-128 (1).
  model.set_digest_algorithm(
      static_cast<v1::DigestAlgorithm>(std::max(record.digest_algorithm(), 1u)));
  if (record.latest_version() != 0) model.set_latest_version(record.latest_version());
  model.set_checkpoint_count(record.checkpoint_count());
  model.set_logical_bytes(record.logical_bytes());
  model.set_stored_bytes(record.stored_bytes());
  SetTime(record.create_time_us(), model.mutable_create_time());
  SetTime(record.update_time_us(), model.mutable_update_time());
  model.set_etag(ModelEtag(record));
  return model;
}

v1::Checkpoint CheckpointFromRecord(const records::ModelRecord& model,
                                    const records::CheckpointRecord& record) {
  v1::Checkpoint out;
  MetadataFromRecord(record.metadata(), &out);
  out.set_name(CheckpointNameOf(model.model_id(), record.version()));
  out.set_version(record.version());
  out.set_model_uid(model.uid());
  SetBase(record.base_model_id(), record.base_model_uid(), record.base_version(), &out);
  for (const auto& section : record.sections()) {
    v1::Section* summary = out.add_sections();
    summary->set_name(section.name());
    summary->set_tensor_count(section.tensor_count());
    summary->set_logical_bytes(section.logical_bytes());
  }
  for (const auto& attachment : record.attachments()) {
    v1::AttachmentInfo* info = out.add_attachments();
    info->set_name(attachment.name());
    info->set_media_type(attachment.media_type());
    info->set_size_bytes(attachment.size_bytes());
    info->set_digest(absl::BytesToHexString(attachment.digest()));
  }
  SetTime(record.create_time_us(), out.mutable_create_time());
  out.set_tensor_count(record.tensor_count());
  out.set_logical_bytes(record.logical_bytes());
  out.set_stored_bytes(record.stored_bytes());
  out.set_damaged_base_bytes(record.damaged_base_bytes());
  out.set_manifest_digest(absl::BytesToHexString(record.manifest_digest()));
  out.set_request_id(record.request_id());
  // Sorted, because the order of a protobuf map is not defined.
  for (const auto& [alias, version] : model.aliases()) {
    if (version == record.version()) out.add_aliases(alias);
  }
  std::sort(out.mutable_aliases()->begin(), out.mutable_aliases()->end());
  out.set_pinned(record.pinned());
  if (record.expire_time_us() != 0) {
    SetTime(record.expire_time_us(), out.mutable_expire_time());
  }
  out.set_etag(CheckpointEtag(model.uid(), record));
  return out;
}

absl::Status AddFullMetadata(const records::CheckpointMetadata& metadata,
                             absl::string_view name, v1::Checkpoint* checkpoint) {
  if (!metadata.architecture().empty()) {
    auto s = DecodeOpaque(metadata.architecture(), "checkpoint", name,
                          checkpoint->mutable_architecture());
    if (!s.ok()) return s;
  }
  for (const std::string& edit : metadata.edits()) {
    auto s = DecodeOpaque(edit, "checkpoint", name, checkpoint->add_edits());
    if (!s.ok()) return s;
  }
  return absl::OkStatus();
}

int64_t StoredTensorBytes(const records::TensorRecord& record) {
  const std::vector<int64_t> shape(record.shape().begin(), record.shape().end());
  return TensorBytes(static_cast<DType>(record.dtype()), shape).value_or(0);
}

v1::Tensor TensorFromRecord(const records::TensorRecord& record, Pieces pieces) {
  v1::Tensor tensor;
  tensor.set_section(record.section());
  tensor.set_key(record.key());
  tensor.set_dtype(static_cast<v1::DType>(record.dtype()));
  *tensor.mutable_shape() = record.shape();
  tensor.set_requires_grad(record.requires_grad());
  tensor.set_role(static_cast<v1::TensorRole>(record.role()));
  tensor.set_tied_to(record.tied_to());
  tensor.set_size_bytes(StoredTensorBytes(record));
  if (pieces == Pieces::kNone) return tensor;
  for (const auto& piece : record.pieces()) {
    v1::Piece* out = tensor.add_pieces();
    // A single piece is the whole tensor and needs no box.
    if (record.pieces_size() > 1) {
      *out->mutable_offset() = piece.offset();
      *out->mutable_size() = piece.size();
    }
    out->set_chunk_size_bytes(piece.chunk_size_bytes());
    if (pieces != Pieces::kHexDigests) continue;
    // The digests are concatenated, 16 bytes each (XXH3-128).
    for (size_t at = 0; at + 16 <= piece.digests().size(); at += 16) {
      out->add_chunk_digests_hex(
          absl::BytesToHexString(absl::string_view(piece.digests()).substr(at, 16)));
    }
  }
  return tensor;
}

absl::StatusOr<v1::Section> SectionFromRecord(const records::SectionRecord& record,
                                              absl::string_view checkpoint) {
  v1::Section section;
  auto s = DecodeOpaque(record.value(), "section",
                        absl::StrCat(checkpoint, "/sections/", record.name()), &section);
  if (!s.ok()) return s;
  section.set_name(record.name());
  section.set_tensor_count(record.tensor_count());
  section.set_logical_bytes(record.logical_bytes());
  return section;
}

absl::string_view EncodedSection(const records::SectionRecord& record) {
  return absl::string_view(record.value()).substr(1);
}

v1::Upload UploadFromRecord(const records::UploadRecord& record) {
  v1::Upload upload;
  upload.set_name(UploadNameOf(record.model_id(), record.upload_id()));
  MetadataFromRecord(record.metadata(), upload.mutable_checkpoint());
  SetBase(record.base_model_id(), record.base_model_uid(), record.base_version(),
          upload.mutable_checkpoint());
  upload.set_contribution_count(static_cast<int32_t>(record.contribution_count()));
  upload.set_request_id(record.request_id());
  SetTime(record.create_time_us(), upload.mutable_create_time());
  SetTime(record.expire_time_us(), upload.mutable_expire_time());
  if (record.committed_version() != 0) {
    upload.set_committed_version(record.committed_version());
  }
  return upload;
}

v1::Upload UploadFromState(const storage::UploadState& state) {
  v1::Upload upload = UploadFromRecord(state.record);
  for (const auto& contribution : state.contributions) {
    v1::Contribution* out = upload.add_contributions();
    out->set_index(static_cast<int32_t>(contribution.index));
    out->set_complete(contribution.complete);
    out->set_tensor_count(contribution.tensor_count);
  }
  upload.set_sealed_bytes(state.sealed_bytes);
  upload.set_received_bytes(state.received_bytes);
  return upload;
}

v1::Alias AliasFrom(absl::string_view model_id, const storage::Aliases::Alias& alias) {
  v1::Alias out;
  out.set_name(AliasNameOf(model_id, alias.alias));
  out.set_version(alias.version);
  out.set_note(alias.record.note());
  SetTime(alias.record.update_time_us(), out.mutable_update_time());
  return out;
}

v1::AliasMove AliasMoveFromRecord(const records::AliasMoveRecord& record) {
  v1::AliasMove out;
  out.set_alias(record.alias());
  if (record.from_version() != 0) out.set_from_version(record.from_version());
  if (record.to_version() != 0) out.set_to_version(record.to_version());
  SetTime(record.move_time_us(), out.mutable_move_time());
  out.set_note(record.note());
  out.set_mover(record.mover());
  return out;
}

v1::Lease LeaseFrom(absl::string_view model_id, const storage::Leases::Lease& lease) {
  v1::Lease out;
  out.set_name(LeaseNameOf(model_id, lease.version, lease.holder));
  out.set_checkpoint(CheckpointNameOf(model_id, lease.version));
  out.set_holder(lease.holder);
  SetTime(lease.record.create_time_us(), out.mutable_create_time());
  SetTime(lease.record.expire_time_us(), out.mutable_expire_time());
  return out;
}

std::string ModelEtag(const records::ModelRecord& record) {
  return absl::StrCat(record.uid(), "-", record.generation());
}

std::string CheckpointEtag(absl::string_view model_uid,
                           const records::CheckpointRecord& record) {
  return absl::StrCat(model_uid, "-", record.version(), "-", record.generation());
}

}  // namespace modelstore::server
