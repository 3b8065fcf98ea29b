#include "client/internal/convert.h"

#include <unistd.h>

#include <string>
#include <string_view>

#include "absl/strings/str_cat.h"
#include "absl/types/span.h"
#include "client/internal/rpc.h"
#include "client/internal/value_codec.h"
#include "proto/contract/message_codec.h"

namespace modelstore {

std::string_view ToString(Origin origin) {
  return internal::WithoutPrefix(v1::Origin_Name(static_cast<int>(origin)), "ORIGIN_");
}

namespace internal {
namespace {

constexpr char kLibrary[] = "modelstore-cpp " MODELSTORE_VERSION;

std::string HostName() {
  char name[256] = {};
  if (gethostname(name, sizeof(name) - 1) != 0) return "";
  return name;
}

static_assert(static_cast<int>(Origin::kCopied) == v1::Origin_MAX,
              "every number of the protocol has a name");

}  // namespace

std::string_view WithoutPrefix(std::string_view name, std::string_view prefix) {
  if (name.starts_with(prefix)) name.remove_prefix(prefix.size());
  return name;
}

std::chrono::system_clock::time_point ToTime(const google::protobuf::Timestamp& time) {
  // system_clock counts nanoseconds and ends in 2262; later times are clamped.
  using Clock = std::chrono::system_clock;
  const auto ends = std::chrono::floor<std::chrono::seconds>(Clock::duration::max());
  if (time.seconds() >= ends.count()) return Clock::time_point::max();
  if (time.seconds() <= -ends.count()) return Clock::time_point::min();
  return std::chrono::system_clock::time_point(
      std::chrono::seconds(time.seconds()) +
      std::chrono::duration_cast<std::chrono::system_clock::duration>(
          std::chrono::nanoseconds(time.nanos())));
}

google::protobuf::Timestamp ToTimestamp(std::chrono::system_clock::time_point time) {
  using std::chrono::floor;
  using std::chrono::nanoseconds;
  using std::chrono::seconds;
  // Rounded down, so that nanos is not negative before 1970.
  const auto whole = floor<seconds>(time);
  google::protobuf::Timestamp out;
  out.set_seconds(whole.time_since_epoch().count());
  out.set_nanos(static_cast<int32_t>(nanoseconds(time - whole).count()));
  return out;
}

Timeout ToTimeout(const google::protobuf::Duration& duration) {
  return Timeout(duration.seconds() * 1000 + duration.nanos() / 1'000'000);
}

google::protobuf::Duration ToDuration(Timeout timeout) {
  google::protobuf::Duration out;
  out.set_seconds(timeout.count() / 1000);
  out.set_nanos(static_cast<int32_t>(timeout.count() % 1000 * 1'000'000));
  return out;
}

AliasMove ToAliasMove(const v1::AliasMove& move) {
  AliasMove out;
  out.alias = move.alias();
  if (move.has_from_version()) out.from_version = move.from_version();
  if (move.has_to_version()) out.to_version = move.to_version();
  out.note = move.note();
  out.mover = move.mover();
  out.move_time = ToTime(move.move_time());
  return out;
}

CheckpointInfo ToCheckpointInfo(const v1::Checkpoint& c) {
  CheckpointInfo info;
  info.name = c.name();
  info.version = c.version();
  info.model_uid = c.model_uid();
  if (c.has_epoch()) info.epoch = c.epoch();
  if (c.has_step()) info.step = c.step();
  if (c.has_loss()) info.loss = c.loss();
  info.metrics.insert(c.metrics().begin(), c.metrics().end());
  info.labels.insert(c.labels().begin(), c.labels().end());
  info.description = c.description();
  info.origin = ToKnown(c.origin(), Origin::kCopied);
  info.base_checkpoint = c.base_checkpoint();
  info.framework = c.producer().framework();
  info.code_commit = c.producer().code_commit();
  for (const v1::Section& section : c.sections()) info.sections.push_back(section.name());
  for (const v1::AttachmentInfo& a : c.attachments()) {
    info.attachments.push_back({a.name(), a.media_type(), a.size_bytes(), a.digest()});
  }
  info.aliases.assign(c.aliases().begin(), c.aliases().end());
  info.pinned = c.pinned();
  if (c.has_expire_time()) info.expire_time = ToTime(c.expire_time());
  info.create_time = ToTime(c.create_time());
  info.tensor_count = c.tensor_count();
  info.logical_bytes = c.logical_bytes();
  info.stored_bytes = c.stored_bytes();
  info.damaged_base_bytes = c.damaged_base_bytes();
  info.manifest_digest = c.manifest_digest();
  info.request_id = c.request_id();
  return info;
}

ModelInfo ToModelInfo(const v1::Model& m) {
  ModelInfo info;
  info.name = m.name();
  info.uid = m.uid();
  info.description = m.description();
  info.labels.insert(m.labels().begin(), m.labels().end());
  info.aliases.insert(m.aliases().begin(), m.aliases().end());
  if (m.has_latest_version()) info.latest_version = m.latest_version();
  info.checkpoint_count = m.checkpoint_count();
  info.logical_bytes = m.logical_bytes();
  info.stored_bytes = m.stored_bytes();
  return info;
}

absl::StatusOr<TensorInfo> ToTensorInfo(const v1::Tensor& t) {
  TensorInfo info;
  info.section = t.section().empty() ? "model" : t.section();
  info.key = t.key();
  const std::string name = absl::StrCat("tensor ", info.section, ":", info.key);
  absl::StatusOr<DType> dtype = DTypeFromNumber(t.dtype());
  if (!dtype.ok()) {
    return absl::InternalError(absl::StrCat(name, ": dtype ", static_cast<int>(t.dtype()),
                                            " is unknown to this client"));
  }
  info.dtype = *dtype;
  info.shape.assign(t.shape().begin(), t.shape().end());
  info.requires_grad = t.requires_grad();
  info.role = t.role() == v1::TENSOR_ROLE_PARAMETER ? TensorRole::kParameter
              : t.role() == v1::TENSOR_ROLE_BUFFER  ? TensorRole::kBuffer
                                                    : TensorRole::kUnspecified;
  info.tied_to = t.tied_to();
  info.size_bytes = t.size_bytes();
  absl::StatusOr<int64_t> bytes = TensorBytes(info.dtype, info.shape);
  if (!bytes.ok()) {
    return absl::InternalError(absl::StrCat(name, ": ", bytes.status().message()));
  }
  const bool no_bytes_of_its_own = !info.tied_to.empty() && info.size_bytes == 0;
  if (*bytes != info.size_bytes && !no_bytes_of_its_own) {
    return absl::InternalError(absl::StrCat(name, ": the server tells ", info.size_bytes,
                                            " bytes for a shape of ", *bytes));
  }
  return info;
}

absl::StatusOr<SectionContent> ToSectionContent(const v1::Section& section) {
  SectionContent out;
  out.name = section.name();
  if (section.has_value()) {
    absl::StatusOr<Value> value = DecodeValue(section.value());
    if (!value.ok()) return value.status();
    out.value = *std::move(value);
  }
  if (section.has_metadata()) {
    absl::StatusOr<Value> metadata = DecodeValue(section.metadata());
    if (!metadata.ok()) return metadata.status();
    out.metadata = *std::move(metadata);
  }
  return out;
}

void ToMetadata(const CheckpointMetadata& metadata, v1::Checkpoint* out) {
  if (metadata.epoch.has_value()) out->set_epoch(*metadata.epoch);
  if (metadata.step.has_value()) out->set_step(*metadata.step);
  if (metadata.loss.has_value()) out->set_loss(*metadata.loss);
  out->mutable_metrics()->insert(metadata.metrics.begin(), metadata.metrics.end());
  out->mutable_labels()->insert(metadata.labels.begin(), metadata.labels.end());
  out->set_description(metadata.description);
  out->mutable_producer()->set_library(kLibrary);
  out->mutable_producer()->set_host(HostName());
}

void ToMetadata(const SaveContent& content, v1::Checkpoint* out) {
  ToMetadata(content.metadata, out);
  out->mutable_producer()->set_framework(content.framework);
  out->mutable_producer()->set_code_commit(content.code_commit);
  if (content.architecture.empty()) return;
  // Malformed bytes give a message without a root, which the server refuses.
  (void)ParseMessage(content.architecture, out->mutable_architecture());
}

absl::Status ToSection(const SectionContent& section, v1::Section* out,
                       std::vector<NamedTensor>* tensors) {
  out->set_name(section.name);
  const std::string field = absl::StrCat("section \"", section.name, "\"");
  if (!section.value.IsNull()) {
    absl::Status s = EncodeValue(field, section.value, out->mutable_value(), tensors);
    if (!s.ok()) return s;
  }
  if (section.metadata.IsNull()) return absl::OkStatus();
  return EncodeValue(absl::StrCat(field, ", metadata"), section.metadata,
                     out->mutable_metadata(), nullptr);
}

void ToTensor(const TensorInfo& info, v1::Tensor* out) {
  out->set_section(info.section);
  out->set_key(info.key);
  out->set_dtype(static_cast<v1::DType>(info.dtype));
  out->mutable_shape()->Add(info.shape.begin(), info.shape.end());
  out->set_requires_grad(info.requires_grad);
  out->set_role(static_cast<v1::TensorRole>(info.role));
  out->set_tied_to(info.tied_to);
}

v1::TensorSelection ToSelection(const TensorSelection& selection) {
  v1::TensorSelection out;
  for (const std::string& section : selection.sections) out.add_sections(section);
  for (const std::string& key : selection.keys) out.add_keys(key);
  for (const std::string& p : selection.include) out.add_include_patterns(p);
  for (const std::string& p : selection.exclude) out.add_exclude_patterns(p);
  out.set_allow_unmatched(selection.allow_unmatched);
  return out;
}

void ToLoadRequest(const LoadOptions& options, v1::LoadCheckpointRequest* out) {
  *out->mutable_selection() = ToSelection(options.selection);
  for (const LoadOptions::RowSlice& slice : options.slices) {
    v1::RowSlice* row = out->add_slices();
    row->set_tensor(slice.tensor);
    row->set_begin(slice.begin);
    row->set_end(slice.end);
  }
  if (options.target_dtype.has_value()) {
    out->set_target_dtype(static_cast<v1::DType>(*options.target_dtype));
  }
  out->set_device(options.device);
}

}  // namespace internal
}  // namespace modelstore
