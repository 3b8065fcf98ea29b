#include "proto/contract/errors.h"

#include <string>

#include "absl/strings/cord.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/strip.h"
#include "google/protobuf/descriptor.h"
#include "google/protobuf/message_lite.h"
#include "modelstore/rpc/error_details.pb.h"
#include "proto/contract/limits.h"
#include "proto/contract/message_codec.h"
#include "proto/contract/utf8.h"

namespace modelstore {
namespace {

// Our messages of package modelstore.rpc travel under their names in google.rpc.
constexpr absl::string_view kTypeUrlPrefix = "type.googleapis.com/google.rpc.";
constexpr char kDomain[] = "modelstore";
constexpr absl::string_view kReasonPrefix = "ERROR_REASON_";
// Of a value of the metadata: all details of an error fit into a trailer.
constexpr size_t kMaxMetadataBytes = 640;
// Of a field's path, which BadRequest repeats.
constexpr size_t kMaxFieldBytes = 256;

template <typename Detail>
void Attach(absl::Status& status, const Detail& detail) {
  status.SetPayload(absl::StrCat(kTypeUrlPrefix, Detail::descriptor()->name()),
                    absl::Cord(detail.SerializeAsString()));
}

// The detail of this type, if there is one that can be read.
template <typename Detail>
std::optional<Detail> Attached(const absl::Status& status) {
  Detail detail;
  const auto bytes =
      status.GetPayload(absl::StrCat(kTypeUrlPrefix, Detail::descriptor()->name()));
  if (!bytes.has_value() || !ParseMessage(std::string(*bytes), &detail)) {
    return std::nullopt;
  }
  return detail;
}

// Names that a client sent may be anything, and of any length.
std::string Text(absl::string_view text) { return ToUtf8(text, 1280); }

absl::Status WithMessage(const absl::Status& status, absl::string_view message) {
  if (status.ok()) return status;
  absl::Status copy(status.code(), message);
  status.ForEachPayload([&](absl::string_view url, const absl::Cord& payload) {
    copy.SetPayload(url, payload);
  });
  return copy;
}

absl::Status WithResource(ErrorReason reason, absl::string_view type,
                          absl::string_view name, absl::string_view message,
                          absl::string_view description) {
  absl::Status status = MakeError(
      reason, message,
      {{"resource_type", std::string(type)}, {"resource_name", std::string(name)}});
  rpc::ResourceInfo info;
  info.set_resource_type(Text(type));
  info.set_resource_name(Text(name));
  info.set_description(Text(description));
  Attach(status, info);
  return status;
}

std::string VersionOr(int64_t version, absl::string_view none) {
  return version == 0 ? std::string(none) : absl::StrCat(version);
}

void AttachDelay(absl::Status& status, int retry_after_ms) {
  rpc::RetryInfo detail;
  detail.mutable_retry_delay()->set_seconds(retry_after_ms / 1000);
  detail.mutable_retry_delay()->set_nanos(retry_after_ms % 1000 * 1'000'000);
  Attach(status, detail);
}

}  // namespace

absl::StatusCode CodeOf(ErrorReason reason) {
  return static_cast<absl::StatusCode>(reason / 100);
}

absl::string_view ReasonName(ErrorReason reason) {
  return absl::StripPrefix(v1::ErrorReason_Name(reason), kReasonPrefix);
}

absl::Status MakeError(ErrorReason reason, absl::string_view message,
                       ErrorMetadata metadata) {
  return WithReason(absl::Status(CodeOf(reason), message), reason, metadata);
}

absl::Status WithReason(absl::Status status, ErrorReason reason, ErrorMetadata metadata) {
  rpc::ErrorInfo detail;
  detail.set_reason(std::string(ReasonName(reason)));
  detail.set_domain(kDomain);
  for (const auto& [key, value] : metadata) {
    (*detail.mutable_metadata())[std::string(key)] = ToUtf8(value, kMaxMetadataBytes);
  }
  Attach(status, detail);
  return status;
}

absl::Status EnsureReason(absl::Status status) {
  if (status.ok() || ErrorDetailOf(status).has_value()) return status;
  const int number = static_cast<int>(status.code()) * 100;
  return WithReason(std::move(status), v1::ErrorReason_IsValid(number)
                                           ? static_cast<ErrorReason>(number)
                                           : ERROR_REASON_UNKNOWN);
}

std::optional<ErrorDetail> ErrorDetailOf(const absl::Status& status) {
  auto info = Attached<rpc::ErrorInfo>(status);
  if (!info.has_value() || info->domain() != kDomain) return std::nullopt;
  ErrorDetail detail;
  detail.reason = info->reason();
  detail.metadata.insert(info->metadata().begin(), info->metadata().end());
  return detail;
}

absl::Status InvalidField(absl::string_view field, absl::string_view message) {
  absl::Status status =
      MakeError(ERROR_REASON_INVALID_FIELD, absl::StrCat(field, ": ", message),
                {{"field", ToUtf8(field, kMaxFieldBytes)}});
  rpc::BadRequest detail;
  auto* violation = detail.add_field_violations();
  violation->set_field(Text(field));
  violation->set_description(Text(message));
  Attach(status, detail);
  return status;
}

absl::Status DoesNotExist(absl::string_view type, absl::string_view name) {
  return WithResource(ERROR_REASON_NOT_FOUND, type, name,
                      absl::StrCat(type, " ", name, " does not exist"), "does not exist");
}

absl::Status AlreadyExists(absl::string_view type, absl::string_view name) {
  return WithResource(ERROR_REASON_ALREADY_EXISTS, type, name,
                      absl::StrCat(type, " ", name, " already exists"), "already exists");
}

absl::Status Unavailable(absl::string_view message, int retry_after_ms) {
  absl::Status status = MakeError(ERROR_REASON_UNAVAILABLE, message);
  AttachDelay(status, retry_after_ms);
  return status;
}

absl::Status Overloaded(absl::string_view message, int retry_after_ms) {
  return WithReason(Unavailable(message, retry_after_ms), ERROR_REASON_OVERLOADED);
}

bool IsOverloaded(const absl::Status& status) {
  if (!absl::IsUnavailable(status)) return false;
  const auto detail = ErrorDetailOf(status);
  return detail.has_value() && detail->reason == ReasonName(ERROR_REASON_OVERLOADED);
}

absl::Status ShuttingDown() {
  return WithReason(Unavailable("the server is shutting down", 1000),
                    ERROR_REASON_SHUTTING_DOWN);
}

absl::Status OverLimit(absl::string_view limit, int64_t maximum,
                       absl::string_view message) {
  return MakeError(ERROR_REASON_OVER_LIMIT, message,
                   {{"limit", std::string(limit)}, {"maximum", absl::StrCat(maximum)}});
}

absl::Status StaleEtag(absl::string_view name) {
  return MakeError(ERROR_REASON_STALE_ETAG,
                   absl::StrCat(name, ": the etag differs: read it again"),
                   {{"resource_name", std::string(name)}});
}

absl::Status UploadCommitted(absl::string_view name, int64_t version) {
  return MakeError(
      ERROR_REASON_UPLOAD_COMMITTED,
      absl::StrCat("upload ", name, " is committed already, as version ", version),
      {{"resource_name", std::string(name)}, {"version", absl::StrCat(version)}});
}

absl::Status AnswerTooLarge(absl::string_view name, absl::string_view remedy) {
  return MakeError(ERROR_REASON_ANSWER_TOO_LARGE,
                   absl::StrCat(name, " exceeds the 4 MiB of an answer: ", remedy),
                   {{"resource_name", std::string(name)},
                    {"maximum_bytes", absl::StrCat(kMaxAnswerBytes)}});
}

absl::Status RequestIdReused(absl::string_view request_id, absl::string_view what) {
  return WithReason(
      InvalidField("request_id", absl::StrCat(request_id, " was used with ", what)),
      ERROR_REASON_REQUEST_ID_REUSED,
      {{"field", "request_id"}, {"request_id", std::string(request_id)}});
}

absl::Status LostRace(absl::string_view resource, int64_t expected, int64_t actual,
                      absl::string_view message) {
  return MakeError(ERROR_REASON_LOST_RACE, message,
                   {{"resource_name", std::string(resource)},
                    {"expected_version", VersionOr(expected, "")},
                    {"actual_version", VersionOr(actual, "")}});
}

absl::Status LatestVersionDiffers(absl::string_view model, int64_t expected,
                                  int64_t actual) {
  return LostRace(
      model, expected, actual,
      absl::StrCat(model, ": the latest version is ", VersionOr(actual, "none"),
                   ", expected was ", VersionOr(expected, "none")));
}

std::optional<absl::Duration> RetryDelay(const absl::Status& status) {
  const auto info = Attached<rpc::RetryInfo>(status);
  if (!info.has_value() || !info->has_retry_delay()) return std::nullopt;
  return absl::Seconds(info->retry_delay().seconds()) +
         absl::Nanoseconds(info->retry_delay().nanos());
}

absl::Status DataDamaged(absl::string_view type, absl::string_view name,
                         absl::string_view what) {
  return WithResource(ERROR_REASON_DATA_DAMAGED, type, name,
                      absl::StrCat(type, " ", name, ": ", what), what);
}

absl::Status TensorDataLoss(absl::string_view checkpoint, absl::string_view tensor,
                            absl::string_view what) {
  return WithResource(
      ERROR_REASON_DATA_DAMAGED, "tensor", absl::StrCat(checkpoint, "/", tensor),
      absl::StrCat("tensor ", tensor, " of ", checkpoint, ": ", what), what);
}

absl::Status Annotate(const absl::Status& status, absl::string_view context) {
  return WithMessage(status, absl::StrCat(context, ": ", status.message()));
}

absl::Status AppendTo(const absl::Status& status, absl::string_view addition) {
  return WithMessage(status, absl::StrCat(status.message(), "; ", addition));
}

}  // namespace modelstore
